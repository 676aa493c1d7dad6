"""Who is in an Auto Scaling group, and who may leave it.

Protection from scale-in is a state that Terraform does not manage: with it bilbo says which
instances go when Terraform lowers a group's count.
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

    Left out are instances on their way out, and a group that carries another `owner`: it is another
    cluster's of that name. One call, paged. Raises AwsError.
    """
    found: dict[str, dict[str, bool]] = {}
    with asking("AWS cannot be asked who is in the worker groups"):
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
    """Protects instances of a group from scale-in, or takes that back. Raises AwsError.

    A call for each 50 instances; none for none.
    """
    rest = sorted(instance_ids)
    with asking(f"AWS does not let instances leave the group {group}"):
        while rest:
            some, rest = rest[:_AT_ONCE], rest[_AT_ONCE:]
            client(target, "autoscaling").set_instance_protection(
                AutoScalingGroupName=group, InstanceIds=some, ProtectedFromScaleIn=protected
            )
