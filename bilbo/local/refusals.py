"""What AWS refuses to launch and moto would: said in AWS's words."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

# The names that CreateLaunchTemplate and CreateSecurityGroup take, by their API references.
TEMPLATE_NAME = r"[a-zA-Z0-9().\-/_]{3,128}"
GROUP_NAME = r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}"
# CreateAutoScalingGroup's: ASCII from 33 to 126, no colon.
AUTO_SCALING_NAME = r"[!-9;-~]{1,255}"
MOST_RULES = 60  # for inbound and outbound rules, and for each address family
LONGEST_USER_DATA = 16384  # bytes, before they are encoded


def check_launch(backend: Any, image_id: str | None, kind: str | None, key: str | None) -> None:
    """Refuse, in AWS's words, an AMI, type or key pair that is not there."""
    if image_id not in backend.amis:
        raise EC2ClientError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    if kind not in _types_of(backend.region_name):
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
    if key and key not in backend.key_pairs:
        raise EC2ClientError("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
    wanted = backend.amis[image_id].architecture
    able = INSTANCE_TYPES[kind].get("ProcessorInfo", {}).get("SupportedArchitectures", [wanted])
    if wanted and wanted not in able:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"The architecture '{','.join(able)}' of the specified instance type does not match "
            f"the architecture '{wanted}' of the specified AMI. Specify an instance type and an "
            "AMI that have matching architectures, and try again. You can use "
            "'describe-instance-types' or 'describe-images' to discover the architecture of the "
            "instance type or AMI.",
        )


def groups_of(kwargs: Mapping[str, Any]) -> list[str]:
    """The security groups of network interfaces that a launch asks for."""
    return [group for nic in kwargs.get("nics") or [] for group in nic.get("Groups") or []]


def check_groups(backend: Any, groups: Iterable[str]) -> None:
    """Refuse, in AWS's words, a security group that is not there; moto makes it."""
    for group in groups:
        if backend.get_security_group_from_id(group) is None:
            raise EC2ClientError(
                "InvalidGroup.NotFound", f"The security group '{group}' does not exist"
            )


def check_user_data(data: Any, code: str) -> None:
    """Refuse, with a launch's or a template's `code`, user data that are longer than AWS takes."""
    if data and len(base64.b64decode(str(data))) > LONGEST_USER_DATA:
        raise EC2ClientError(code, f"User data is limited to {LONGEST_USER_DATA} bytes")


def check_template_name(name: str) -> None:
    """Refuse, in AWS's words, what cannot be a launch template's name."""
    if not re.fullmatch(TEMPLATE_NAME, name):
        raise EC2ClientError(
            "InvalidLaunchTemplateName.MalformedException",
            "A launch template name must be between 3 and 128 characters, and may contain "
            "letters, numbers, and the following characters: - ( ) . / _.",
        )


def check_group_name(backend: Any, name: str, vpc_id: str | None) -> None:
    """Refuse, in AWS's words, what cannot be a security group's name, or is one of its VPC's in
    upper or lower case."""
    if not re.fullmatch(GROUP_NAME, name) or name.startswith("sg-"):
        raise EC2ClientError(
            "InvalidParameterValue", f"Value ({name}) for parameter GroupName is invalid."
        )
    there = backend.groups[vpc_id or backend.default_vpc.id].values()
    if any(group.name.lower() == name.lower() for group in there):
        raise EC2ClientError(
            "InvalidGroup.Duplicate", f"The security group '{name}' already exists"
        )


def check_rules(
    there: Iterable[Any], networks: Iterable[Any] | None, groups: Iterable[Any] | None
) -> None:
    """Refuse, in AWS's words, more rules of one address family than a security group may have."""
    counts = {"CidrIp": 0, "CidrIpv6": 0}
    added = [*(networks or ()), *({} for _ in groups or ())]
    for source in [*(rule.ip_range for rule in there), *added]:
        for family in counts:
            # A rule for a group or a prefix list is one of both families.
            counts[family] += family in source or not source
    if max(counts.values()) > MOST_RULES:
        raise EC2ClientError(
            "RulesPerSecurityGroupLimitExceeded",
            "The maximum number of rules per security group has been reached.",
        )


@functools.cache
def _types_of(region: str) -> frozenset[str]:
    offered = INSTANCE_TYPE_OFFERINGS["region"].get(region, [])
    return frozenset(offer["InstanceType"] for offer in offered)
