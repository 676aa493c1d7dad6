"""Ports and addresses on loopback that a stand-in takes, and keeps for the next start."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import time
import zlib
from collections.abc import Container, Iterable, Iterator

from bilbo.errors import LocalError

# A socket bound to this port of a range's last address says that the range is taken.
CLAIM_PORT = 4727
OCTETS = range(16, 250, 2)  # the next one has the public addresses
API_PORTS = range(4570, 5570)
SSH_PORTS = range(2222, 2422)
REST_SECONDS = 5.0


def claim_range(home: str, last: int) -> tuple[int, contextlib.ExitStack]:
    """Take the range 127.OCTET.0.0/16 and the next one: the octet, and what holds them.

    `last` is the octet of the last time, tried first (0: none). Raises LocalError.
    """
    for octet in _from(last, home, OCTETS):
        with contextlib.ExitStack() as claims:
            claimed = [_bind(f"127.{each}.255.254", CLAIM_PORT) for each in (octet, octet + 1)]
            for claim in filter(None, claimed):
                claims.enter_context(claim)
            if all(claimed):
                return octet, claims.pop_all()
    raise LocalError("every address range of loopback is taken by another stand-in")


def api_socket(home: str, last: int) -> socket.socket:
    """A listening socket on 127.0.0.1 for the API, on the port of the last time where free."""
    for port in _from(last, home, API_PORTS):
        bound = _bind("127.0.0.1", port)
        if bound:
            return bound
    raise LocalError(f"no port of {API_PORTS.start} to {API_PORTS.stop - 1} is free on 127.0.0.1")


def ssh_port(octet: int, last: int) -> int:
    """A port that is free on the addresses of 127.OCTET.0.0/16."""
    for port in _from(last, "", SSH_PORTS):
        bound = _bind(f"127.{octet}.255.254", port)
        if bound:
            bound.close()
            return port
    raise LocalError(f"no port of {SSH_PORTS.start} to {SSH_PORTS.stop - 1} is free for SSH")


def _from(last: int, home: str, values: range) -> Iterator[int]:
    """All of `values`: the last one used first, then on from a place of the home's own."""
    if last in values:
        yield last
    offset = zlib.crc32(home.encode()) % len(values) if home else 0
    for number in range(len(values)):
        yield values[(number + offset) % len(values)]


def _bind(host: str, port: int) -> socket.socket | None:
    """A TCP socket that listens there; None when the place is taken."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(128)  # with SO_REUSEADDR only listening sockets keep others out
        return bound
    except OSError as error:
        bound.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise


class Addresses:
    """Hands out private addresses of 127.OCTET.0.0/16 and public ones of the next range, each to
    one instance at a time.

    The lowest free one comes first, so that addresses are used again soon, as on AWS. A public one
    rests before: the machine that had it may still be listening there.
    """

    def __init__(self, octet: int) -> None:
        self.network = ipaddress.IPv4Network(f"127.{octet}.0.0/16")
        self.public = ipaddress.IPv4Network(f"127.{octet + 1}.0.0/16")
        self._elsewhere = ipaddress.IPv4Network(f"127.{octet}.240.0/20")
        self._taken: set[str] = set()
        self._free_since: dict[str, float] = {}

    def take(self, subnet: ipaddress.IPv4Network) -> str | None:
        """A free address of `subnet`, or of a range kept for subnets that are not on loopback.

        None when there is none left.
        """
        if not subnet.subnet_of(self.network):
            subnet = self._elsewhere
        address = self._free(subnet)
        if address:
            self._taken.add(address)
        return address

    def take_public(self, before: str = "") -> str | None:
        """A free public address, another one than `before`; None when there is none left."""
        now = time.monotonic()
        resting = {a for a, since in self._free_since.items() if now - since < REST_SECONDS}
        address = self._free(self.public, {before, *resting}) or self._free(self.public, {before})
        if address:
            self._taken.add(address)
        return address

    def take_this(self, address: str) -> bool:
        """Take `address`; False when another instance has it."""
        if address in self._taken:
            return False
        self._taken.add(address)
        return True

    def give_back(self, address: str) -> None:
        """Let another instance have `address`."""
        self._taken.discard(address)
        self._free_since[address] = time.monotonic()

    def _free(self, subnet: ipaddress.IPv4Network, but: Container[str] = frozenset()) -> str | None:
        addresses = (str(subnet[number]) for number in self._usable(subnet))
        return next((a for a in addresses if a not in self._taken and a not in but), None)

    @staticmethod
    def _usable(subnet: ipaddress.IPv4Network) -> Iterable[int]:
        return range(4, subnet.num_addresses - 2)  # AWS keeps the first four and the last
