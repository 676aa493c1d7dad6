"""When a cluster ends by itself: the profile's `lifetime`, and how people write durations. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAUSE = "pause"
DESTROY = "destroy"
# As people write them: "90m", "1h30m", "2d". The schema has the same pattern.
DURATION = re.compile(
    r"(?=.)(?:([0-9]{1,4})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,7})s)?"
)
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


@dataclass(frozen=True)
class Lifetime:
    """What ends a cluster, in seconds. None for `ttl` and `idle`: that does not end it.

    `ttl` counts from the first time that the cluster was ready. `then` is PAUSE or DESTROY. A
    machine that nobody `unreached` through SSH since its first boot powers off; workers and
    notebook `follow` a head that they cannot reach for so long.
    """

    ttl: int | None = None
    idle: int | None = None
    then: str = PAUSE
    unreached: int = 3600
    follow: int = 600


def seconds(text: str) -> int:
    """A duration such as "1h30m" in seconds. Raises ValueError for anything else, and for none."""
    found = DURATION.fullmatch(text)
    total = 0
    if found:
        total = sum(
            int(each or 0) * unit for each, (unit, _) in zip(found.groups(), _UNITS, strict=True)
        )
    if not total:
        raise ValueError(f"{text!r} is not a duration such as 90m, 1h30m or 2d")
    return total


def words(total: float) -> str:
    """A duration in the two largest units that it has: `1h30m`, `2d`, `45s`."""
    left, shown = max(0, round(total)), []
    for unit, name in _UNITS:
        count, left = divmod(left, unit)
        if count:
            shown.append(f"{count}{name}")
    return "".join(shown[:2]) or "0s"


def lifetime(part: Mapping[str, Any] | None) -> Lifetime | None:
    """The `lifetime` of a checked profile; None without one."""
    if part is None:
        return None
    durations = {key: seconds(text) for key, text in part.items() if key != "then"}
    return Lifetime(then=part.get("then", PAUSE), **durations)
