"""Connects to a host, retrying until the deadline, and explains why it cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from bilbo.model import Node
from bilbo.remote.keyfile import read_key
from bilbo.remote.terms import HostEvent, HostFailure, Remote

TCP_SECONDS = 4.0  # one attempt; a booting host drops packets, so short attempts find it sooner
LOGIN_SECONDS = 20.0  # one attempt, from the first byte to being logged in
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
HOST_KEY_ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
# asyncssh's default first choice, ChaCha20, costs several times as much per packet as AES-GCM.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
ASK_SECURITY_GROUP = (
    "Check that the instance runs and that its security group allows your address on the SSH port."
)


class PrivateKeys:
    """Private keys by path, each read once however many hosts share it."""

    def __init__(self) -> None:
        self._keys: dict[Path, asyncssh.SSHKey | HostFailure] = {}

    def load(self, path: Path) -> asyncssh.SSHKey:
        """The key. Raises HostFailure that says what is wrong with the file."""
        if path not in self._keys:
            try:
                self._keys[path] = read_key(path)
            except HostFailure as failure:
                self._keys[path] = failure
        key = self._keys[path]
        if isinstance(key, HostFailure):
            raise HostFailure(key.what, stage=key.stage, hint=key.hint, lasts=key.lasts)
        return key


@dataclass(frozen=True)
class Trouble:
    """Why one attempt failed. `final`: a retry would fail the same way."""

    stage: str
    cause: str
    hint: str = ASK_SECURITY_GROUP
    final: bool = False

    def failure(self, waited: float) -> HostFailure:
        """The failure that ends all attempts."""
        how_long = "" if self.final else f" (tried for {waited:.0f} s)"
        return HostFailure(
            self.cause + how_long, stage=self.stage, hint=self.hint, lasts=self.final
        )


class Attempt(asyncssh.SSHClient):
    """One attempt to log in; records how far it gets, which the exception does not say."""

    def __init__(self, node: Node, remote: Remote, address: str) -> None:
        self.node = node
        self.where = f"{address} port {node.ssh_port}"
        self.remote = remote
        self.connection: asyncssh.SSHClientConnection | None = None
        self.host_key_accepted = False
        self.host_key_trouble: Trouble | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """TCP is connected."""
        self.connection = conn

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Check the host's key against the one from the first connection."""
        known_hosts = self.remote.known_hosts
        try:
            self.host_key_accepted = known_hosts.accepts(self.node.instance_id, key)
        except OSError as error:
            self.host_key_trouble = Trouble(
                "connect",
                f"{known_hosts.path} cannot be used: {error.strerror}",
                "bilbo stores the hosts' keys there: make it readable and writable.",
                final=True,
            )
        else:
            if not self.host_key_accepted:
                self.host_key_trouble = self._changed(key)
        return self.host_key_accepted

    def _changed(self, key: asyncssh.SSHKey) -> Trouble:
        path = self.remote.known_hosts.path
        return Trouble(
            "connect",
            f"the host key of {self.node.instance_id} has changed to {key.get_fingerprint()}: "
            "someone may be impersonating the host",
            "If you know why (say, the system was reinstalled), remove the old key and try again: "
            f"ssh-keygen -R {self.node.instance_id} -f '{path}'",
            final=True,
        )

    async def log_in(self, key: asyncssh.SSHKey, address: str) -> asyncssh.SSHClientConnection:
        """Connect and log in. Raises what sockets, asyncio and asyncssh raise."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            to = (address, self.node.ssh_port)
            await asyncio.wait_for(
                asyncio.get_running_loop().sock_connect(sock, to), timeout=TCP_SECONDS
            )
            return await asyncio.wait_for(self._log_in_over(sock, key), timeout=LOGIN_SECONDS)
        finally:
            if not self.connection:  # else the connection owns the socket
                sock.close()

    async def _log_in_over(
        self, sock: socket.socket, key: asyncssh.SSHKey
    ) -> asyncssh.SSHClientConnection:
        """Only the profile decides how: no ssh config, no agent, no other keys."""
        known = self.remote.known_hosts.key(self.node.instance_id)
        return await asyncssh.connect(
            sock=sock,
            client_factory=lambda: self,
            config=None,
            username=self.node.ssh_user,
            client_keys=[key],
            client_certs=[],
            agent_path=None,
            agent_forwarding=False,
            known_hosts=([], [], []),  # validate_host_public_key decides
            server_host_key_algs=host_key_algorithms(known),
            encryption_algs=CIPHERS,
            x509_trusted_certs=None,
            preferred_auth="publickey",
            gss_host=None,
            compression_algs=None,
            login_timeout=LOGIN_SECONDS,
            keepalive_interval=15,
            keepalive_count_max=3,
        )

    def explain(self, error: BaseException) -> Trouble:
        """What an exception of `log_in` means."""
        if self.host_key_trouble:
            return self.host_key_trouble
        if isinstance(error, asyncssh.PermissionDenied):
            return Trouble(
                "authenticate",
                f"{self.where} refuses the key for user {self.node.ssh_user}",
                f"Check that `ssh_private_key` belongs to the key pair {self.node.key_name} and "
                "that `ssh_user` is the AMI's user.",
            )
        if isinstance(error, (asyncssh.KeyExchangeFailed, asyncssh.ProtocolNotSupported)):
            return Trouble("connect", f"{self.where}: {error}", "", final=True)
        return Trouble("connect", f"{self.where} {self._how(error)}")

    def _how(self, error: BaseException) -> str:
        if self.connection is None:
            if isinstance(error, ConnectionRefusedError):
                return "refuses connections"
            if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
                return "does not answer"
            return f"cannot be reached: {getattr(error, 'strerror', None) or error}"
        if not self.connection.get_extra_info("server_version"):
            if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
                return "accepts TCP but sends no SSH banner"
            return "accepts TCP and closes the connection without an SSH banner"
        if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
            return "speaks SSH but does not finish the login"
        return f"aborts the login: {error}"


def host_key_algorithms(known: asyncssh.SSHKey | None) -> list[str]:
    """What a host may prove its key with; first what the known one has."""
    first = [name.decode() for name in known.sig_algorithms] if known else []
    return [*first, *(name for name in HOST_KEY_ALGORITHMS if name not in first)]


async def connect(node: Node, remote: Remote, keys: PrivateKeys) -> asyncssh.SSHClientConnection:
    """A logged-in connection, retried until `remote.deadlines.connect`.

    A refused key is retried only for a short while, a changed host key not at all. Goes on at the
    address that `remote.where` knows, if that is another one.
    Raises HostFailure with the last attempt's cause.
    """
    key = keys.load(remote.key_path(node))
    address = node.public_ip or node.private_ip
    began = time.monotonic()
    end = began + remote.deadlines.connect
    pause = FIRST_PAUSE
    last: Trouble | None = None
    asked = False
    while True:
        attempt = Attempt(node, remote, address)
        try:
            login = attempt.log_in(key, address)
            return await asyncio.wait_for(login, timeout=end - time.monotonic())
        except (OSError, asyncio.TimeoutError, asyncssh.Error) as error:
            now = time.monotonic()
            # An attempt cut short by the deadline knows less than the one before.
            trouble = last if last and now >= end else attempt.explain(error)
        if trouble.stage == "connect" and not asked and now < end:
            asked = True
            if moved := await elsewhere(node, remote, address, end - now):
                address, last = moved, None
                continue
            now = time.monotonic()
        if trouble.stage == "authenticate" and not (last and last.stage == "authenticate"):
            end = min(end, now + remote.deadlines.new_key)
        if trouble.final or end - now < FIRST_PAUSE:
            raise trouble.failure(now - began)
        if trouble != last:
            remote.on_event(HostEvent(node, trouble.stage, f"waiting: {trouble.cause}"))
        last = trouble
        await asyncio.sleep(min(pause, end - now - FIRST_PAUSE / 2))
        pause = min(2 * pause, LONGEST_PAUSE)


async def is_there(node: Node, remote: Remote, seconds: float) -> bool:
    """Whether a host with the node's key answers at its address; any key, if none is known.

    Raises OSError if the known hosts cannot be read.
    """
    known = remote.known_hosts.key(node.instance_id)
    asking = asyncssh.get_server_host_key(
        node.public_ip or node.private_ip,
        node.ssh_port,
        config=None,
        server_host_key_algs=host_key_algorithms(known),
    )
    try:
        found = await asyncio.wait_for(asking, timeout=seconds)
    except (OSError, asyncio.TimeoutError, asyncssh.Error):
        return False
    return found is not None and (known is None or found.public_data == known.public_data)


async def elsewhere(node: Node, remote: Remote, address: str, seconds: float) -> str:
    """Another address of the node, if it is known within this time; empty if not."""
    try:
        found = await asyncio.wait_for(remote.where(node), timeout=seconds)
    except asyncio.TimeoutError:
        return ""
    return found if found != address else ""


@contextlib.asynccontextmanager
async def connected(
    node: Node, remote: Remote, keys: PrivateKeys
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """`connect`, closed at the end; aborted if the work raises."""
    connection = await connect(node, remote, keys)
    try:
        yield connection
        connection.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(connection.wait_closed(), timeout=2)
    finally:
        connection.abort()
