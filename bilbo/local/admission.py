"""Which TCP ports a machine's security groups admit at its public address, and from where. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from typing import Any

SSH = 22
# What bilbo serves for people. Where a group does not admit one of them, packets get no answer, as
# on AWS; any other port of the address refuses.
SERVED = (8888, 8786, 8787, 8265, 10001)
# Of a wider range the served ports alone are opened: each port is a socket.
WIDEST = 64

# A port's networks; none where it is silent.
Admission = Mapping[int, tuple[IPv4Network, ...]]


def admission(groups: Iterable[Any], ssh_port: int) -> Admission:
    """What moto's security groups together admit from outside. Who admits SSH's own port 22 admits
    that of the stand-in.

    A rule whose source is a security group admits by private address alone, as on AWS: it opens
    nothing here. Nor does one for IPv6 or for a prefix list, which the stand-in has not.
    """
    served = (SSH, ssh_port, *SERVED)
    found: dict[int, set[IPv4Network]] = {port: set() for port in served}
    for group in groups:
        for rule in group.ingress_rules:
            for port in _ports(rule, served) if rule.cidr_ipv4 else ():
                network = IPv4Network(rule.cidr_ipv4, strict=False)
                found.setdefault(port, set()).add(network)
    found[ssh_port] |= found.pop(SSH)
    return {port: tuple(sorted(networks)) for port, networks in found.items()}


def _ports(rule: Any, served: tuple[int, ...]) -> Iterable[int]:
    """The ports of a rule that are opened."""
    if rule.ip_protocol == "-1":
        return served
    if rule.ip_protocol != "tcp":
        return ()
    ports = range(rule.from_port, rule.to_port + 1)
    return ports if len(ports) <= WIDEST else [port for port in served if port in ports]
