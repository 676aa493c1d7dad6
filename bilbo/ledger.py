"""A cluster's ledger: every start and stop of a machine with its price, a JSON line each. Pure.

Lines are only ever added. Each holds an `event` and `at`, its time in UTC:

- `begin`: the ledger begins; `whole` if nothing of the cluster ran before.
- `start`: a machine runs from then on. `usd` are its prices per hour at that moment, null where
  they are unknown. A second line of the same start fills in what the first did not know.
- `stop`: it stopped, no earlier than `at` and no later than `by`; the two are the same where the
  end is known exactly.
- `gone`: so did its disks, likewise.
- `seen`: what the ledger has as running ran, and the disks that it has were there.

Two commands may write at once, so that a line may be there twice: that changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from bilbo.held import Sighting
from bilbo.prices import Prices, usable
from bilbo.shape import Check, either, having, maybe, number, shallow

Line = dict[str, Any]

PARTS = ("machine", "address", "disk")
ITSELF = "ended itself"
_UNSEEN = "AWS shows it no more"
_STOPPED = "stopped"
_WHY = {
    "Client.InstanceInitiatedShutdown": ITSELF,
    "Server.SpotInstanceTermination": "reclaimed by AWS",
    "Server.SpotInstanceShutdown": "reclaimed by AWS",
}
_LONGEST = 100


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def _word(value: Any) -> str:
    good = isinstance(value, str) and len(value) <= _LONGEST
    return "" if good else f"must be a text of {_LONGEST} characters at most"


def _time(value: Any) -> str:
    return "" if when(value) else "must be a time with its zone"


_USD = having({name: maybe(number) for name in PARTS})
_FORMS: Mapping[str, Check] = {
    "begin": having({"at": _time, "whole": _flag}),
    "seen": having({"at": _time}),
    "start": having(
        {"at": _time, "id": _word, "role": _word, "group": _word, "type": _word, "usd": _USD},
        spot=_flag,
        gib=either(number, maybe(number)),
    ),
    "stop": having({"at": _time, "by": _time, "id": _word, "why": _word}),
    "gone": having({"at": _time, "by": _time, "id": _word}),
}


def when(value: Any) -> datetime | None:
    """A time of the ledger; None for what is none."""
    try:
        found = datetime.fromisoformat(value)
        return None if found.tzinfo is None else found.astimezone(timezone.utc)
    except (TypeError, ValueError, OverflowError):
        return None


def written(at: datetime) -> str:
    """A time as the ledger has it."""
    return at.astimezone(timezone.utc).isoformat(timespec="seconds")


# -- reading -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stretch:
    """A machine ran from `start` to `end`, or to `latest` at the latest; both None: it runs.

    `usd` are the prices per hour by part; None is unknown.
    """

    start: datetime
    end: datetime | None = None
    latest: datetime | None = None
    why: str = ""
    usd: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether the end is known to the second, if there is one."""
        return self.end == self.latest


@dataclass(frozen=True)
class MachineLife:
    """All runs of a machine, the last one last. Its disks are there from the first start to `gone`,
    or to `gone_latest`; None: they are still there."""

    id: str
    role: str
    group: str
    ec2type: str
    spot: bool = False
    gib: float | None = None
    runs: tuple[Stretch, ...] = ()
    gone: datetime | None = None
    gone_latest: datetime | None = None

    @property
    def running(self) -> bool:
        """Whether it runs, as far as is known."""
        return bool(self.runs) and self.runs[-1].end is None


@dataclass(frozen=True)
class Ledger:
    """What a ledger tells: when it begins, and whether that is the cluster's beginning; when what
    runs was last seen; the machines by id; and how many lines could not be read."""

    begin: datetime | None = None
    whole: bool = False
    seen: datetime | None = None
    machines: Mapping[str, MachineLife] = field(default_factory=dict)
    damaged: int = 0


def read(text: str) -> Ledger:
    """What the lines tell. Those that cannot be read are counted and passed over."""
    begin: Line | None = None
    seen: datetime | None = None
    machines: dict[str, MachineLife] = {}
    damaged = 0
    for each in filter(str.strip, text.split("\n")):
        if (line := _parsed(each)) is None:
            damaged += 1
            continue
        at = _when(line["at"])
        if line["event"] == "begin":
            begin = begin or line
        elif line["event"] == "seen":
            seen = max(seen or at, at)
        elif line["event"] == "start":
            machines[line["id"]] = _started(machines.get(line["id"]), line)
        elif line["id"] in machines:
            machines[line["id"]] = _ended(machines[line["id"]], line)
        else:
            damaged += 1
    began = _when(begin["at"]) if begin else None
    return Ledger(began, bool(begin and begin["whole"]), seen, machines, damaged)


def _parsed(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if shallow(line) or not isinstance(line, dict) or not isinstance(line.get("event"), str):
        return None
    form = _FORMS.get(line["event"])
    return line if form and not form(line) else None


def _when(value: str) -> datetime:
    found = when(value)
    assert found  # the line's form was checked
    return found


def _started(before: MachineLife | None, line: Line) -> MachineLife:
    at = _when(line["at"])
    usd = {name: _price(line["usd"][name]) for name in PARTS}
    life = before or MachineLife(line["id"], line["role"], line["group"], line["type"])
    gib = usable(line.get("gib")) or life.gib
    life = replace(life, spot=line.get("spot", False), gib=gib, ec2type=line["type"])
    for number_, run in enumerate(life.runs):
        if run.start == at:  # told again, with what is known by now
            known = {name: _first(run.usd.get(name), usd[name]) for name in PARTS}
            runs = (*life.runs[:number_], replace(run, usd=known), *life.runs[number_ + 1 :])
            return replace(life, runs=runs)
    if life.runs and at < life.runs[-1].start:
        return life  # out of order: a clock that was turned back
    runs = life.runs
    if runs and runs[-1].end is None:
        runs = (*runs[:-1], replace(runs[-1], end=at, latest=at, why=_STOPPED))
    return replace(life, runs=(*runs, Stretch(at, usd=usd)))


def _price(value: Any) -> float | None:
    """A price per hour; an address that is not there costs 0, and that is known."""
    return 0.0 if value == 0 else usable(value)


def _first(one: float | None, other: float | None) -> float | None:
    return other if one is None else one


def _ended(life: MachineLife, line: Line) -> MachineLife:
    last, by = life.runs[-1], _when(line["by"])
    at = max(_when(line["at"]), last.start)
    if by < at:
        return life  # of an earlier run, or no interval
    if line["event"] == "gone":
        gone, latest = _within(life.gone, life.gone_latest, at, by)
        life = replace(life, gone=gone, gone_latest=latest)
    if line["event"] == "stop" or last.end is None:
        end, latest = _within(last.end, last.latest, at, by)
        last = replace(last, end=end, latest=latest, why=last.why or line.get("why", ""))
    return replace(life, runs=(*life.runs[:-1], last))


def _within(
    one: datetime | None, other: datetime | None, at: datetime, by: datetime
) -> tuple[datetime, datetime]:
    """What two intervals have in common; the first if they have nothing."""
    if one is None or other is None:
        return at, by
    low, high = max(one, at), min(other, by)
    return (low, high) if low <= high else (one, other)


# -- writing -------------------------------------------------------------------------------


def begun(at: datetime, *, whole: bool) -> Line:
    """The first line of a ledger."""
    return {"event": "begin", "at": written(at), "whole": whole}


def stop(name: str, at: datetime, by: datetime, why: str = "") -> Line:
    """A machine's stop, no earlier than `at` and no later than `by`."""
    return {**_end("stop", name, at, by), "why": why[:_LONGEST]}


def _end(event: str, name: str, at: datetime, by: datetime) -> Line:
    return {"event": event, "id": name, "at": written(min(at, by)), "by": written(by)}


def observed(
    held: Ledger, sightings: Collection[Sighting], prices: Prices, now: datetime
) -> list[Line]:
    """The lines that a look at AWS adds to what the ledger holds. `prices` are those of now."""
    lines: list[Line] = []
    for each in sightings:
        lines += _of(held, each, prices, now)
    shown = {each.id for each in sightings}
    for life in held.machines.values():
        if life.id not in shown and life.gone is None:
            last = life.runs[-1]
            since = _latest(held.seen, last.end or last.start)
            if last.end is None:
                lines.append(stop(life.id, since, now, _UNSEEN))
            lines.append(_end("gone", life.id, since, now))
    if any(not each.gone for each in sightings) or lines:
        lines.append({"event": "seen", "at": written(now)})
    return lines


def _latest(seen: datetime | None, other: datetime) -> datetime:
    return other if seen is None else max(seen, other)


def _of(held: Ledger, found: Sighting, prices: Prices, now: datetime) -> Iterator[Line]:
    """The lines about one instance that AWS shows."""
    started, life = when(found.started), held.machines.get(found.id)
    if started is None:
        return
    last = life.runs[-1] if life else None
    anew = last is None or started > last.start
    if last and anew and last.end is None:  # it stopped and started when nobody looked
        yield stop(found.id, _latest(held.seen, last.start), started, _STOPPED)
    told = _start(found, started, prices)
    if anew or (found.runs and last and _knows_more(told["usd"], last.usd)):
        yield told
    if found.runs:
        return
    end = when(found.ended)
    earliest = last.end if last and not anew and last.end else started
    at, by = (end, end) if end and end >= earliest else (_latest(held.seen, earliest), now)
    if anew or (last and last.end is None):
        yield stop(found.id, at, by, _WHY.get(found.code, ""))
    if found.gone and (life is None or life.gone is None):
        yield _end("gone", found.id, at, by)


def _start(found: Sighting, started: datetime, prices: Prices) -> Line:
    of_machine = prices.spot if found.spot else prices.machines
    gib = None if found.others or not found.gib else found.gib
    return {
        "event": "start",
        "at": written(started),
        "id": found.id,
        "role": found.role[:_LONGEST],
        "group": found.group[:_LONGEST],
        "type": found.ec2type,
        "spot": found.spot,
        "gib": gib,
        "usd": {
            "machine": of_machine.get(found.ec2type),
            "address": prices.address if found.address else 0,
            "disk": prices.disk_hour(gib),
        },
    }


def _knows_more(told: Mapping[str, float | None], known: Mapping[str, float | None]) -> bool:
    return any(known.get(name) is None and told[name] is not None for name in PARTS)
