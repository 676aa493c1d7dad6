"""Builds the inventory of running instances from Terraform's outputs.

Whoever can write a shared state can write the outputs, and their values end up in arguments, URLs
and files, so every value is checked.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from bilbo.errors import TerraformError
from bilbo.model import ClusterSpec, Inventory, Node, NodeGroup
from bilbo.shape import Check, boolean, having, mapped, maybe, string


def _like(pattern: str, what: str) -> Check:
    """A check for strings that match `pattern`, which `what` describes."""

    def misfit(value: Any) -> str:
        if why := string(value):
            return why
        good = re.fullmatch(pattern, value, re.ASCII)
        return "" if good else f"must be {what}, not {value[:40]!r}"

    return misfit


def _address(value: Any) -> str:
    """An IP address or an empty string."""
    if why := string(value):
        return why
    with contextlib.suppress(ValueError):
        if not value or str(ipaddress.ip_address(value)) == value:
            return ""
    return f"must be an IP address, not {value[:40]!r}"


def _name(value: Any) -> str:
    """A name as AWS allows it: anything printable on one line."""
    if why := string(value):
        return why
    good = value.isprintable() and len(value) <= 255
    return "" if good else f"must be a name, not {value[:40]!r}"


_INSTANCE = having(
    {
        "instance_id": _like("i-[0-9a-f]{1,32}", "an instance id"),
        "public_ip": maybe(_address),
        "private_ip": maybe(_address),
        "ec2type": _like(r"[a-z0-9][a-z0-9.-]{0,62}", "an instance type"),
        "image_id": _like("ami-[0-9a-f]{1,32}", "an AMI id"),
        "key_name": maybe(_name),
    },
    private_dns_name=maybe(_like(r"[A-Za-z0-9.-]{0,255}", "a host name")),
    state=maybe(_like("[a-z-]{0,30}", "an instance state")),
    spot=maybe(boolean),
)
_POOLS = maybe(mapped(maybe(mapped(_INSTANCE))))


def inventory(spec: ClusterSpec, outputs: Mapping[str, Any]) -> Inventory:
    """The nodes in `outputs` (`{name: value}`), for the groups of `spec`.

    Groups that Terraform has not created have no nodes; `missing` lists them. Raises TerraformError
    if the outputs do not have the structure that bilbo renders.
    """
    pools = _fits(_POOLS, outputs.get("workers"), "workers") or {}
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


def stopped(spec: ClusterSpec, outputs: Mapping[str, Any]) -> list[str]:
    """The ids of single instances that do not run; `launches` starts those of a group."""
    return [
        values["instance_id"]
        for group in (spec.notebook, spec.head)
        if group and (values := _machine(group, outputs))
        if values.get("state", "running") != "running"
    ]


def missing(spec: ClusterSpec, found: Inventory) -> list[tuple[NodeGroup, int]]:
    """The groups with fewer nodes than requested, and how many are missing."""
    present = [node.group for node in found.nodes()]
    lacks = [(group, group.count - present.count(group.name)) for group in spec.groups()]
    return [(group, count) for group, count in lacks if count > 0]


def _single(spec: ClusterSpec, group: NodeGroup | None, outputs: Mapping[str, Any]) -> Node | None:
    values = _machine(group, outputs) if group else None
    return _node(spec, group, values) if group and values else None


def _machine(group: NodeGroup, outputs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The outputs' values for a single instance; None if there is none yet."""
    values = outputs.get(group.role)
    if not values or (isinstance(values, dict) and not values.get("instance_id")):
        return None
    found: Mapping[str, Any] = _fits(_INSTANCE, values, group.role)
    return found


def _fits(check: Check, value: Any, where: str) -> Any:
    if why := check(value):
        raise TerraformError(
            f"Terraform's outputs are not what bilbo wrote: {where!r} {why}",
            hint="Was the folder or the shared state changed by hand? `terraform output` in the "
            "cluster's folder shows them.",
        )
    return value


def _node(spec: ClusterSpec, group: NodeGroup, values: Mapping[str, Any]) -> Node:
    return Node(
        role=group.role,
        group=group.name,
        instance_id=values["instance_id"],
        public_ip=values["public_ip"] or "",
        private_ip=values["private_ip"] or "",
        private_dns_name=values.get("private_dns_name")
        or _private_dns_name(values["private_ip"] or "", spec.region),
        ec2type=values["ec2type"],
        image_id=values["image_id"],
        key_name=values["key_name"] or "",
        ssh_user=group.machine.ssh_user,
        ssh_private_key=group.machine.ssh_private_key,
        ssh_port=group.machine.ssh_port,
        spot=bool(values.get("spot")),
    )


def _private_dns_name(address: str, region: str) -> str:
    """The IP name of an instance. Source: EC2's user guide, "EC2 instance hostname types"."""
    domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
    return f"ip-{address.replace('.', '-')}.{domain}"
