"""Which TCP ports a machine's security groups admit at its public address, and from where. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from typing import Any

SSH = 22  # at the stand-in, whatever port its SSH has
# What bilbo serves, and what of an engine listens on all addresses. Where a group does not admit
# one of them, packets get no answer, as on AWS; any other port of the address refuses.
SERVED = (SSH, 8888, 8786, 8787, 8265, 10001, 6379)
# Of a wider range the ports of SERVED are open alone: each port is a socket.
WIDEST = 64

# A port's networks; none where it is silent.
Admission = Mapping[int, tuple[IPv4Network, ...]]


def admission(groups: Iterable[Any]) -> Admission:
    """What moto's security groups together admit from outside.

    A rule whose source is a security group admits by private address alone, as on AWS: it opens
    nothing here. Nor does one for IPv6 or for a prefix list, which the stand-in has not.
    """
    found: dict[int, set[IPv4Network]] = {port: set() for port in SERVED}
    for group in groups:
        for rule in group.ingress_rules:
            for port in _ports(rule) if rule.cidr_ipv4 else ():
                network = IPv4Network(rule.cidr_ipv4, strict=False)
                found.setdefault(port, set()).add(network)
    return {port: tuple(sorted(networks)) for port, networks in found.items()}


def _ports(rule: Any) -> Iterable[int]:
    """The ports of a rule that are opened."""
    if rule.ip_protocol == "-1":
        return SERVED
    if rule.ip_protocol != "tcp":
        return ()
    ports = range(rule.from_port, rule.to_port + 1)
    return ports if len(ports) <= WIDEST else [port for port in SERVED if port in ports]
