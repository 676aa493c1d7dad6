"""Who can reach a cluster: what its specification opens, and what a plan opens and closes."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bilbo.model import ClusterSpec
from bilbo.plans.reading import ResourceChange, Review

# A network wider than this counts as the whole internet.
_WORLD_BITS = 8
# So do networks that together cover more than this share of IPv4.
_WORLD_SHARE = 1 / 16


@dataclass(frozen=True, order=True)
class Rule:
    """Ports that a network may reach. `ports` is a number, a range, or `all`."""

    ports: str
    source: str
    what: str = ""

    @property
    def public(self) -> bool:
        """Whether the whole internet is admitted."""
        return is_world(self.source)


@dataclass(frozen=True)
class Exposure:
    """What a plan does to who can reach the cluster."""

    opened: tuple[Rule, ...] = ()
    closed: tuple[Rule, ...] = ()
    public_addresses: tuple[str, ...] = ()


def is_world(network: str) -> bool:
    """Whether a network is the whole internet, or so much of it that it makes no difference."""
    try:
        return ipaddress.ip_network(network, strict=False).prefixlen < _WORLD_BITS
    except ValueError:
        return False


def _share(networks: Iterable[str]) -> float:
    """Returns the share of all IPv4 addresses that the networks cover together."""
    known = []
    for network in networks:
        with contextlib.suppress(ValueError):
            known.append(ipaddress.IPv4Network(network, strict=False))
    held = sum(each.num_addresses for each in ipaddress.collapse_addresses(known))
    return float(held / 2**32)


def open_to_world(spec: ClusterSpec) -> list[str]:
    """Returns a line for each port that the generated security group would open to the internet."""
    wide = [cidr for cidr in spec.cidrs if is_world(cidr)]
    if not wide and _share(spec.cidrs) > _WORLD_SHARE:
        wide = [f"{len(spec.cidrs)} networks that together cover {_share(spec.cidrs):.0%} of IPv4"]
    if not wide or not spec.needs_security_group:
        return []
    return [
        f"port {port} ({what}) is open to the world: {', '.join(wide)}"
        for port, what in sorted(spec.ports.items())
    ]


def exposure(review: Review) -> Exposure:
    """Returns the rules that a plan adds and removes, and the machines that get public
    addresses."""
    before = {rule for change in _groups(review) for rule in _rules(change.before)}
    after = {
        rule
        for change in _groups(review)
        if change.action not in ("delete", "forget")
        for rule in _rules(change.after)
    }
    return Exposure(
        opened=tuple(sorted(after - before)),
        closed=tuple(sorted(before - after)),
        public_addresses=tuple(
            change.address
            for change in review.changes
            if change.action in ("create", "replace") and _public(change)
        ),
    )


def _groups(review: Review) -> Iterator[ResourceChange]:
    return (change for change in review.resources if change.kind == "aws_security_group")


def _public(change: ResourceChange) -> bool:
    if change.kind == "aws_instance":
        return bool(change.after.get("associate_public_ip_address"))
    return change.kind == "aws_launch_template" and any(
        each.get("associate_public_ip_address") in (True, "true")
        for each in _mappings(change.after.get("network_interfaces"))
    )


def _rules(values: Mapping[str, Any]) -> Iterator[Rule]:
    for rule in _mappings(values.get("ingress")):
        first, last = rule.get("from_port"), rule.get("to_port")
        ports = str(first) if first == last else f"{first}-{last}"
        if str(rule.get("protocol")) == "-1":
            ports = "all"
        what = str(rule.get("description") or "")
        kinds = ("cidr_blocks", "ipv6_cidr_blocks", "security_groups", "prefix_list_ids")
        held = [rule.get(kind) for kind in kinds]
        sources = [each for listed in held if isinstance(listed, list) for each in listed]
        yield from (Rule(ports, str(source), what) for source in sources)


def _mappings(value: Any) -> Iterable[Mapping[str, Any]]:
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else ()
