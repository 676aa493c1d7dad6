"""`--refresh`: shows clusters as they are. Exits 3 where something is not as recorded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import click

from bilbo.cli.context import Context, target_of, work
from bilbo.cli.output import echo, echo_table, print_json
from bilbo.cli.spending import spent
from bilbo.cluster.look import look
from bilbo.cluster.noticing import noticed, remember, told
from bilbo.cluster.work import Work
from bilbo.errors import BilboError, PartlyDone
from bilbo.model import Target
from bilbo.present import report
from bilbo.present.condition import amiss, condition, condition_document
from bilbo.reality import Reality
from bilbo.record import PAUSED, Record, to_json

# Each has up to 256 connections.
_AT_ONCE = 8


def show_one(
    context: Context, record: Record, describe: Callable[[Record], None], *, as_json: bool
) -> None:
    """Prints a record and what there is of its cluster. Raises Exit(3) if the two differ."""
    with work(context, target_of(context, record)) as w:
        now, seen = _seen(record, w)
    if as_json:
        print_json({**to_json(now), **condition_document(seen)})
    else:
        describe(now)
        echo("\n" + condition(now, seen))
    if not seen.well or now.status != record.status:
        raise click.exceptions.Exit(PartlyDone.exit_code)


def _seen(record: Record, w: Work) -> tuple[Record, Reality]:
    """Returns what there is of a cluster, and its record, which says from now on whether the
    cluster has paused or ended itself."""
    seen = look(record, w)
    runs = any(each.state == "running" for each in seen.machines)
    if seen.trouble or (runs and record.status != PAUSED):
        return record, seen
    now = told(record, w) if runs else noticed(record, w)
    remember(record, now, w)
    return now, (seen if now is record else look(now, w))


def show_all(context: Context, records: list[Record], damaged: list[str], *, as_json: bool) -> None:
    """Prints the clusters and what there is of each. Raises Exit(3) if anything is amiss."""
    found = _look_at_all(context, records)
    now, seen = [each[0] for each in found], [each[1] for each in found]
    news = [each.status for each in now] != [each.status for each in records]
    if as_json:
        print_json(
            [
                *map(_document, now, seen),
                *report.clusters_document([], damaged),
            ]
        )
    else:
        if now or damaged:
            echo_table(report.clusters(now, damaged, spent(context, now)))
        for record, one in zip(now, seen, strict=True):
            lines = one.splitlines() if isinstance(one, str) else amiss(record, one)
            echo(f"\n{record.name}: " + "\n".join([*report.resting(record), *lines]))
    if damaged or news or not all(isinstance(each, Reality) and each.well for each in seen):
        raise click.exceptions.Exit(PartlyDone.exit_code)


def _document(record: Record, found: Reality | str) -> dict[str, Any]:
    (listed,) = report.clusters_document([record])
    if isinstance(found, str):
        return {**listed, "well": False, "error": found}
    return {**listed, **condition_document(found)}


def _look_at_all(context: Context, records: list[Record]) -> list[tuple[Record, Reality | str]]:
    """Returns each cluster as it is, or why nothing is known of it; all at once."""

    def one(record: Record) -> tuple[Record, Reality | str]:
        try:
            return _seen(record, replace(w, target=target_of(context, record)))
        except BilboError as error:
            return record, str(error)

    with work(context, Target(region="")) as w, ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, records))
