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
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from bilbo.files import private_write
from bilbo.local import sessions
from bilbo.local.boot_entries import BootEntry
from bilbo.local.processes import INSTANCE_MARK, STANDIN_MARK

log = logging.getLogger(__name__)

# What a machine needs of this one's environment: locale, time zone, and the way to packages.
PASSED_ON = ("LANG", "LC_", "TZ", "PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_BUNDLE")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Where AWS's SDKs, and bilbo on a machine, ask for the instance's metadata.
METADATA = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
OWN_PROGRAMS = "BILBO_OWN_PROGRAMS"
OWN_FIRST = f'case $PATH in "${OWN_PROGRAMS}":*) ;; *) PATH=${OWN_PROGRAMS}:$PATH ;; esac'
# A Unix socket's path has 107 bytes; below a deeper folder than this, programs that put
# sockets with generated names into TMPDIR fail.
LONGEST_TMPDIR = 75


@dataclass
class Host:
    """What an SSH server must know of its instance. `address` is the private one.

    `public_key` is the key pair's public key in any format that asyncssh reads; None admits
    nobody. `folder` holds the home. `mark` is the stand-in's. `rejects` is a fault: no key
    is good. `connections` are those open now. `metadata` is where the machine asks for its own.
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
    metadata: str = ""

    @property
    def home(self) -> Path:
        """Where commands begin."""
        return self.folder / "home"

    @property
    def own(self) -> Path:
        """The programs that must not be the computer's: see `own_programs`."""
        return self.folder / "own"

    @property
    def bin(self) -> Path:
        """The programs of the environment that runs bilbo."""
        return Path(sys.executable).parent


async def listen(host: Host, listener: socket.socket) -> asyncssh.SSHAcceptor:
    """Serve SSH for `host` on a socket that listens."""
    make_home(host)
    return await asyncssh.listen(
        sock=listener,
        server_factory=lambda: Door(host),
        server_host_keys=[host.host_key],
        process_factory=lambda process: sessions.run(
            process, _environment(host, process), host.home
        ),
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


def make_home(host: Host) -> None:
    """Lay out the machine's folder, unless it has one from an earlier boot."""
    for folder in (host.home, host.folder / "tmp"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not host.own.is_symlink():
        host.own.symlink_to(Path(host.mark) / "own")
    profile = host.home / ".profile"
    if not profile.exists():
        # /etc/profile sets PATH anew for login shells; this runs after it.
        first = shlex.quote(f"{host.own}:{host.bin}")
        profile.write_text(f'PATH={first}:"$PATH"\nexport PATH\n')


def size_disk(host: Host, gib: int, *, boots: bool = False) -> None:
    """Give the machine's disk that size. At a boot the partition and the file system grow with it,
    as cloud-init has it on AWS; otherwise a person has to grow them."""
    folder = host.folder / "dev"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("disk", "part", "fs") if boots else ("disk",):
        private_write(folder / name, f"{gib << 30}\n")  # in one step: its programs may be reading


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


def _environment(host: Host, process: sessions.Process) -> dict[str, str]:
    """What a command finds in its environment: as sshd gives it, and the marks."""
    connection = process.channel.get_connection()
    user = connection.get_extra_info("username", "")
    client, client_port = connection.get_extra_info("peername", ("127.0.0.1", 0))[:2]
    environment = own_environment(host, user)
    environment |= {n: v for n, v in process.env.items() if n == "LANG" or n.startswith("LC_")}
    environment |= {
        "SSH_CLIENT": f"{client} {client_port} {host.port}",
        "SSH_CONNECTION": f"{client} {client_port} {host.address} {host.port}",
    }
    if process.term_type:
        environment["TERM"] = process.term_type
    return environment


def own_environment(host: Host, user: str) -> dict[str, str]:
    """What every process of the machine finds in its environment."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(PASSED_ON) or name.lower() in PROXIES
    }
    environment |= {
        "PATH": f"{host.own}:{host.bin}:{SYSTEM_PATH}",
        "HOME": str(host.home),
        "PWD": str(host.home),
        "SHELL": "/bin/bash",
        "USER": user,
        "LOGNAME": user,
        # Before each prompt, since a login shell's profile files may set PATH anew.
        OWN_PROGRAMS: str(host.own),
        "PROMPT_COMMAND": OWN_FIRST,
        # All machines have the Python that runs bilbo; what one of them installs stays its own.
        "PYTHONPATH": str(host.home / ".packages"),
        "PIP_TARGET": str(host.home / ".packages"),
        "PIP_UPGRADE": "1",
        STANDIN_MARK: host.mark,
        INSTANCE_MARK: host.instance_id,
    }
    if host.metadata:
        environment[METADATA] = host.metadata
    folder = str(host.folder / "tmp")
    if len(folder) <= LONGEST_TMPDIR:
        environment["TMPDIR"] = folder
    return environment


async def run_entry(host: Host, entry: BootEntry) -> None:
    """Run a boot entry's commands until one fails, with their output in the machine's log. When
    cancelled, kill what runs of them."""
    environment = own_environment(host, entry.user) | entry.environment
    logs = host.folder / "var" / "log"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / entry.log).open("ab") as output:
        for command in entry.commands:
            try:
                child = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    cwd=host.home,
                    start_new_session=True,
                )
                code = await _ended(child)
            except (OSError, ValueError) as error:
                log.error("%s: not run: %s", entry.where, error)
                return
            if code:
                log.error("%s: %s ended with exit code %s", entry.where, command[0], code)
                return


async def _ended(child: asyncio.subprocess.Process) -> int:
    """The exit code of a process that leads a session; when cancelled, its group is killed."""
    try:
        return await child.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        raise
