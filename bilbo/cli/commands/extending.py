"""The command `extend`: a cluster ends later, or never."""

from __future__ import annotations

import click

from bilbo.cli.context import Context, pass_context, target_of, work
from bilbo.cli.output import echo, print_json
from bilbo.cli.params import CLUSTER, STAGE_TIMEOUT_OPTION
from bilbo.errors import UsageError
from bilbo.lifetime import seconds


@click.command(short_help="Have a cluster end later.")
@click.argument("name", type=CLUSTER)
@click.argument("duration", required=False)
@click.option("--never", is_flag=True, help="Have nothing end it, its idleness neither.")
@click.option("--json", "as_json", is_flag=True, help="Print when it ends as JSON.")
@STAGE_TIMEOUT_OPTION
@pass_context
def extend(
    context: Context,
    name: str,
    duration: str | None,
    never: bool,
    as_json: bool,
    timeout: float | None,
) -> None:
    """Have the cluster NAME, which has a lifetime, end DURATION later: 90m, 2h, 1d12h.

    \b
    For as long it does not end for being idle either. An end that is near, and that
    people on its machines have been warned of, is off.

    \b
    Examples:
      bilbo extend test 2h
      bilbo extend test --never
      bilbo extend test 1d --json
    """
    from bilbo.cluster.extend import extend as extend_cluster
    from bilbo.present.ending import end_of

    if never == (duration is not None):
        raise UsageError("give either a duration, such as 2h, or --never")
    try:
        longer = None if duration is None else seconds(duration)
    except ValueError as error:
        raise UsageError(str(error)[:200]) from None
    record = context.store.load(name)
    with work(context, target_of(context, record), timeout=timeout) as w:
        record = extend_cluster(name, longer, w)
    if as_json:
        print_json({"name": name, "ends": record.ends})
    else:
        echo(f"Cluster '{name}' ends: {end_of(record)}")
