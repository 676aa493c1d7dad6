"""The commands that make and remove clusters: `plan`, `create`, `destroy`."""

from __future__ import annotations

import click

from bilbo.cli.context import Context, load, pass_context, target_of, work

NAME_OPTION = click.option("-n", "--name", help="Name of the cluster; else the profile's.")
MY_IP_OPTION = click.option(
    "--my-ip", is_flag=True, help="Ask again for your public address, and admit that."
)


@click.command(short_help="Show create cluster plan.")
@click.argument("profile")
@NAME_OPTION
@MY_IP_OPTION
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there are changes, else 0.")
@pass_context
def plan(
    context: Context, profile: str, name: str | None, my_ip: bool, detailed_exitcode: bool
) -> None:
    """Show what `create` would do for PROFILE, by `terraform plan`. Nothing is created.

    \b
    Examples:
      bilbo plan test.json
      bilbo --local plan examples/demo.json -n demo
    """
    from bilbo import report
    from bilbo.cluster import plan as plan_cluster
    from bilbo.cluster.sizing import estimates

    spec, target = load(context, profile, name)
    with work(context, target) as w:
        planned = plan_cluster(spec, w, my_ip=my_ip)
        sizes = estimates(planned.spec, w)
    blocks = report.plan_blocks(planned.spec, sizes)
    if blocks:
        click.echo(blocks + "\n")
    if planned.outcome is None or not planned.has_changes:
        click.echo(report.NOTHING_TO_DO)
        return
    click.echo(report.changes(planned.outcome))
    if detailed_exitcode:
        raise click.exceptions.Exit(2)


@click.command(short_help="Create cluster.")
@click.argument("profile")
@NAME_OPTION
@MY_IP_OPTION
@click.option("-y", "--yes", is_flag=True, help="Agree to destroy or replace machines.")
@pass_context
def create(context: Context, profile: str, name: str | None, my_ip: bool, yes: bool) -> None:
    """Create a cluster from PROFILE, or complete or change the one of that name.

    \b
    Examples:
      bilbo create test.json
      bilbo create test.json -n test-cluster
      bilbo --local create examples/demo.json
    """
    from bilbo import report
    from bilbo.cluster import create as create_cluster

    spec, target = load(context, profile, name)
    with work(context, target, yes=yes) as w:
        created = create_cluster(spec, w, yes=yes, my_ip=my_ip)
    if not created.changed:
        click.echo(report.NOTHING_TO_DO)
    elif created.record:
        click.echo("\n" + report.summary(created.record))
        click.echo("\n" + report.next_steps(created.record), err=True)


@click.command(short_help="Destroy cluster.")
@click.argument("name")
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

    record = context.store.load(name)
    with work(context, target_of(context, record), yes=yes) as w:
        count = sum(1 for _ in record.inventory.nodes())
        files = " The files on its notebook go too." if record.inventory.notebook else ""
        if not w.progress.confirm(f"Destroy cluster {name!r}, {count} instance(s)?{files}"):
            click.echo("Nothing was destroyed.", err=True)
            raise click.exceptions.Exit(1)
        destroy_cluster(name, w)
    click.echo(f"Destroyed cluster '{name}'; nothing of it is left.", err=True)
