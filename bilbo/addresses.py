"""Terraform addresses of what bilbo renders and of what a state lists. Pure.

Only this module knows how modules are labelled; `render` and `templates/terraform` follow it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bilbo.model import WORKER

# Every type in the modules; a test compares them.
RESOURCE_TYPES = frozenset(
    {
        "aws_autoscaling_group",
        "aws_ec2_instance_type_offerings",
        "aws_instance",
        "aws_instances",
        "aws_launch_template",
        "aws_security_group",
        "aws_subnet",
        "aws_subnets",
        "terraform_data",
    }
)
SECURITY_GROUP = "module.security_group.aws_security_group.this"
ZONE = "module.network.terraform_data.availability_zone"


def label(role: str, group: str) -> str:
    """Returns the label of a group's module block; its addresses begin with `module.LABEL.`."""
    return role if group == role else f"{role}_{group}"


def rendered(kind: str, role: str, group: str) -> str | None:
    """Returns the address that `render` gives to a resource of this type, role and group; None if
    it renders none."""
    if kind == "aws_security_group":
        return SECURITY_GROUP
    pool = kind in ("aws_launch_template", "aws_autoscaling_group")
    machine = kind == "aws_instance" and role not in ("", WORKER)
    return f"module.{label(role, group)}.{kind}.this" if pool or machine else None


def within(address: str, role: str, group: str) -> bool:
    """Whether an address is in a group's module."""
    return address.startswith(f"module.{label(role, group)}.")


def of_resource(resource: Mapping[str, Any]) -> str:
    """Returns the address of a resource in a state, without an instance's index."""
    prefix = f"{resource['module']}." if "module" in resource else ""
    return f"{prefix}{resource['type']}.{resource['name']}"


def of_instance(resource: Mapping[str, Any], instance: Mapping[str, Any]) -> str:
    """Returns the address of one instance of a resource, including its index."""
    key = f"[{json.dumps(instance['index_key'])}]" if "index_key" in instance else ""
    return of_resource(resource) + key


def tainted(state: Mapping[str, Any]) -> Iterator[str]:
    """Yields the addresses that Terraform would replace because their creation failed."""
    for resource in state.get("resources", []):
        if any(instance.get("status") == "tainted" for instance in resource["instances"]):
            yield of_resource(resource)
