"""The SSH server of one instance: it admits one key and runs real processes.

It does as OpenSSH does on an Ubuntu or Amazon Linux AMI: commands go through bash, of the
client's variables only the locale's are taken over, a command's output stays open as long
as any of its children holds it, and a command whose client has gone gets SIGHUP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from bilbo.local.processes import INSTANCE_MARK, STANDIN_MARK

Process = asyncssh.SSHServerProcess[bytes]

log = logging.getLogger(__name__)

# What a machine needs of this one's environment: locale, time zone, and the way to packages.
PASSED_ON = ("LANG", "LC_", "TZ", "PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_BUNDLE")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A Unix socket's path has 107 bytes; below a deeper folder than this, programs that put
# sockets with generated names into TMPDIR fail.
LONGEST_TMPDIR = 75
CHUNK = 65536


@dataclass
class Host:
    """What an SSH server must know of its instance.

    `public_key` is the key pair's public key in any format that asyncssh reads; None admits
    nobody. `folder` holds the home. `mark` is the stand-in's. `rejects` is a fault: no key
    is good. `connections` are those open now.
    """

    instance_id: str
    address: str
    port: int
    public_key: bytes | None
    folder: Path
    mark: str
    host_key: asyncssh.SSHKey
    rejects: bool = False
    connections: set[asyncssh.SSHServerConnection] = field(default_factory=set)

    @property
    def home(self) -> Path:
        """Where commands begin."""
        return self.folder / "home"

    @property
    def bin(self) -> Path:
        """The programs of the environment that runs bilbo."""
        return Path(sys.executable).parent


async def listen(host: Host) -> asyncssh.SSHAcceptor:
    """Serve SSH for `host` at its address. Raises OSError when the port is taken there."""
    _make_home(host)
    return await asyncssh.listen(
        host.address,
        host.port,
        server_factory=lambda: Door(host),
        server_host_keys=[host.host_key],
        process_factory=lambda process: _run(host, process),
        sftp_factory=lambda channel: HomeSftp(channel, host.home),
        allow_scp=True,
        encoding=None,
        line_editor=False,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        gss_host=None,
        agent_forwarding=False,
        backlog=128,
    )


def _make_home(host: Host) -> None:
    for folder in (host.home, host.folder / "tmp"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    profile = host.home / ".profile"
    if not profile.exists():
        # /etc/profile sets PATH anew for login shells; this runs after it.
        profile.write_text(f'PATH={shlex.quote(str(host.bin))}:"$PATH"\nexport PATH\n')


class Door(asyncssh.SSHServer):
    """Who may come in, and through which door: the instance's key, and nothing else."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Remember the connection, so that it ends with the instance."""
        self._connection = conn
        self._host.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._connection:
            self._host.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        """Everybody has to show a key."""
        return True

    def public_key_auth_supported(self) -> bool:
        """Keys are the only way in."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether `key` is the instance's; under any user name, as AMIs differ in theirs."""
        if self._host.public_key is None or self._host.rejects:
            return False
        try:
            own = asyncssh.import_public_key(self._host.public_key)
        except asyncssh.KeyImportError:
            log.warning("%s: its key pair holds no key", self._host.instance_id)
            return False
        return own.public_data == key.public_data

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        """Tunnels (`ssh -L`) are allowed, as by default on AMIs."""
        return True


class HomeSftp(asyncssh.SFTPServer):
    """SFTP and SCP on the real file system; relative paths begin in the instance's home."""

    def __init__(self, channel: Any, home: Path) -> None:
        super().__init__(channel)
        self._home = os.fsencode(home)

    def map_path(self, path: bytes) -> bytes:
        """The path on this machine."""
        return os.path.join(self._home, path)  # noqa: PTH118 - bytes

    def exit(self) -> None:
        """Say that all went well; OpenSSH's scp fails when it is told nothing."""
        with contextlib.suppress(OSError):
            self.channel.exit(0)


def _environment(host: Host, process: Process) -> dict[str, str]:
    """What a command finds in its environment: as sshd gives it, and the marks."""
    connection = process.channel.get_connection()
    user = connection.get_extra_info("username", "")
    client, client_port = connection.get_extra_info("peername", ("127.0.0.1", 0))[:2]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(PASSED_ON) or name.lower() in PROXIES
    }
    environment |= {n: v for n, v in process.env.items() if n == "LANG" or n.startswith("LC_")}
    environment |= {
        "PATH": f"{host.bin}:{SYSTEM_PATH}",
        "HOME": str(host.home),
        "PWD": str(host.home),
        "SHELL": "/bin/bash",
        "USER": user,
        "LOGNAME": user,
        "SSH_CLIENT": f"{client} {client_port} {host.port}",
        "SSH_CONNECTION": f"{client} {client_port} {host.address} {host.port}",
        STANDIN_MARK: host.mark,
        INSTANCE_MARK: host.instance_id,
    }
    folder = str(host.folder / "tmp")
    if len(folder) <= LONGEST_TMPDIR:
        environment["TMPDIR"] = folder
    if process.term_type:
        environment["TERM"] = process.term_type
    return environment


@dataclass
class Running:
    """A command that runs: where its input goes, and where its output comes from.

    `terminal` is a descriptor of ours to set its window size by; `close_after` are descriptors
    to close when it has ended.
    """

    child: asyncio.subprocess.Process
    stdin: asyncio.StreamWriter
    outputs: list[tuple[asyncio.StreamReader, asyncssh.SSHWriter[bytes]]]
    transports: list[asyncio.ReadTransport]
    terminal: int | None = None
    close_after: tuple[int, ...] = ()


async def _run(host: Host, process: Process) -> None:
    """Run what the client asked for, until it and its output end or the client goes."""
    if process.subsystem:
        process.exit(1)
        return
    argv = ["/bin/bash", "-c", process.command] if process.command else ["/bin/bash", "-l"]
    environment = _environment(host, process)
    start = _start_on_terminal if process.term_type else _start_on_pipes
    try:
        running = await start(process, argv, environment, host.home)
    except OSError as error:  # the machine is out of processes or files, or the home is gone
        process.stderr.write(f"{error}\n".encode())
        process.exit(255)
        return
    try:
        await _until_done(process, running)
    finally:
        if running.child.returncode is None:
            _signal(running.child, signal.SIGHUP)


async def _until_done(process: Process, running: Running) -> None:
    feeding = asyncio.ensure_future(_feed(process, running))
    pumps = [asyncio.ensure_future(_pump(*output)) for output in running.outputs]
    ended = asyncio.ensure_future(running.child.wait())
    gone = asyncio.ensure_future(process.channel.wait_closed())
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        running.terminal = None
        _close(*running.close_after)
        if gone.done():
            return
        # A terminal is taken away from whoever still holds it; a pipe is waited for.
        told = asyncio.ensure_future(asyncio.wait(pumps, timeout=1 if process.term_type else None))
        await asyncio.wait({told, gone}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        code = running.child.returncode or 0
        with contextlib.suppress(OSError):  # the client went meanwhile
            if code < 0:
                process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
            else:
                process.exit(code)
    finally:
        for task in (feeding, ended, gone, *pumps):
            task.cancel()
        await asyncio.gather(feeding, *pumps, return_exceptions=True)
        if not running.stdin.is_closing():
            running.stdin.transport.abort()
        for transport in running.transports:
            transport.close()


async def _feed(process: Process, running: Running) -> None:
    """Give the command what the client sends: input, signals, window sizes."""
    with contextlib.suppress(ConnectionError):
        while not process.stdin.at_eof():
            try:
                running.stdin.write(await process.stdin.read(CHUNK))
                await running.stdin.drain()
            except asyncssh.TerminalSizeChanged as event:
                if running.terminal is not None:
                    _resize(running.terminal, event.term_size)
            except asyncssh.BreakReceived:
                _signal(running.child, signal.SIGINT)
            except asyncssh.SignalReceived as event:
                with contextlib.suppress(KeyError):
                    _signal(running.child, signal.Signals[f"SIG{event.signal}"])
        if running.terminal is None:
            running.stdin.close()


async def _pump(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    """Give the client what the command writes. A terminal ends with EIO."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()


async def _start_on_pipes(
    process: Process, argv: list[str], environment: dict[str, str], home: Path
) -> Running:
    stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
    theirs, ours = (stdin[0], stdout[1], stderr[1]), (stdin[1], stdout[0], stderr[0])
    try:
        child = await _spawn(argv, environment, home, *theirs)
    except BaseException:
        _close(*ours)
        raise
    finally:
        _close(*theirs)
    (out, from_out), (err, from_err) = await _reader(ours[1]), await _reader(ours[2])
    outputs = [(out, process.stdout), (err, process.stderr)]
    return Running(child, await _writer(ours[0]), outputs, [from_out, from_err])


async def _start_on_terminal(
    process: Process, argv: list[str], environment: dict[str, str], home: Path
) -> Running:
    ours, theirs = os.openpty()
    _resize(ours, process.term_size)
    # A session leader that opens a terminal gets it as its controlling one. The shell does
    # that; doing it between fork and exec is not safe in a process that has threads.
    takes_terminal = ["/bin/sh", "-c", 'exec <>"$0" >&0 2>&0; exec "$@"', os.ttyname(theirs)]
    try:
        nothing = asyncio.subprocess.DEVNULL
        child = await _spawn(takes_terminal + argv, environment, home, nothing, nothing, nothing)
    except BaseException:
        _close(ours, theirs)
        raise
    control, output = os.dup(ours), os.dup(ours)
    out, from_out = await _reader(output)
    stdin, outputs = await _writer(ours), [(out, process.stdout)]
    # While their end is open here too, the last output is not lost.
    return Running(child, stdin, outputs, [from_out], control, (theirs, control))


async def _spawn(
    argv: list[str],
    environment: dict[str, str],
    home: Path,
    stdin: int,
    stdout: int,
    stderr: int,
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=home,
        start_new_session=True,
    )


async def _reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=4 * CHUNK)
    file = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), file
    )
    return reader, transport


async def _writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    file = os.fdopen(descriptor, "wb", buffering=0)
    unread = asyncio.StreamReader()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(unread), file
    )
    return asyncio.StreamWriter(transport, protocol, unread, loop)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _resize(terminal: int, size: tuple[int, int, int, int]) -> None:
    import fcntl
    import termios

    columns, rows, width, height = size
    with contextlib.suppress(OSError, struct.error):
        window = struct.pack("HHHH", rows, columns, width, height)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, window)


def _signal(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal to the command and its children; not to what they detached."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
