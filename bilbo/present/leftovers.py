"""What `sweep` finds, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bilbo.held import Built, Resource, Swept
from bilbo.present.report import age

_STOPPED = ("stopped", "stopping")


def leftover_rows(found: Swept, prices: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Returns the rows of a table, one for each resource, those of builds last; with `prices` (USD
    per hour by instance type) also what each machine costs, `?` where that is unknown."""
    heading = ("CLUSTER", "REGION", "OWNER", "RESOURCE", "ID", "STATE", "AGE")
    rows: list[tuple[str, ...]] = [(*heading, "USD/H") if prices else heading]
    for leftover in found.leftovers:
        owner = (leftover.owner or "none") + (" (yours)" if leftover.mine else "")
        whose = (leftover.cluster, leftover.region, owner)
        rows += [(*whose, *_row(each, prices)) for each in leftover.resources]
    for each in found.built:
        whose = (f"image {each.image}", each.region, "none")
        rows.append((*whose, *_row(each.resource, prices)))
    return rows


def _row(found: Resource, prices: Mapping[str, float]) -> tuple[str, ...]:
    since = age(found.since) if found.since else "-"
    row = (found.kind.removeprefix("aws_"), found.id, found.state or "-", since)
    return (*row, _usd(found, prices)) if prices else row


def removal_of_builds(found: Sequence[Built]) -> str:
    """Returns the commands that remove what builds have made; machines come first."""
    return "\n".join(f"  {command}" for each in found for command in each.commands)


def leftovers_document(swept: Swept, account: str | None, prices: Mapping[str, float]) -> Any:
    """Returns what was found as a JSON document; `usd_per_hour` is null where it is unknown."""
    return {
        "account": account,
        "regions": list(swept.regions),
        "not_seen": dict(swept.unseen),
        "leftovers": [
            {
                "cluster": leftover.cluster,
                "region": leftover.region,
                "owner": leftover.owner or None,
                "mine": leftover.mine,
                "resources": [_document(each, prices) for each in leftover.resources],
            }
            for leftover in swept.leftovers
        ],
        "of_builds": [
            {"image": each.image, "region": each.region, **_document(each.resource, prices)}
            for each in swept.built
        ],
    }


def _document(found: Resource, prices: Mapping[str, float]) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "id": found.id,
        "state": found.state or None,
        "since": found.since or None,
        "ec2type": found.ec2type or None,
        "usd_per_hour": _price(found, prices),
    }


def _price(found: Resource, prices: Mapping[str, float]) -> float | None:
    """A stopped machine costs nothing by itself; its volumes are not counted."""
    if not found.ec2type:
        return None
    return 0.0 if found.state in _STOPPED else prices.get(found.ec2type)


def _usd(found: Resource, prices: Mapping[str, float]) -> str:
    if not found.ec2type:
        return ""
    price = _price(found, prices)
    return "?" if price is None else f"{price:.4f}"
