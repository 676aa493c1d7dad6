"""Reviews as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from bilbo.plans.effects import InstanceHours
from bilbo.plans.reading import Review
from bilbo.plans.shortages import Shortage

_SYMBOLS = {"create": "+", "update": "~", "replace": "-/+", "delete": "-", "forget": "-"}


def hours_text(found: Sequence[InstanceHours]) -> str:
    """Returns instance-hours per hour by type, and their cost if prices are known."""
    if not found:
        return ""
    rows = [
        f"  {each.ec2type}: {each.before} -> {each.after}"
        + (f", {each.price * each.after:.4f} USD per hour" if each.price is not None else "")
        for each in found
    ]
    total = sum((each.price or 0) * each.after for each in found)
    least = "at least " * any(each.price is None and each.after for each in found)
    return "\n".join(["Instance-hours per hour:", *rows, f"  then {least}{total:.4f} USD per hour"])


def shortages_text(found: Sequence[Shortage]) -> str:
    """Returns the worker groups that have lost machines; empty if none has."""
    lines = [f"    {each.text}" for each in found]
    return "\n".join(["  Missing workers, outside Terraform:", *lines]) if lines else ""


def warnings_text(warnings: list[str]) -> str:
    """Returns the warnings that `plan` prints below its plan."""
    if not warnings:
        return ""
    lines = [f"Warning: {each}" for each in warnings]
    return "\n".join([*lines, PUBLIC_HINT])


PUBLIC_HINT = (
    "`create` refuses this unless the profile says so: "
    '"access": {"public": true}. List your own networks in access.cidrs instead.'
)


def drift_text(name: str, review: Review, instances: list[str]) -> str:
    """Returns what was changed outside Terraform; `instances` are lines about instances that
    differ from the record."""
    if not review.drift and not instances:
        return f"Nothing in cluster '{name}' was changed outside Terraform."
    lines = [f"Changed outside Terraform in cluster '{name}':"]
    for change in review.drift:
        lines.append(f"  {_SYMBOLS.get(change.action, '?')} {change.address}")
        lines += [
            f"      {attribute.path}: {attribute.before} -> {attribute.after}"
            for attribute in change.attributes
        ]
    lines += [f"  {line}" for line in instances]
    return "\n".join(lines)
