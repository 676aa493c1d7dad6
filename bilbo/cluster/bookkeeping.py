"""A cluster's ledger on disk: what AWS shows of its machines is added to it.

It is `ledger.jsonl` in the cluster's folder; when the cluster is forgotten, it moves to
`ledgers/NAME-TIME.jsonl` in bilbo's home, with the time in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from bilbo import aws, prices
from bilbo.cluster.work import Work
from bilbo.errors import BilboError
from bilbo.files import private_append, private_folder
from bilbo.ledger import Ledger, begun, observed, read
from bilbo.record import LEDGER, LEDGERS, Record, Store


def note_machines(before: Record | None, after: Record, work: Work) -> None:
    """Adds to the ledger what AWS shows of the cluster's machines: starts, stops, prices.

    `before` is the record before the command, None for a new cluster. Two or three calls, which
    wait for seconds only. Raises nothing: what cannot be noted now is noted by the next look, with
    the times that AWS tells then.
    """
    try:
        look_at_machines(before, after, work)
    except (BilboError, OSError) as error:
        what = error.what if isinstance(error, BilboError) else error.strerror
        work.progress.say(f"The ledger of cluster {after.name!r} was not updated: {what}.")


def look_at_machines(before: Record | None, after: Record, work: Work) -> Ledger:
    """As `note_machines`, and returns the ledger as it is then. Raises AwsError, OSError."""
    path = work.store.folder(after.name) / LEDGER
    held = load(path)
    target = replace(work.target, region=after.region)
    alive = [each.id for each in held.machines.values() if each.gone is None]
    found = aws.sightings(target, after.name, after.owner, alive)
    known = prices.load(work.store.home, after.region)
    if types := sorted({each.ec2type for each in found if each.spot and each.runs}):
        known = replace(known, spot=aws.spot_prices(target, types))
    now = datetime.now(timezone.utc)
    lines = observed(held, found, known, now)
    if lines and held.begin is None:
        # A cluster that has had no machine yet is new, also after an attempt that failed.
        whole = before is None or not any(True for _ in before.inventory.nodes())
        lines.insert(0, begun(now, whole=whole))
    if lines:
        private_folder(work.store.home / LEDGERS)  # made now: at the end the disk may be full
        private_append(path, "".join(f"{json.dumps(line)}\n" for line in lines))
    return load(path)


def load(path: Path) -> Ledger:
    """The ledger in a file; an empty one if there is none. Raises OSError."""
    try:
        return read(path.read_bytes().decode("utf-8", "replace"))
    except FileNotFoundError:
        return Ledger()


def ledger_of(store: Store, name: str) -> Ledger:
    """The ledger of a cluster that exists. Raises OSError."""
    return load(store.folder(name) / LEDGER)


def earlier(store: Store, name: str | None = None) -> Iterator[tuple[str, Path]]:
    """Yields the names and the ledgers of clusters that were destroyed, the oldest first; of one
    name if given."""
    paths = (store.home / LEDGERS).glob("*.jsonl")
    for path in sorted(paths, key=lambda each: each.stem.rpartition("-")[2]):
        found = path.stem.rpartition("-")[0]
        if found and name in (None, found):
            yield found, path
