"""The members of Auto Scaling groups, and which of them may leave.

Terraform does not manage protection from scale-in. bilbo uses it to choose which instances leave
when Terraform lowers a group's count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bilbo.aws.session import asking, client
from bilbo.model import OWNER_TAG, Target

# AWS's own limit for one SetInstanceProtection.
_AT_ONCE = 50


def group_members(
    target: Target, names: Collection[str], owner: str | None
) -> dict[str, dict[str, bool]]:
    """`{group: {instance id: whether it is protected from scale-in}}` of the groups that exist.

    Skips instances that are leaving, and groups with another `owner`, which belong to another
    cluster of that name. One paged call. Raises AwsError.
    """
    found: dict[str, dict[str, bool]] = {}
    with asking("cannot list the members of the worker groups"):
        pages = client(target, "autoscaling").get_paginator("describe_auto_scaling_groups")
        for page in pages.paginate(AutoScalingGroupNames=sorted(names)):
            for group in page["AutoScalingGroups"]:
                tags = {tag["Key"]: tag["Value"] for tag in group.get("Tags", [])}
                if tags.get(OWNER_TAG, "") != (owner or ""):
                    continue
                found[group["AutoScalingGroupName"]] = _members(group)
    return found


def _members(group: Mapping[str, Any]) -> dict[str, bool]:
    return {
        each["InstanceId"]: each["ProtectedFromScaleIn"]
        for each in group["Instances"]
        if not each["LifecycleState"].startswith(("Terminat", "Detach"))
    }


def protect(target: Target, group: str, instance_ids: Collection[str], protected: bool) -> None:
    """Protects instances of a group from scale-in, or removes the protection. Raises AwsError.

    One call per 50 instances.
    """
    rest = sorted(instance_ids)
    with asking(f"cannot change the scale-in protection in the group {group}"):
        while rest:
            some, rest = rest[:_AT_ONCE], rest[_AT_ONCE:]
            client(target, "autoscaling").set_instance_protection(
                AutoScalingGroupName=group, InstanceIds=some, ProtectedFromScaleIn=protected
            )
