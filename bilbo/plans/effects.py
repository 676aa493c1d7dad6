"""What a change ends, and what is lost with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bilbo.model import HEAD, NOTEBOOK, SCHEDULER
from bilbo.plans.reading import ResourceChange, Review

# AWS changes these only while the instance is stopped.
_STOPPING = ("instance_type", "ebs_optimized", "user_data", "user_data_base64", "cpu_options")

_LOST = {
    NOTEBOOK: "JupyterLab and its kernels, every file on its disk, its addresses",
    SCHEDULER: "Dask's scheduler and every result that it holds, the files on its disk, its "
    "addresses (clients must reconnect)",
    HEAD: "the engine's head and every result that it holds, the files on its disk, its "
    "addresses (clients must reconnect)",
}
_ASLEEP = "the machine is only stopped and could be started again"
_PAUSED = {
    NOTEBOOK: "JupyterLab and its kernels stop, and its public address changes; files stay",
    SCHEDULER: "Dask's scheduler stops with every result that it holds, and its public address "
    "changes; files stay",
    HEAD: "the engine's head stops with every result that it holds, and its public address "
    "changes; files stay",
}


@dataclass(frozen=True)
class Effect:
    """Something running that a plan ends: how (`destroy`, `replace`, `stop`, `shrink`), why, and
    what is lost.
    """

    address: str
    how: str
    because: tuple[str, ...]
    lost: str


def effects(review: Review) -> list[Effect]:
    """Returns what ends or stops, worst first: above all, machines that are only stopped."""
    found = [effect for change in review.changes for effect in _effects(change, review)]
    return sorted(found, key=_rank)


def _rank(effect: Effect) -> tuple[bool, int, str]:
    order = ("destroy", "replace", "stop", "shrink")
    return (not effect.lost.startswith(_ASLEEP), order.index(effect.how), effect.address)


def _effects(change: ResourceChange, review: Review) -> Iterator[Effect]:
    because = _because(change, review)
    if change.action in ("delete", "forget"):
        yield Effect(change.address, "destroy", because, _lost(change))
    elif change.action == "replace":
        yield Effect(change.address, "replace", because, _lost(change))
    elif change.kind == "aws_instance" and (stopping := _stopping(change)):
        lost = _PAUSED.get(change.role, "its processes stop, and its public address changes")
        yield Effect(change.address, "stop", stopping, lost)
    elif change.kind == "aws_autoscaling_group" and (fewer := _fewer(change)):
        lost = f"{_workers(fewer)}, with what they compute and hold in memory"
        yield Effect(change.address, "shrink", ("desired_capacity",), lost)


def _because(change: ResourceChange, review: Review) -> tuple[str, ...]:
    if change.forced_by:
        return change.forced_by
    if change.reason == "replace_by_triggers":
        return tuple(
            f"{other.kind}: {attribute.path}"
            for other in review.changes
            if other.module == change.module and other.address != change.address
            for attribute in other.attributes
            if not str(attribute.after).startswith("(known after")
        ) or ("what it depends on",)
    return (_REASONS.get(change.reason, change.reason.replace("_", " ") or "asked for"),)


_REASONS = {
    "replace_because_tainted": "its creation failed (tainted)",
    "delete_because_no_module": "no longer in the profile",
    "delete_because_no_resource_config": "no longer in the profile",
    "delete_because_count_index": "the profile asks for fewer",
    "delete_because_each_key": "no longer in the profile",
}


def _stopping(change: ResourceChange) -> tuple[str, ...]:
    return tuple(
        attribute.path
        for attribute in change.attributes
        if attribute.path.split("[")[0].split(".")[0] in _STOPPING
    )


def _lost(change: ResourceChange) -> str:
    match change.kind:
        case "aws_instance":
            lost = _LOST.get(change.role, "its services, its files, its addresses")
            asleep = change.before.get("instance_state") in ("stopped", "stopping")
            return f"{_ASLEEP}: {lost}" if asleep else lost
        case "aws_autoscaling_group":
            count = _number(change.before.get("desired_capacity"))
            return f"{_workers(count)}, with what they compute and hold in memory"
        case "aws_security_group":
            return "access through it while it is recreated"
        case "aws_launch_template" | "terraform_data" | "aws_ec2_instance_state":
            return "nothing of its own"
    return "what is in it"


def _fewer(change: ResourceChange) -> int:
    before = _number(change.before.get("desired_capacity"))
    return max(0, before - _number(change.after.get("desired_capacity"), before))


def _workers(count: int) -> str:
    return f"{count} worker machine{'s' * (count != 1)}"


def _number(value: Any, otherwise: int = 0) -> int:
    return int(value) if isinstance(value, int | float) else otherwise


# -- machines ------------------------------------------------------------------------------


@dataclass(frozen=True)
class InstanceHours:
    """How many instances of a type run before and after, and what one costs per hour."""

    ec2type: str
    before: int
    after: int
    price: float | None = None


def machines(review: Review, prices: Mapping[str, float]) -> list[InstanceHours]:
    """Returns the instances by type; each is one instance-hour per hour."""
    before, after = Counter[str](), Counter[str]()
    for change in review.resources:
        if change.kind == "aws_instance":
            before[_text(change.before.get("instance_type"))] += 1
            after[_text(change.after.get("instance_type"))] += 1
        elif change.kind == "aws_autoscaling_group":
            template = _template(change, review)
            held = template.before.get("instance_type") if template else None
            asked = template.after.get("instance_type") if template else None
            before[_text(held)] += _number(change.before.get("desired_capacity"))
            after[_text(asked or held)] += _number(change.after.get("desired_capacity"))
    return [
        InstanceHours(ec2type, before[ec2type], after[ec2type], prices.get(ec2type))
        for ec2type in sorted({*before, *after})
        if ec2type and (before[ec2type] or after[ec2type])
    ]


def _template(group: ResourceChange, review: Review) -> ResourceChange | None:
    return next(
        (
            change
            for change in review.resources
            if change.kind == "aws_launch_template" and change.module == group.module
        ),
        None,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
