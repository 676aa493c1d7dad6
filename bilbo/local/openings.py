"""The sockets of a machine: SSH at its private address, and at its public one what its security
groups admit, which leads to the private one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import cast

from bilbo.local import ssh
from bilbo.local.processes import holds_socket

BACKLOG = 128
EVERYWHERE = IPv4Network("0.0.0.0/0")
_SO_ATTACH_FILTER = 26
# Of linux/filter.h: the source address of a packet is 12 bytes into its network header.
_SOURCE = 0xFFF00000 + 12
_LOAD, _AND, _JUMP_IF, _RETURN = 0x20, 0x54, 0x15, 0x06


@dataclass(frozen=True)
class Opening:
    """One listening socket of a machine.

    `serves` is `ssh`, `mute` (a connection is taken and nothing is said), `forward` (to the same
    port of the private address) or `silent` (no packet is answered). Packets from elsewhere than
    `networks` are not answered either.
    """

    address: str
    port: int
    serves: str
    networks: tuple[IPv4Network, ...] = (EVERYWHERE,)


class Socket:
    """An opening that is open. `connections` are what it forwards now."""

    def __init__(self, opening: Opening, host: ssh.Host) -> None:
        self._opening = opening
        self._host = host
        self._listener: socket.socket | None = None
        self._server: asyncio.AbstractServer | None = None
        self.connections: set[Relay] = set()

    async def open(self) -> None:
        """Listen. Raises OSError when the place is taken."""
        listener = listening(self._opening)
        try:
            if self._opening.serves == "ssh":
                # It is used as one of asyncio's servers is.
                served = await ssh.listen(self._host, listener)
                self._server = cast("asyncio.AbstractServer", served)
            elif self._opening.serves == "mute":
                self._server = await asyncio.start_server(_say_nothing, sock=listener)
            elif self._opening.serves == "forward":
                loop = asyncio.get_running_loop()
                self._server = await loop.create_server(self._relay, sock=listener)
            else:
                self._listener = listener
        except BaseException:
            listener.close()
            raise

    def close(self) -> None:
        """Take no more connections; those that there are live on, as on AWS."""
        if self._server:
            self._server.close()
        if self._listener:
            self._listener.close()

    def cut(self) -> None:
        """Close, and end what is forwarded."""
        self.close()
        for each in list(self.connections):
            each.abort()

    def _relay(self) -> Relay:
        members = EVERYWHERE in self._opening.networks
        return Relay(self._host, self._opening.port, self.connections, members=members)


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass
    writer.close()


def listening(opening: Opening) -> socket.socket:
    """A socket that listens there. Raises OSError when the place is taken."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Ray's servers take their port on all addresses at once, and share it only so.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.setblocking(False)
        made.bind((opening.address, opening.port))
        if EVERYWHERE not in opening.networks:
            _answer_only(made, opening.networks)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _answer_only(listener: socket.socket, networks: Sequence[IPv4Network]) -> None:
    """Has the kernel drop every packet that comes from elsewhere, which anybody may ask of a
    socket of their own."""
    program = b""
    for network in networks:
        program += struct.pack("HBBI", _LOAD, 0, 0, _SOURCE)
        program += struct.pack("HBBI", _AND, 0, 0, int(network.netmask))
        program += struct.pack("HBBI", _JUMP_IF, 0, 1, int(network.network_address))
        program += struct.pack("HBBI", _RETURN, 0, 0, 0xFFFFFFFF)
    program += struct.pack("HBBI", _RETURN, 0, 0, 0)
    kept = ctypes.create_string_buffer(program)
    count = len(program) // 8
    listener.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", count, ctypes.addressof(kept))
    )


class End(asyncio.Protocol):
    """One end of a forwarded connection: what arrives here leaves at the other."""

    def __init__(self, other: End | None = None) -> None:
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """This is the end at the machine: begin to read what the client has sent."""
        self.transport = cast("asyncio.Transport", transport)
        outer = self.other.transport if self.other else None
        if self.other and outer and not outer.is_closing():
            self.other.other = self
            outer.resume_reading()
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.other and self.other.transport:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Pass on that nothing more comes; the other end may still have something to say."""
        self.ended = True
        if self.other and self.other.transport and self.transport:
            self.other.transport.write_eof()
            if self.other.ended:
                self.transport.close()
        return True

    def pause_writing(self) -> None:
        """This end takes no more: read no more at the other."""
        if self.other and self.other.transport:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """This end has caught up."""
        if self.other and self.other.transport:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end ends as this one did."""
        if not self.other:
            return
        if exc is not None:
            self.other.abort()
        elif self.other.transport:
            self.other.transport.close()

    def abort(self) -> None:
        """Reset the connection."""
        if self.transport and not self.transport.is_closing():
            connection = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                now = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
            self.transport.abort()


class Relay(End):
    """The end of a forwarded connection that is outside. It is reset where nothing listens at the
    machine: the kernel has taken it before anybody could refuse it.
    """

    def __init__(self, host: ssh.Host, port: int, open_now: set[Relay], *, members: bool) -> None:
        super().__init__()
        self._host = host
        self._port = port
        self._open_now = open_now
        self._members = members
        self.task: asyncio.Task[None] | None = None  # or it could be collected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing before there is somebody to give it to."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.pause_reading()
        self._open_now.add(self)
        self.task = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        """Go on to the machine; a member that is not admitted gets no answer."""
        loop = asyncio.get_running_loop()
        try:
            if self._members or not await asyncio.to_thread(self._is_a_member):
                await loop.create_connection(lambda: End(self), self._host.address, self._port)
        except OSError:
            self.abort()

    def _is_a_member(self) -> bool:
        """Whether a machine of the stand-in is the client. Networks are meant for people: a machine
        that comes from outside has a public address on AWS, which is in none but 0.0.0.0/0."""
        assert self.transport
        near, far = (self.transport.get_extra_info(name) for name in ("peername", "sockname"))
        return holds_socket(self._host.mark, near, far)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end ends as this one did."""
        self._open_now.discard(self)
        super().connection_lost(exc)
