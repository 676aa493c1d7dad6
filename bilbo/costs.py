"""What machines cost: by the hour now and then, and so far by the ledger. Pure.

An unknown price is never 0: sums without it are `known` in part, and say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from bilbo.ledger import ITSELF, PARTS, Ledger, MachineLife, Stretch
from bilbo.model import ClusterSpec, Inventory
from bilbo.prices import MONTH_HOURS, Prices


@dataclass(frozen=True)
class Kept:
    """`count` machines of a group: `gib` of disk each, None if unknown. Stopped ones, which do not
    run, are billed for their disks alone. `others` are the types that AWS may choose instead."""

    role: str
    group: str
    ec2type: str
    count: int = 1
    gib: float | None = None
    runs: bool = True
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hourly:
    """USD per hour; `unknown` are what has no known price, such as a type, or `disks`."""

    usd: float = 0.0
    unknown: tuple[str, ...] = ()

    @property
    def month(self) -> float:
        """USD in a month of 730 hours."""
        return self.usd * MONTH_HOURS

    def __add__(self, other: Hourly) -> Hourly:
        unknown = tuple(dict.fromkeys((*self.unknown, *other.unknown)))
        return Hourly(self.usd + other.usd, unknown)


@dataclass(frozen=True)
class Bill:
    """What a cluster costs by the hour, by group, `now` and `then`: after the change at hand."""

    now: Mapping[str, Hourly] = field(default_factory=dict)
    then: Mapping[str, Hourly] = field(default_factory=dict)
    date: str = ""

    @property
    def groups(self) -> list[str]:
        """The groups of both, in the order of the profile."""
        return list(dict.fromkeys((*self.then, *self.now)))

    @property
    def total_now(self) -> Hourly:
        """All groups now."""
        return sum(self.now.values(), Hourly())

    @property
    def total_then(self) -> Hourly:
        """All groups then."""
        return sum(self.then.values(), Hourly())


def hourly(kept: Kept, prices: Prices) -> Hourly:
    """What such machines cost by the hour at most: on demand, of the dearest type that AWS may
    choose. A spot instance costs no more than that."""
    parts: list[tuple[str, float | None]] = [("disks", prices.disk_hour(kept.gib))]
    if kept.runs:
        types = (kept.ec2type, *kept.others)
        known = [price for each in types if (price := prices.machines.get(each)) is not None]
        lacking = [each for each in types if each not in prices.machines]
        parts += [("addresses", prices.address), *((each, None) for each in lacking)]
        parts.append(("", max(known, default=0.0)))
    if not kept.count:
        return Hourly()
    unknown = tuple(name for name, price in parts if price is None)
    return Hourly(kept.count * sum(price or 0.0 for _, price in parts), unknown)


def bill(now: Iterable[Kept], then: Iterable[Kept], prices: Prices) -> Bill:
    """The bill of what there is now and of what there is then."""

    def by_group(kept: Iterable[Kept]) -> dict[str, Hourly]:
        found: dict[str, Hourly] = {}
        for each in kept:
            found[each.group] = found.get(each.group, Hourly()) + hourly(each, prices)
        return found

    return Bill(by_group(now), by_group(then), prices.date)


def of_spec(spec: ClusterSpec, sizes: Mapping[str, float]) -> list[Kept]:
    """The machines that a specification asks for; `sizes` are GiB of disk by group, where the
    profile does not say."""
    return [
        Kept(
            each.role,
            each.name,
            each.machine.ec2type,
            each.count,
            each.machine.vol_size or sizes.get(each.name),
        )
        for each in spec.groups()
    ]


def of_inventory(found: Inventory, sizes: Mapping[str, float], *, runs: bool = True) -> list[Kept]:
    """The machines of a record; `sizes` are GiB of disk by group, and by instance id."""
    return [
        Kept(
            each.role,
            each.group,
            each.ec2type,
            1,
            sizes.get(each.instance_id) or sizes.get(each.group),
            runs,
        )
        for each in found.nodes()
    ]


def growing(now: Iterable[Kept], then: Iterable[Kept]) -> list[Kept]:
    """What of `then` is more, or other, than what runs now."""
    there = Counter[tuple[str, str]]()
    for each in now:
        there[each.group, each.ec2type] += each.count if each.runs else 0
    return [
        each
        for each in then
        if each.count > sum(there[each.group, name] for name in {each.ec2type, *each.others})
    ]


# -- so far --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """USD so far, between `low` and `high`, and seconds that machines ran, likewise. `unknown` if a
    price in it is unknown: then it is more."""

    low: float = 0.0
    high: float = 0.0
    seconds: float = 0.0
    seconds_high: float = 0.0
    unknown: bool = False

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.low + other.low,
            self.high + other.high,
            self.seconds + other.seconds,
            self.seconds_high + other.seconds_high,
            self.unknown or other.unknown,
        )


@dataclass(frozen=True)
class Share:
    """What a machine cost on a day (UTC, `2026-03-01`)."""

    day: str
    life: MachineLife
    spent: Spent


def shares(ledger: Ledger, now: datetime, since: datetime | None = None) -> Iterator[Share]:
    """What each machine cost on each day until `now`, from `since` on.

    What runs is counted until it was last seen at least, and until now at most.
    """
    for life in ledger.machines.values():
        for run in life.runs:
            end, latest = _until(run, ledger, now)
            for day, low, high in _days(run.start, end, latest, since):
                rates = [run.usd.get(part) for part in PARTS if part != "disk"]
                yield Share(day, life, _spent(rates, low, high, low, high))
        first, disk = life.runs[0], _disk(life)
        end = life.gone or max(first.start, min(ledger.seen or first.start, now))
        latest = max(life.gone_latest or now, end)
        for day, low, high in _days(first.start, end, latest, since):
            yield Share(day, life, _spent([disk], low, high, 0.0, 0.0))


def _disk(life: MachineLife) -> float | None:
    """The disks' price per hour, as last known."""
    known = [run.usd.get("disk") for run in life.runs]
    return next((price for price in reversed(known) if price is not None), None)


def _until(run: Stretch, ledger: Ledger, now: datetime) -> tuple[datetime, datetime]:
    if run.end is None or run.latest is None:
        seen = max(run.start, min(ledger.seen or run.start, now))
        return seen, max(now, seen)
    return run.end, run.latest


def _spent(
    rates: list[float | None], low: float, high: float, seconds: float, seconds_high: float
) -> Spent:
    rate = sum(each or 0.0 for each in rates) / 3600
    unknown = any(each is None for each in rates) and high > 0
    return Spent(low * rate, high * rate, seconds, seconds_high, unknown)


def _days(
    start: datetime, end: datetime, latest: datetime, since: datetime | None
) -> Iterator[tuple[str, float, float]]:
    """The days of a stretch of time, with the seconds of each until `end` and until `latest`."""
    start = max(start, since) if since else start
    day = start.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    while day < latest:
        following = day + timedelta(days=1)
        low = (min(end, following) - max(start, day)).total_seconds()
        high = (min(latest, following) - max(start, day)).total_seconds()
        if high > 0:
            yield day.date().isoformat(), max(low, 0.0), high
        day = following


def total(found: Iterable[Share]) -> Spent:
    """The sum of shares."""
    return sum((each.spent for each in found), Spent())


def ended_themselves(ledger: Ledger) -> list[tuple[MachineLife, Stretch]]:
    """The runs that no command of bilbo's ended, or whose end is not known exactly."""
    return [
        (life, run)
        for life in ledger.machines.values()
        for run in life.runs
        if run.end is not None and (run.why == ITSELF or not run.exact)
    ]
