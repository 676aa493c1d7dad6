"""The command that changes how many workers a cluster has: `scale`."""

from __future__ import annotations

import click

from bilbo.cli.context import Context, pass_context, target_of, work
from bilbo.cli.names import CLUSTER, STAGE_TIMEOUT_OPTION
from bilbo.cli.output import echo

MOST = 10_000


def _counts(
    _ctx: click.Context, _param: click.Parameter, words: tuple[str, ...]
) -> dict[str | None, int]:
    """`N`, or `GROUP=N` once for each group. Raises a usage error."""
    counts: dict[str | None, int] = {}
    for word in words:
        group, equals, number = word.rpartition("=")
        if not (number.isascii() and number.isdigit()) or int(number) > MOST:
            raise click.BadParameter(f"{number[:40]!r} is no whole number from 0 to {MOST}.")
        if equals and not group:
            raise click.BadParameter(f"{word[:40]!r} names no group.")
        if (group or None) in counts:
            raise click.BadParameter(f"{group or 'the count'} is given twice.")
        counts[group or None] = int(number)
    if None in counts and len(counts) > 1:
        raise click.BadParameter("write N alone, or GROUP=N for each group.")
    return counts


@click.command(short_help="Change the number of workers.")
@click.argument("name", type=CLUSTER)
@click.argument("counts", nargs=-1, required=True, metavar="N|GROUP=N...", callback=_counts)
@STAGE_TIMEOUT_OPTION
@click.option("--force", is_flag=True, help="Let workers go though what they hold is lost.")
@click.option("-y", "--yes", is_flag=True, help="Agree if machines would be replaced.")
@pass_context
def scale(
    context: Context,
    name: str,
    counts: dict[str | None, int],
    timeout: float | None,
    force: bool,
    yes: bool,
) -> None:
    """Give the cluster NAME another number of workers, while it computes.

    \b
    N is the new number of workers; with several worker groups, GROUP=N for each
    that changes. New workers join. Those that leave are first retired through the
    scheduler: what they hold moves to others, what they run is run by others.

    \b
    Examples:
      bilbo scale test 8
      bilbo scale test gpu=2 cpu=16
      bilbo scale test 0 --force
    """
    from bilbo import report
    from bilbo.cluster.scale import scale as scale_cluster

    record = context.store.load(name)
    with work(context, target_of(context, record), yes=yes, timeout=timeout) as w:
        scaled = scale_cluster(name, counts, w, yes=yes, force=force)
    if not scaled.changed:
        echo(report.NOTHING_TO_DO)
    elif scaled.record:
        echo("\n" + report.summary(scaled.record))
