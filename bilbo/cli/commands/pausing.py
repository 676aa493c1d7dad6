"""`pause` and `resume`: a cluster that costs only its disks, and comes back."""

from __future__ import annotations

import click

from bilbo.cli.context import Context, pass_context, target_of, work
from bilbo.cli.output import echo, print_json
from bilbo.cli.params import CLUSTER, JSON_OPTION, STAGE_TIMEOUT_OPTION


@click.command(short_help="Stop a cluster's machines, and keep its disks.")
@click.argument("name", type=CLUSTER)
@click.option("--force", is_flag=True, help="End workers even if their results are lost.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@JSON_OPTION
@pass_context
def pause(context: Context, name: str, force: bool, yes: bool, as_json: bool) -> None:
    """Pause the cluster NAME: end its workers, and stop its notebook and head.

    \b
    Files on the notebook and the head stay, and their volumes stay billed. What is
    in memory is lost: kernels, and what the engine holds. Workers end, spot ones
    too, with their disks. Workers that hold results which no other worker can take
    are not ended without --force.

    \b
    `bilbo resume`, or `bilbo create` with its profile, brings the cluster back with
    as many workers, new public addresses and the same token.

    \b
    Examples:
      bilbo pause test
      bilbo pause test -y
      bilbo pause test --force
    """
    from bilbo.cluster.pause import billed
    from bilbo.cluster.pause import pause as pause_cluster
    from bilbo.present import report
    from bilbo.prices import MONTH_HOURS, load

    record = context.store.load(name)
    with work(context, target_of(context, record), yes=yes) as w:
        paused = pause_cluster(name, w, yes=yes, force=force)
        assert paused.record
        sizes = billed(paused.record, w)
    usd = load(context.home, record.region).disk_hour(sum(sizes)) if sizes else None
    if as_json:
        (document,) = report.clusters_document([paused.record])
        print_json(
            {**document, "changed": paused.changed, "volumes_gib": sizes, "usd_per_hour": usd}
        )
    elif not paused.changed:
        echo(report.NOTHING_TO_DO)
    else:
        echo("\n" + report.summary(paused.record))
        echo(
            "\n"
            + report.what_stays(paused.record, sizes, None if usd is None else usd * MONTH_HOURS),
            err=True,
        )


@click.command(short_help="Start a paused cluster.")
@click.argument("name", type=CLUSTER)
@STAGE_TIMEOUT_OPTION
@JSON_OPTION
@pass_context
def resume(context: Context, name: str, timeout: float | None, as_json: bool) -> None:
    """Resume the paused cluster NAME: start its machines, and as many workers as it had.

    \b
    Machines get new public addresses; files, private addresses and JupyterLab's
    token are as before. A cluster that paused itself is resumed in the same way.
    If AWS has no room for the notebook or the head, the cluster stays paused.

    \b
    Examples:
      bilbo resume test
      bilbo resume test --timeout 300
    """
    from bilbo.cluster.resume import resume as resume_cluster
    from bilbo.present import report

    record = context.store.load(name)
    with work(context, target_of(context, record), timeout=timeout) as w:
        resumed = resume_cluster(name, w)
    assert resumed.record
    if as_json:
        (document,) = report.clusters_document([resumed.record])
        print_json({**document, "changed": resumed.changed})
    elif not resumed.changed:
        echo(report.NOTHING_TO_DO)
    else:
        echo("\n" + report.summary(resumed.record))
        echo("\n" + report.next_steps(resumed.record), err=True)
