"""What clusters have cost so far, for lists of them: from their ledgers alone."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone

from bilbo.cli.context import Context
from bilbo.ledger import read
from bilbo.present.cost_text import spent_word
from bilbo.record import LEDGER, Record


def spent(context: Context, records: Iterable[Record]) -> dict[str, str]:
    """Returns what each cluster has cost, as a word, by name; without those that have no ledger."""
    found, now = {}, datetime.now(timezone.utc)
    for record in records:
        path = context.store.folder(record.name) / LEDGER
        with suppress(OSError):  # there is none, or the list must do without it
            text = path.read_text(encoding="utf-8", errors="replace")
            found[record.name] = spent_word(read(text), now)
    return {name: word for name, word in found.items() if word}
