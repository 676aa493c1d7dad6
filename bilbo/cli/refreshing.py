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
from bilbo.errors import BilboError, PartlyDone
from bilbo.model import Target
from bilbo.present import report
from bilbo.present.condition import amiss, condition, condition_document
from bilbo.reality import Reality
from bilbo.record import Record, to_json

# Each has up to 256 connections.
_AT_ONCE = 8


def show_one(
    context: Context, record: Record, describe: Callable[[], None], *, as_json: bool
) -> None:
    """Prints a record and what there is of its cluster. Raises Exit(3) if the two differ."""
    with work(context, target_of(context, record)) as w:
        seen = look(record, w)
    if as_json:
        print_json({**to_json(record), **condition_document(seen)})
    else:
        describe()
        echo("\n" + condition(record, seen))
    if not seen.well:
        raise click.exceptions.Exit(PartlyDone.exit_code)


def show_all(context: Context, records: list[Record], damaged: list[str], *, as_json: bool) -> None:
    """Prints the clusters and what there is of each. Raises Exit(3) if anything is amiss."""
    seen = _look_at_all(context, records)
    if as_json:
        print_json(
            [
                *map(_document, records, seen),
                *report.clusters_document([], damaged),
            ]
        )
    else:
        if records or damaged:
            echo_table(report.clusters(records, damaged, spent(context, records)))
        for record, found in zip(records, seen, strict=True):
            lines = found.splitlines() if isinstance(found, str) else amiss(record, found)
            echo(f"\n{record.name}: " + "\n".join(lines))
    if damaged or not all(isinstance(each, Reality) and each.well for each in seen):
        raise click.exceptions.Exit(PartlyDone.exit_code)


def _document(record: Record, found: Reality | str) -> dict[str, Any]:
    (listed,) = report.clusters_document([record])
    if isinstance(found, str):
        return {**listed, "well": False, "error": found}
    return {**listed, **condition_document(found)}


def _look_at_all(context: Context, records: list[Record]) -> list[Reality | str]:
    """Returns each cluster as it is, or why nothing is known of it; all at once."""

    def one(record: Record) -> Reality | str:
        try:
            return look(record, replace(w, target=target_of(context, record)))
        except BilboError as error:
            return str(error)

    with work(context, Target(region="")) as w, ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, records))
