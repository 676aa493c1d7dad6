"""What the commands share that reach into a cluster's hosts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bilbo.cli.context import Context, target_of, work
from bilbo.record import Record

if TYPE_CHECKING:
    from bilbo.cluster.work import Work
    from bilbo.model import Node


@contextmanager
def reaching(
    context: Context, record: Record, timeout: float | None, *, live: bool = False
) -> Iterator[Work]:
    """What reaching hosts needs, in the AWS that the cluster lives in."""
    from bilbo.cluster.host_access import PATIENCE_SECONDS

    timeout = timeout or PATIENCE_SECONDS
    with work(context, target_of(context, record), timeout=timeout, live=live) as w:
        yield w


def numbers_of(record: Record, nodes: tuple[Node, ...]) -> dict[str, int]:
    """The numbers of some hosts, by instance id, as `desc` prints them."""
    from bilbo.present import report

    chosen = {node.instance_id for node in nodes}
    return {key: number for key, number in report.numbers(record.inventory) if key in chosen}
