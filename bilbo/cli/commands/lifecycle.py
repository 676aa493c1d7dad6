"""The commands of a cluster's life: `plan`, `create`, `scale`, `restart` and `destroy`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bilbo.cli.context import Context, load, pass_context, target_of, work
from bilbo.cli.output import echo, echo_lines
from bilbo.cli.pages import open_dashboard, open_notebook
from bilbo.cli.params import CLUSTER, DIGEST, FORMAT_OPTION, PROFILE, STAGE_TIMEOUT_OPTION
from bilbo.errors import UsageError
from bilbo.model import ClusterSpec

if TYPE_CHECKING:
    from bilbo.cluster.starting import Created
    from bilbo.record import Record


NAME_OPTION = click.option(
    "-n", "--name", type=CLUSTER, help="The cluster's name; default: the profile's."
)
OVERRIDE_OPTION = click.option(
    "-p",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override a profile value with a JSON value; may be repeated.",
)
MY_IP_OPTION = click.option(
    "--my-ip", is_flag=True, help="Look up your public address again and admit it."
)


@click.command(short_help="Show create cluster plan.")
@click.argument("profile", type=PROFILE)
@NAME_OPTION
@OVERRIDE_OPTION
@MY_IP_OPTION
@FORMAT_OPTION
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Save the plan for review.")
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    help="A JSON file of USD per hour by instance type.",
)
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 if there are changes, else 0.")
@pass_context
def plan(
    context: Context,
    profile: str,
    name: str | None,
    overrides: tuple[str, ...],
    my_ip: bool,
    form: str,
    as_json: bool,
    output: Path | None,
    prices: Path | None,
    detailed_exitcode: bool,
) -> None:
    """Show what `create` would do for PROFILE, with `terraform plan`. Creates nothing.

    \b
    Examples:
      bilbo plan test.json
      bilbo --local plan examples/demo.json -n demo
      bilbo plan test.json -p dask.worker.count=8 -p instance.ec2type=m5.2xlarge
      bilbo plan test.json -o test.plan --format markdown
    """
    from bilbo.cli import reviews
    from bilbo.cluster.plan import plan as plan_cluster
    from bilbo.cluster.sizing import estimates

    form, costs = "json" if as_json else form, reviews.read_prices(prices)
    spec, target = load(context, profile, name, overrides)
    if output or spec.state:
        reviews.check_plan(spec, saved=output is not None)
    with work(context, target) as w:
        show = bool(output or costs) or form != "text"
        planned = plan_cluster(spec, w, my_ip=my_ip, show=show, costs=costs)
        sizes = estimates(planned.spec, w)
        digest = reviews.save_plan(planned, w, output, overrides) if output else ""
    command = reviews.apply_command(context, profile, name, output, digest) if output else ""
    shown = reviews.show_plan(planned, sizes, form, costs, digest, command, overrides)
    (echo_lines if form == "text" else echo)(shown)
    if form == "text":
        reviews.tell_bill(planned)
    if detailed_exitcode and planned.has_changes:
        raise click.exceptions.Exit(2)


@click.command(short_help="Create cluster.")
@click.argument("profile", type=PROFILE)
@NAME_OPTION
@OVERRIDE_OPTION
@MY_IP_OPTION
@STAGE_TIMEOUT_OPTION
@click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path), help="Apply exactly this plan."
)
@click.option(
    "--digest",
    type=DIGEST,
    help="With --plan: the reviewed digest; required for shared state.",
)
@click.option("--notebook", is_flag=True, help="Open JupyterLab when it is ready.")
@click.option("--dashboard", is_flag=True, help="Open the dashboard when it is ready.")
@click.option("--force", is_flag=True, help="Remove workers even if their results are lost.")
@click.option("-y", "--yes", is_flag=True, help="Destroy or replace machines without asking.")
@pass_context
def create(
    context: Context,
    profile: str,
    name: str | None,
    overrides: tuple[str, ...],
    my_ip: bool,
    timeout: float | None,
    plan_file: Path | None,
    digest: str | None,
    notebook: bool,
    dashboard: bool,
    force: bool,
    yes: bool,
) -> None:
    """Create a cluster from PROFILE, or complete or change the existing one.

    \b
    Examples:
      bilbo create test.json
      bilbo create test.json -n test-cluster
      bilbo create test.json -p dask.worker.count=8 --dashboard
      bilbo --local create examples/demo.json --notebook
      bilbo create test.json --plan test.plan --digest DIGEST
    """
    from bilbo.cli import reviews
    from bilbo.cluster.create import create as create_cluster

    if digest and not plan_file:
        raise UsageError("--digest requires --plan")
    reviewed = reviews.read_plan(plan_file, digest, overrides) if plan_file else None
    overrides = reviewed.bundle.manifest.overrides if reviewed else overrides
    spec, target = load(context, profile, name, overrides)
    if reviewed and spec.state and not digest:
        raise UsageError(
            "--plan with a shared state requires the reviewed digest: --digest",
            hint="Take it from the review, not from the file: whoever can write the file can "
            "change the digest in it.",
        )
    _check_pages(spec, notebook=notebook, dashboard=dashboard)
    with work(context, target, yes=yes, timeout=timeout) as w:
        created = create_cluster(spec, w, yes=yes, force=force, my_ip=my_ip, reviewed=reviewed)
    _tell(created)
    if created.record and notebook:
        open_notebook(context.store, created.record)
    if created.record and dashboard:
        open_dashboard(context.store, created.record)


def _tell(created: Created) -> None:
    """Prints the cluster's summary and what to do next."""
    from bilbo.present import report

    if not created.changed:
        echo(report.NOTHING_TO_DO)
    elif created.record:
        echo("\n" + report.summary(created.record))
        echo("\n" + report.next_steps(created.record), err=True)


def _check_pages(spec: ClusterSpec, *, notebook: bool, dashboard: bool) -> None:
    """Raises UsageError, before anything is created, for a page that will not exist."""
    if notebook and not spec.notebook:
        raise UsageError("--notebook: the profile has no notebook")
    if dashboard and not spec.engine:
        raise UsageError("--dashboard: the profile has no engine, such as dask")


@click.command(short_help="Destroy cluster.")
@click.argument("name", type=CLUSTER)
@click.option(
    "--also",
    multiple=True,
    metavar="ID",
    help="Also destroy this resource of another cluster; may be repeated.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_context
def destroy(context: Context, name: str, also: tuple[str, ...], yes: bool) -> None:
    """Destroy the cluster NAME: its machines, and the files on them.

    Resources of another owner with the same tag bilbo:cluster are left alone.

    \b
    Examples:
      bilbo destroy test
      bilbo destroy test -y
      bilbo destroy test --also i-0a1b2c3d4e5f60718
    """
    from bilbo.cluster.destroy import destroy as destroy_cluster
    from bilbo.cluster.destroy import others
    from bilbo.cluster.noticing import noticed

    record = context.store.known(name) or context.store.load(name)
    with work(context, target_of(context, record), yes=yes) as w:
        question = _what_goes(record if yes else noticed(record, w))
        for other in [] if yes else others(record, w, also):
            w.progress.say(
                f"Not this cluster's, left alone: {other}. To destroy it too: --also "
                f"{shlex.quote(other.id)}"
            )
        if not w.progress.confirm(question):
            echo("Nothing destroyed.", err=True)
            raise click.exceptions.Exit(1)
        left = destroy_cluster(name, w, also)
    echo(f"Destroyed cluster '{name}'; nothing of it is left.", err=True)
    for other in left:
        echo(f"Not this cluster's, left alone: {other}", err=True)


def _what_goes(record: Record) -> str:
    """Returns the question before a cluster is destroyed."""
    if record.status == "ended":
        return f"Destroy what is left of cluster {record.name!r}? None of its machines is."
    count = sum(1 for _ in record.inventory.nodes())
    files = " This deletes the files on its notebook." if record.inventory.notebook else ""
    return f"Destroy cluster {record.name!r}, {count} instance(s)?{files}"


MOST = 10_000


def _counts(
    _ctx: click.Context, _param: click.Parameter, words: tuple[str, ...]
) -> dict[str | None, int]:
    """Parses `N`, or `GROUP=N` once for each group. Raises BadParameter."""
    counts: dict[str | None, int] = {}
    for word in words:
        group, equals, number = word.rpartition("=")
        if not (number.isascii() and number.isdigit()) or int(number) > MOST:
            raise click.BadParameter(f"{number[:40]!r} is not a whole number from 0 to {MOST}.")
        if equals and not group:
            raise click.BadParameter(f"{word[:40]!r} does not name a group.")
        if (group or None) in counts:
            raise click.BadParameter(f"{group or 'the count'} is given twice.")
        counts[group or None] = int(number)
    if None in counts and len(counts) > 1:
        raise click.BadParameter("give either one N, or GROUP=N for each group.")
    return counts


@click.command(short_help="Change the number of workers.")
@click.argument("name", type=CLUSTER)
@click.argument("counts", nargs=-1, required=True, metavar="N|GROUP=N...", callback=_counts)
@STAGE_TIMEOUT_OPTION
@click.option("--force", is_flag=True, help="Remove workers even if their results are lost.")
@click.option("-y", "--yes", is_flag=True, help="Replace machines without asking.")
@pass_context
def scale(
    context: Context,
    name: str,
    counts: dict[str | None, int],
    timeout: float | None,
    force: bool,
    yes: bool,
) -> None:
    """Change the number of workers of the cluster NAME while it computes.

    \b
    N is the new number of workers; with several worker groups, give GROUP=N for
    each one that changes. New workers join. Workers that leave are retired through
    the scheduler first: their results move to other workers, which also take over
    their tasks.

    \b
    Examples:
      bilbo scale test 8
      bilbo scale test gpu=2 cpu=16
      bilbo scale test 0 --force
    """
    from bilbo.cluster.scale import scale as scale_cluster
    from bilbo.present import report

    record = context.store.load(name)
    with work(context, target_of(context, record), yes=yes, timeout=timeout) as w:
        scaled = scale_cluster(name, counts, w, yes=yes, force=force)
    if not scaled.changed:
        echo(report.NOTHING_TO_DO)
    elif scaled.record:
        echo("\n" + report.summary(scaled.record))


@click.command(short_help="Restart cluster.")
@click.argument("name", type=CLUSTER)
@click.option("--notebook", is_flag=True, help="Restart JupyterLab too; this ends its kernels.")
@STAGE_TIMEOUT_OPTION
@pass_context
def restart(context: Context, name: str, notebook: bool, timeout: float | None) -> None:
    """Restart the head (Dask: scheduler) and workers of the cluster NAME, not its notebook.

    \b
    Examples:
      bilbo restart test
      bilbo restart test --notebook
      bilbo restart test --timeout 300
    """
    from bilbo.cluster.restart import restart as restart_cluster
    from bilbo.present import report

    record = context.store.load(name)
    with work(context, target_of(context, record), timeout=timeout) as w:
        restarted = restart_cluster(name, w, notebook=notebook)
    if restarted:
        echo("\n" + report.summary(restarted))
    else:
        echo(f"Cluster '{name}' has no engine; nothing to restart.")
