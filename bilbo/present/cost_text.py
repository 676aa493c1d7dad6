"""What a cluster costs, as text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bilbo.costs import Bill, Hourly, Share, Spent, ended_themselves, shares, total
from bilbo.ledger import Ledger, MachineLife, Stretch, written
from bilbo.lifetime import words

NO_PRICES = "What it costs is unknown: there are no prices of {region} here."
_GET = "To get them: bilbo prices update --region {region}"


# -- by the hour ---------------------------------------------------------------------------


def _least(found: Hourly | Spent) -> str:
    return "at least " if found.unknown else ""


def bill_line(found: Bill, region: str) -> str:
    """Returns what the cluster will cost, and what it costs now if that differs, in one line."""
    if not found.date and found.total_then.unknown:
        return f"{NO_PRICES.format(region=region)} {_GET.format(region=region)}"
    then, now = found.total_then, found.total_now
    text = f"Costs {_least(then)}{then.usd:.4f} USD per hour, {then.month:.2f} per month"
    if now.usd and now != then:
        text += f"; now {_least(now)}{now.usd:.4f} and {now.month:.2f}"
    return f"{text}{_unknown(found)}."


def _unknown(found: Bill) -> str:
    names = dict.fromkeys((*found.total_then.unknown, *found.total_now.unknown))
    return f" (no price known for {', '.join(names)})" if names else ""


def bill_text(found: Bill, region: str, budget: float | None = None) -> str:
    """Returns `bill_line`, what of it is for each group, and what a budget says to it."""
    lines = [bill_line(found, region)]
    if found.date:
        for group in found.groups:
            now, then = (each.get(group, Hourly()) for each in (found.now, found.then))
            change = f"{now.usd:.4f} -> " if now.usd and now != then else ""
            lines.append(f"  {group}: {change}{then.usd:.4f}")
    if over := over_budget(found, budget):
        lines.append(over)
    return "\n".join(lines)


def over_budget(found: Bill, budget: float | None) -> str:
    """Returns that `create` will refuse, and why; empty if the budget allows it."""
    then, now = found.total_then, found.total_now
    if budget is None:
        return ""
    if then.usd > budget and then.usd > now.usd:
        return (
            f"That is {then.usd - budget:.4f} USD per hour over the budget of {budget:.4f}: "
            "`create` refuses it."
        )
    if then.unknown and then != now:
        return "With a budget, `create` refuses what has no known price."
    return ""


def bill_document(found: Bill, budget: float | None = None) -> dict[str, Any]:
    """Returns a bill as JSON. Without a price for something, sums are less than it costs, and
    `unknown` says of what."""
    return {
        "date": found.date or None,
        "budget_usd_per_hour": budget,
        "now": _hourly(found.total_now),
        "then": _hourly(found.total_then),
        "groups": [
            {
                "group": group,
                "now": _hourly(found.now.get(group, Hourly())),
                "then": _hourly(found.then.get(group, Hourly())),
            }
            for group in found.groups
        ],
    }


def _hourly(found: Hourly) -> dict[str, Any]:
    return {
        "usd_per_hour": round(found.usd, 6),
        "usd_per_month": round(found.month, 4),
        "unknown": list(found.unknown),
    }


def bill_rows(found: Bill) -> list[list[str]]:
    """Returns the rows of a table: each group, and the total, with USD per hour now and then, and
    per month then."""
    rows = [
        [group, *_cells(found.now.get(group, Hourly()), found.then.get(group, Hourly()))]
        for group in found.groups
    ]
    return [*rows, ["Total", *_cells(found.total_now, found.total_then)]]


def _cells(now: Hourly, then: Hourly) -> list[str]:
    return [
        f"{_least(now)}{now.usd:.4f}",
        f"{_least(then)}{then.usd:.4f}",
        f"{_least(then)}{then.month:.2f}",
    ]


# -- so far --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """A cluster and its ledger. `status` is its record's, or `destroyed`; `why_old` says why AWS
    was not asked, where it was not."""

    name: str
    status: str
    ledger: Ledger
    region: str = ""
    why_old: str = ""


def cost_rows(
    accounts: Sequence[Account], now: datetime, since: datetime | None
) -> list[tuple[str, ...]]:
    """Returns the rows of a table: what each cluster has cost so far, and the sum."""
    rows: list[tuple[str, ...]] = [("CLUSTER", "STATUS", "SINCE", "HOURS", "USD")]
    everything = Spent()
    for each in accounts:
        spent = total(shares(each.ledger, now, since))
        everything += spent
        rows.append((each.name, each.status, _since(each.ledger, since), *_spent(spent)))
    if len(accounts) > 1:
        rows.append(("TOTAL", "", "", *_spent(everything)))
    return rows


def _since(ledger: Ledger, since: datetime | None) -> str:
    first = _first(ledger)
    if first is None:
        return "-"
    return f"{max(first, since) if since else first:%Y-%m-%d}"


def _first(ledger: Ledger) -> datetime | None:
    return min((life.runs[0].start for life in ledger.machines.values()), default=ledger.begin)


def _spent(found: Spent) -> tuple[str, str]:
    return (
        _between(found.seconds / 3600, found.seconds_high / 3600, 2),
        _least(found) + _between(found.low, found.high, 4),
    )


def _between(low: float, high: float, digits: int) -> str:
    one, other = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return one if one == other else f"{one} to {other}"


def spent_word(ledger: Ledger, now: datetime) -> str:
    """Returns what a cluster has cost so far for a list of clusters: `0.42`, `?` if no price of it
    is known, empty if it has no ledger."""
    if not ledger.machines:
        return ""
    found = total(shares(ledger, now))
    if found.unknown and not found.high:
        return "?"
    return f"{'>' * found.unknown}{found.high:.2f}"


def account_text(account: Account, now: datetime, since: datetime | None) -> str:
    """Returns what one cluster has cost: by group, by day (UTC), and what is not certain."""
    found = list(shares(account.ledger, now, since))
    groups = dict.fromkeys(each.life.group for each in found)
    days = sorted({each.day for each in found})
    lines = [f"{account.name} ({account.status}), from {_since(account.ledger, since)} UTC:"]
    lines += [_row(group, [s for s in found if s.life.group == group]) for group in groups]
    lines += [_row(day, [s for s in found if s.day == day]) for day in days]
    lines.append(_row("total", found))
    return "\n".join([*lines, *notes(account)])


def _row(name: str, found: Sequence[Share]) -> str:
    hours, usd = _spent(total(found))
    return f"  {name}: {usd} USD, {hours} machine hours"


def notes(account: Account) -> list[str]:
    """Returns what a person should know of the figures, a line each."""
    ledger = account.ledger
    lines = []
    if ledger.begin and not ledger.whole:
        lines.append(
            f"Known since {ledger.begin:%Y-%m-%d %H:%M:%S} UTC; machines that had ended before "
            "are not counted."
        )
    for life, run in ended_themselves(ledger):
        lines.append(_ended(life, run))
    if types := sorted({each.ec2type for each in ledger.machines.values() if _unpriced(each)}):
        lines.append(f"No price was known for {', '.join(types)}.")
    if account.why_old:
        seen = f"{ledger.seen:%Y-%m-%d %H:%M:%S} UTC" if ledger.seen else "an earlier look"
        lines.append(f"As of {seen}, since AWS was not asked: {account.why_old}.")
    if ledger.damaged:
        count = ledger.damaged
        lines.append(f"{count} line{'s' * (count > 1)} of the ledger cannot be read.")
    return lines


def _unpriced(life: MachineLife) -> bool:
    return any(run.usd.get("machine") is None for run in life.runs)


def _ended(life: MachineLife, run: Stretch) -> str:
    assert run.end and run.latest
    why = run.why or "ended"
    when = f"at {run.end:%Y-%m-%d %H:%M:%S} UTC"
    if not run.exact:
        lasted = words((run.latest - run.end).total_seconds())
        when = f"after {run.end:%Y-%m-%d %H:%M:%S} UTC, within {lasted}"
    return f"{life.role} {life.id}: {why} {when}."


def account_document(account: Account, now: datetime, since: datetime | None) -> dict[str, Any]:
    """Returns what one cluster has cost as JSON; times in UTC."""
    ledger = account.ledger
    found = list(shares(ledger, now, since))
    groups = {each.life.group: each.life.role for each in found}
    return {
        "name": account.name,
        "status": account.status,
        "known_since": written(ledger.begin) if ledger.begin else None,
        "from_the_beginning": ledger.whole,
        "as_of": written(ledger.seen) if ledger.seen else None,
        "not_asked": account.why_old or None,
        "damaged_lines": ledger.damaged,
        **_spent_document(total(found)),
        "groups": [
            {"role": role, "group": group}
            | _spent_document(total(each for each in found if each.life.group == group))
            for group, role in groups.items()
        ],
        "days": [
            {"day": day} | _spent_document(total(each for each in found if each.day == day))
            for day in sorted({each.day for each in found})
        ],
        "machines": [_machine(life) for life in ledger.machines.values()],
    }


def _spent_document(found: Spent) -> dict[str, Any]:
    return {
        "usd": {"low": round(found.low, 6), "high": round(found.high, 6)},
        "seconds": {"low": found.seconds, "high": found.seconds_high},
        "unknown": found.unknown,
    }


def _machine(life: MachineLife) -> dict[str, Any]:
    return {
        "instance_id": life.id,
        "role": life.role,
        "group": life.group,
        "ec2type": life.ec2type,
        "spot": life.spot,
        "gib": life.gib,
        "gone": written(life.gone) if life.gone else None,
        "runs": [
            {
                "start": written(run.start),
                "end": written(run.end) if run.end else None,
                "latest": written(run.latest) if run.latest else None,
                "why": run.why or None,
                "usd_per_hour": dict(run.usd),
            }
            for run in life.runs
        ],
    }
