"""How the worker groups of a cluster that exists buy their machines: what Terraform's state knows.

How many workers of a spot group run on demand is in no profile. It is raised where spot has no
capacity (`fallback`), and it is what runs already when a group becomes one of spot instances: AWS
would replace workers to fit a smaller number, as the Auto Scaling API says of
`OnDemandBaseCapacity`. It ends with the count: a group of none begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bilbo.model import ClusterSpec, NodeGroup


@dataclass(frozen=True)
class Purchase:
    """How a group in a state buys: `percentage` of what is above the on-demand `base` is on demand
    too. `size` is how many machines it has; `typed` whether it names instance types."""

    base: int = 0
    percentage: int = 100
    size: int = 0
    typed: bool = False


def with_purchases(spec: ClusterSpec, state: Mapping[str, Any]) -> ClusterSpec:
    """Returns the specification with what a cluster's `state` knows of its groups. Pure.

    A state may be malformed; whoever can write it chooses at most how many workers of a spot group
    run on demand.
    """
    known = dict(_groups(state))
    settled = [_settled(group, known.get(group.instance_name)) for group in spec.workers]
    return replace(spec, workers=tuple(settled))


def purchase_notes(spec: ClusterSpec, state: Mapping[str, Any]) -> list[str]:
    """Returns what a change between spot and on demand means for the workers that run. Pure."""
    known = dict(_groups(state))
    pairs = [(each, known.get(each.instance_name)) for each in spec.workers]
    return [
        note
        for group, found in pairs
        if found and found.size and (note := _note(group, was_spot=found.percentage == 0))
    ]


def _note(group: NodeGroup, *, was_spot: bool) -> str:
    if group.spot and not was_spot:
        return (
            f"Group '{group.name}' becomes one of spot instances: its {group.on_demand} running "
            "worker(s) stay, on demand; those that come are spot."
        )
    if was_spot and not group.spot:
        return (
            f"Group '{group.name}' is no longer one of spot instances: running workers stay until "
            "AWS takes them back; those that come run on demand."
        )
    return ""


def _settled(group: NodeGroup, found: Purchase | None) -> NodeGroup:
    if found is None:
        return group
    if not group.spot:
        # The provider keeps the types of a group whose files no longer name any.
        types = group.types or ((group.machine.ec2type,) if found.typed else ())
        return replace(group, types=types)
    runs_on_demand = found.size if found.percentage else found.base
    return replace(group, on_demand=min(runs_on_demand, group.count))


def _groups(state: Mapping[str, Any]) -> Iterator[tuple[str, Purchase]]:
    """Yields each Auto Scaling group's name, and how it buys."""
    for resource in _list(state.get("resources")):
        if not isinstance(resource, Mapping) or resource.get("type") != "aws_autoscaling_group":
            continue
        for instance in _list(resource.get("instances")):
            found = _mapping(_mapping(instance).get("attributes"))
            name = found.get("name")
            if isinstance(name, str):
                yield name, _purchase(found)


def _purchase(group: Mapping[str, Any]) -> Purchase:
    policy = _first(group.get("mixed_instances_policy"))
    distribution = _first(policy.get("instances_distribution"))
    template = _first(policy.get("launch_template"))
    return Purchase(
        _number(distribution.get("on_demand_base_capacity"), 0),
        _number(distribution.get("on_demand_percentage_above_base_capacity"), 100),
        _number(group.get("desired_capacity"), 0),
        bool(_list(template.get("override"))),
    )


def _first(value: Any) -> Mapping[str, Any]:
    return _mapping(next(iter(_list(value)), None))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any, otherwise: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return max(0, value) if whole else otherwise
