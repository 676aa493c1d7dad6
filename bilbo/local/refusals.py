"""What AWS refuses to launch and moto would: said in AWS's words."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

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


@functools.cache
def _types_of(region: str) -> frozenset[str]:
    offered = INSTANCE_TYPE_OFFERINGS["region"].get(region, [])
    return frozenset(offer["InstanceType"] for offer in offered)
