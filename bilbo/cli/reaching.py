"""Shared by the commands that connect to a cluster's hosts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bilbo.cli.context import Context, target_of, work
from bilbo.record import Record

if TYPE_CHECKING:
    from bilbo.cluster.work import Work
    from bilbo.model import Node


def awake(context: Context, name: str) -> Record:
    """Returns the record of a cluster whose machines are needed. Raises BilboError if it is paused
    or has ended, RecordError."""
    from bilbo.cluster import resting

    return resting.awake(context.store.load(name))


@contextmanager
def reaching(
    context: Context, record: Record, timeout: float | None, *, live: bool = False
) -> Iterator[Work]:
    """Yields what connecting to the cluster's hosts needs."""
    from bilbo.cluster.host_access import PATIENCE_SECONDS

    timeout = timeout or PATIENCE_SECONDS
    with work(context, target_of(context, record), timeout=timeout, live=live) as w:
        yield w


def numbers_of(record: Record, nodes: tuple[Node, ...]) -> dict[str, int]:
    """Returns the numbers of these hosts as `desc` prints them, by instance id."""
    from bilbo.present import report

    chosen = {node.instance_id for node in nodes}
    return {key: number for key, number in report.numbers(record.inventory) if key in chosen}
