"""The commands that make and remove clusters: `plan`, `create`, `destroy`."""

from __future__ import annotations

import click

from bilbo.cli.context import Context, load, pass_context, target_of, work
from bilbo.cli.look import JSON_OPTION, open_dashboard, open_notebook, print_json
from bilbo.cli.names import CLUSTER, PROFILE, STAGE_TIMEOUT_OPTION
from bilbo.errors import UsageError
from bilbo.model import ClusterSpec

NAME_OPTION = click.option(
    "-n", "--name", type=CLUSTER, help="Name of the cluster; else the profile's."
)
OVERRIDE_OPTION = click.option(
    "-p",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Change a value of the profile, given as JSON; may be repeated.",
)
MY_IP_OPTION = click.option(
    "--my-ip", is_flag=True, help="Ask again for your public address, and admit that."
)


@click.command(short_help="Show create cluster plan.")
@click.argument("profile", type=PROFILE)
@NAME_OPTION
@OVERRIDE_OPTION
@MY_IP_OPTION
@JSON_OPTION
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there are changes, else 0.")
@pass_context
def plan(
    context: Context,
    profile: str,
    name: str | None,
    overrides: tuple[str, ...],
    my_ip: bool,
    as_json: bool,
    detailed_exitcode: bool,
) -> None:
    """Show what `create` would do for PROFILE, by `terraform plan`. Nothing is created.

    \b
    Examples:
      bilbo plan test.json
      bilbo --local plan examples/demo.json -n demo
      bilbo plan test.json -p dask.worker.count=8 -p instance.ec2type=m5.2xlarge
    """
    from bilbo import report
    from bilbo.cluster import plan as plan_cluster
    from bilbo.cluster.sizing import estimates

    spec, target = load(context, profile, name, overrides)
    with work(context, target) as w:
        planned = plan_cluster(spec, w, my_ip=my_ip)
        sizes = estimates(planned.spec, w)
    if as_json:
        print_json(report.plan_document(planned.spec, sizes, planned.outcome))
    else:
        click.echo(report.plan_text(planned.spec, sizes, planned.outcome))
    if detailed_exitcode and planned.has_changes:
        raise click.exceptions.Exit(2)


@click.command(short_help="Create cluster.")
@click.argument("profile", type=PROFILE)
@NAME_OPTION
@OVERRIDE_OPTION
@MY_IP_OPTION
@STAGE_TIMEOUT_OPTION
@click.option("--notebook", is_flag=True, help="Open JupyterLab when it is ready.")
@click.option("--dashboard", is_flag=True, help="Open the dashboard when it is ready.")
@click.option("-y", "--yes", is_flag=True, help="Agree to destroy or replace machines.")
@pass_context
def create(
    context: Context,
    profile: str,
    name: str | None,
    overrides: tuple[str, ...],
    my_ip: bool,
    timeout: float | None,
    notebook: bool,
    dashboard: bool,
    yes: bool,
) -> None:
    """Create a cluster from PROFILE, or complete or change the one of that name.

    \b
    Examples:
      bilbo create test.json
      bilbo create test.json -n test-cluster
      bilbo create test.json -p dask.worker.count=8 --dashboard
      bilbo --local create examples/demo.json --notebook
    """
    from bilbo import report
    from bilbo.cluster import create as create_cluster

    spec, target = load(context, profile, name, overrides)
    _check_pages(spec, notebook=notebook, dashboard=dashboard)
    with work(context, target, yes=yes, timeout=timeout) as w:
        created = create_cluster(spec, w, yes=yes, my_ip=my_ip)
    if not created.changed:
        click.echo(report.NOTHING_TO_DO)
    elif created.record:
        click.echo("\n" + report.summary(created.record))
        click.echo("\n" + report.next_steps(created.record), err=True)
    if created.record and notebook:
        open_notebook(context.store, created.record)
    if created.record and dashboard:
        open_dashboard(context.store, created.record)


def _check_pages(spec: ClusterSpec, *, notebook: bool, dashboard: bool) -> None:
    """Raises UsageError, before anything is created, for a page that there will not be."""
    if notebook and not spec.notebook:
        raise UsageError("--notebook: the profile asks for no notebook")
    if dashboard and not spec.engine:
        raise UsageError("--dashboard: the profile asks for no engine, such as dask")


@click.command(short_help="Destroy cluster.")
@click.argument("name", type=CLUSTER)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_context
def destroy(context: Context, name: str, yes: bool) -> None:
    """Destroy the cluster NAME: its machines, and the files on them.

    \b
    Examples:
      bilbo destroy test
      bilbo destroy test -y
    """
    from bilbo.cluster import destroy as destroy_cluster

    record = context.store.known(name) or context.store.load(name)
    with work(context, target_of(context, record), yes=yes) as w:
        count = sum(1 for _ in record.inventory.nodes())
        files = " The files on its notebook go too." if record.inventory.notebook else ""
        if not w.progress.confirm(f"Destroy cluster {name!r}, {count} instance(s)?{files}"):
            click.echo("Nothing was destroyed.", err=True)
            raise click.exceptions.Exit(1)
        destroy_cluster(name, w)
    click.echo(f"Destroyed cluster '{name}'; nothing of it is left.", err=True)
