"""Terraform's outputs become the inventory of running instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bilbo.errors import TerraformError
from bilbo.model import ClusterSpec, Inventory, Node, NodeGroup


def inventory(spec: ClusterSpec, outputs: Mapping[str, Any]) -> Inventory:
    """The nodes that `outputs` (`{name: value}`) name, for the groups that `spec` asks for.

    Groups that Terraform could not make, or not yet, have no nodes; `missing` tells.
    Raises TerraformError when the outputs are not of the form that bilbo renders.
    """
    try:
        pools = outputs.get("workers") or {}
        return Inventory(
            notebook=_single(spec, spec.notebook, outputs),
            head=_single(spec, spec.head, outputs),
            workers=tuple(
                _node(spec, group, pool[key])
                for group in spec.workers
                if (pool := pools.get(group.name) or {})
                for key in sorted(pool)
            ),
        )
    except (KeyError, TypeError) as error:
        raise TerraformError(
            f"Terraform's outputs are not what bilbo wrote: {error!r}",
            hint="Was the folder changed by hand? `terraform output` there shows them.",
        ) from error


def stopped(spec: ClusterSpec, outputs: Mapping[str, Any]) -> list[str]:
    """The ids of single instances that are not running; AWS replaces a group's by itself."""
    return [
        values["instance_id"]
        for group in (spec.notebook, spec.head)
        if group and (values := outputs.get(group.role))
        if values.get("state", "running") != "running"
    ]


def missing(spec: ClusterSpec, found: Inventory) -> list[tuple[NodeGroup, int]]:
    """The groups that have fewer nodes than asked, with how many lack."""
    present = [node.group for node in found.nodes()]
    lacks = [(group, group.count - present.count(group.name)) for group in spec.groups()]
    return [(group, count) for group, count in lacks if count > 0]


def _single(spec: ClusterSpec, group: NodeGroup | None, outputs: Mapping[str, Any]) -> Node | None:
    values = outputs.get(group.role) if group else None
    if group is None or not values or not values.get("instance_id"):
        return None
    return _node(spec, group, values)


def _node(spec: ClusterSpec, group: NodeGroup, values: Mapping[str, Any]) -> Node:
    return Node(
        role=group.role,
        group=group.name,
        instance_id=values["instance_id"],
        public_ip=values["public_ip"] or "",
        private_ip=values["private_ip"] or "",
        private_dns_name=values.get("private_dns_name")
        or _private_dns_name(values["private_ip"], spec.region),
        ec2type=values["ec2type"],
        image_id=values["image_id"],
        key_name=values["key_name"],
        ssh_user=group.machine.ssh_user,
        ssh_private_key=group.machine.ssh_private_key,
        ssh_port=group.machine.ssh_port,
    )


def _private_dns_name(address: str, region: str) -> str:
    """The IP name of an instance. Source: EC2's user guide, "EC2 instance hostname types"."""
    domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
    return f"ip-{address.replace('.', '-')}.{domain}"
