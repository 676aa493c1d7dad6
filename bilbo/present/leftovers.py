"""What `sweep` finds, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from bilbo.held import Built, Resource, Swept
from bilbo.present.report import age

_STOPPED = ("stopped", "stopping")
# USD per hour, by region and instance type.
Prices: TypeAlias = Mapping[str, Mapping[str, float]]


def leftover_rows(found: Swept, prices: Prices) -> list[tuple[str, ...]]:
    """Returns the rows of a table, one for each resource, those of builds last; with any `prices`
    also what each machine costs, `?` where that is unknown."""
    heading = ("CLUSTER", "REGION", "OWNER", "RESOURCE", "ID", "STATE", "AGE")
    priced = any(prices.values())
    rows: list[tuple[str, ...]] = [(*heading, "USD/H") if priced else heading]
    for leftover in found.leftovers:
        owner = (leftover.owner or "none") + (" (yours)" if leftover.mine else "")
        whose = (leftover.cluster, leftover.region, owner)
        known = prices.get(leftover.region, {}) if priced else None
        rows += [(*whose, *_row(each, known)) for each in leftover.resources]
    for each in found.built:
        whose = (f"image {each.image}", each.region, "none")
        rows.append((*whose, *_row(each.resource, prices.get(each.region, {}) if priced else None)))
    return rows


def _row(found: Resource, prices: Mapping[str, float] | None) -> tuple[str, ...]:
    since = age(found.since) if found.since else "-"
    row = (found.kind.removeprefix("aws_"), found.id, found.state or "-", since)
    return row if prices is None else (*row, _usd(found, prices))


def removal_of_builds(found: Sequence[Built]) -> str:
    """Returns the commands that remove what builds have made; machines come first."""
    return "\n".join(f"  {command}" for each in found for command in each.commands)


def leftovers_document(swept: Swept, account: str | None, prices: Prices) -> Any:
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
                "resources": [
                    _document(each, prices.get(leftover.region, {})) for each in leftover.resources
                ],
            }
            for leftover in swept.leftovers
        ],
        "of_builds": [
            {
                "image": each.image,
                "region": each.region,
                **_document(each.resource, prices.get(each.region, {})),
            }
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
