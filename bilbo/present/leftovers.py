"""What `sweep` finds, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bilbo.held import Leftover, Resource, Swept
from bilbo.present.report import age

_STOPPED = ("stopped", "stopping")


def leftover_rows(found: Sequence[Leftover], prices: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Returns the rows of a table, one for each resource; with `prices` (USD per hour by instance
    type) also what each machine costs, `?` where that is unknown."""
    heading = ("CLUSTER", "REGION", "OWNER", "RESOURCE", "ID", "STATE", "AGE")
    rows: list[tuple[str, ...]] = [(*heading, "USD/H") if prices else heading]
    for leftover in found:
        owner = (leftover.owner or "none") + (" (yours)" if leftover.mine else "")
        for each in leftover.resources:
            since = age(each.since) if each.since else "-"
            kind = each.kind.removeprefix("aws_")
            row = (
                leftover.cluster,
                leftover.region,
                owner,
                kind,
                each.id,
                each.state or "-",
                since,
            )
            rows.append((*row, _usd(each, prices)) if prices else row)
    return rows


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
