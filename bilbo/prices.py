"""What AWS charges in a region, in USD: a dated file for each region in bilbo's home.

Nothing is invented. What is not there is unknown, and so is a 0: AWS's list has one for what is not
sold that way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from bilbo.errors import RecordError
from bilbo.files import private_write
from bilbo.shape import having, mapped, maybe, number, shallow, string

VERSION = 1
# A month as AWS's own calculator counts it.
MONTH_HOURS = 730
# Prices that are older are asked for again.
KEEPS = timedelta(days=30)
_REGION = re.compile("[a-z0-9-]{1,40}")
_FORM = having(
    {"version": number, "region": string, "date": string},
    machines=mapped(number),
    spot=mapped(number),
    disk=maybe(number),
    address=maybe(number),
)


@dataclass(frozen=True)
class Prices:
    """The prices of a region at a `date` (ISO 8601, UTC; empty if nobody has asked).

    `machines` and `spot` are USD per hour by instance type, running Linux on shared hardware; a
    spot price is the highest of the region's zones. `disk` is USD for a GiB of gp3 and a month of
    730 hours, `address` USD per hour for a public IPv4 address. None, or no key, is unknown.
    """

    region: str = ""
    date: str = ""
    machines: Mapping[str, float] = field(default_factory=dict)
    spot: Mapping[str, float] = field(default_factory=dict)
    disk: float | None = None
    address: float | None = None

    def disk_hour(self, gib: float | None) -> float | None:
        """USD per hour for so many GiB; None if either is unknown."""
        return None if self.disk is None or not gib else self.disk * gib / MONTH_HOURS

    def old(self, now: datetime | None = None) -> bool:
        """Whether they should be asked for again."""
        try:
            asked = datetime.fromisoformat(self.date)
            return (now or datetime.now(timezone.utc)) - asked > KEEPS
        except (ValueError, TypeError):  # there is none, or it has no zone
            return True


def usable(price: Any) -> float | None:
    """A price as a number; None for what cannot be one, such as 0."""
    try:
        found = float(price)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 < found < 1e6 else None


def parsed(document: Any, where: str = "") -> Prices:
    """The prices in a JSON document. Raises RecordError for one that bilbo did not write."""
    if why := shallow(document) or _FORM(document):
        raise RecordError(f"the prices are damaged: {why}", where=where)
    if document["version"] != VERSION:
        raise RecordError("another bilbo wrote the prices", where=where)
    return Prices(
        document["region"],
        document["date"],
        _known(document.get("machines", {})),
        _known(document.get("spot", {})),
        usable(document.get("disk")),
        usable(document.get("address")),
    )


def _known(found: Mapping[str, Any]) -> dict[str, float]:
    return {name: price for name, value in found.items() if (price := usable(value)) is not None}


def path_of(home: Path, region: str) -> Path | None:
    """The file of a region's prices; None for what is not the name of a region."""
    return home / "prices" / f"{region}.json" if _REGION.fullmatch(region) else None


def load(home: Path, region: str) -> Prices:
    """The stored prices of a region. Without a file that can be read, all are unknown."""
    path = path_of(home, region)
    try:
        found = parsed(json.loads(path.read_text(encoding="utf-8"))) if path else None
    except (OSError, ValueError, RecursionError, RecordError):
        return Prices(region)
    return found if found and found.region == region else Prices(region)


def save(home: Path, found: Prices) -> None:
    """Writes the prices of a region in one step, mode 0600. Raises OSError."""
    if path := path_of(home, found.region):
        private_write(path, json.dumps({"version": VERSION, **asdict(found)}, indent=1) + "\n")
