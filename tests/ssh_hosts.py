"""Hosts for tests: SSH servers in this process, each with an address of its own in 127.0.0.0/8 and
a home folder, that run real commands."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import asyncssh

from bilbo.local.own_programs import lay_out
from bilbo.model import WORKER, Node

_numbers = itertools.count(1)


def fresh_address() -> str:
    """An address that no other test process uses at the same time."""
    pid, number = os.getpid(), next(_numbers)
    return f"127.{64 + pid // 256 % 128}.{pid % 256}.{number % 250 + 1}"


@dataclass
class Host:
    """One SSH server. `path` is what its login shell has on PATH; None means this venv's too.

    `shell` runs what the client asks for. `login` ends the login profile. Before all of PATH are
    programs of the host's own, so that none of them installs a unit on this machine.
    """

    home: Path
    client_key: asyncssh.SSHKey
    address: str = field(default_factory=fresh_address)
    server_key: asyncssh.SSHKey = field(
        default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519")
    )
    path: str | None = None
    shell: str = "/bin/sh"
    login: str = ""
    port: int = 0
    logins: int = 0
    server: asyncssh.SSHAcceptor | None = None
    serving: list[asyncio.Task[None] | None] = field(default_factory=list)
    children: list[asyncio.subprocess.Process] = field(default_factory=list)
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)

    @property
    def instance_id(self) -> str:
        """The instance's id, made of its address."""
        return f"i-{self.address.replace('.', '')}"

    @property
    def kept(self) -> Path:
        """Where bilbo keeps the files of the cluster `test` on it."""
        return self.home / ".bilbo" / "test" / self.instance_id

    def node(self, key: Path, role: str = WORKER, group: str | None = None) -> Node:
        """The node that this host would be in an inventory."""
        return Node(
            role=role,
            group=group or role,
            instance_id=self.instance_id,
            public_ip=self.address,
            private_ip=self.address,
            private_dns_name="",
            ec2type="m5.xlarge",
            image_id="ami-1",
            key_name="test",
            ssh_user="ubuntu",
            ssh_private_key=str(key),
            ssh_port=self.port,
        )

    async def start(self) -> None:
        """Listen, on the port of before if there was one."""
        self.home.mkdir(exist_ok=True)
        path = self.path or f"{Path(sys.executable).parent}:/usr/bin:/bin"
        own = own_programs(self.home)
        profile = f"export PATH={own}:{path}\necho welcome\n{self.login}"
        (self.home / ".bash_profile").write_text(profile)
        keys = asyncssh.import_authorized_keys(self.client_key.export_public_key().decode())
        self.server = await asyncssh.listen(
            self.address,
            self.port,
            server_host_keys=[self.server_key],
            authorized_client_keys=keys,
            process_factory=self._run,
            encoding=None,
            config=None,
        )
        self.port = self.server.get_port()

    async def stop(self) -> None:
        """Stop listening and cut all connections."""
        if self.server:
            self.server.close()
            for connection in self.connections:
                connection.abort()
            await self.server.wait_closed()

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self.logins += 1
        self.serving.append(asyncio.current_task())
        self.connections.append(process.get_extra_info("connection"))
        pipe = asyncio.subprocess.PIPE
        # `make coverage` measures the agent, too.
        measured = {key: text for key, text in os.environ.items() if key.startswith("COVERAGE_")}
        child = await asyncio.create_subprocess_exec(
            self.shell,
            "-c",
            process.command or "",
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", "SHELL": self.shell, **measured},
            start_new_session=True,
        )
        self.children.append(child)
        assert child.stdin and child.stdout and child.stderr
        feeding = asyncio.ensure_future(pump(process.stdin, child.stdin))
        stdin = child.stdin
        feeding.add_done_callback(lambda _: stdin.close())
        await asyncio.gather(
            pump(child.stdout, process.stdout), pump(child.stderr, process.stderr), child.wait()
        )
        feeding.cancel()
        code = child.returncode or 0
        if code < 0:
            process.exit_with_signal(signal.Signals(-code).name[3:])
        else:
            process.exit(code)


def own_programs(home: Path) -> Path:
    """The folder of a host's own sudo, systemctl and the like, which act on what is beside it."""
    own = home.with_name(f"{home.name}.machine") / "own"
    own.parent.mkdir(exist_ok=True)
    lay_out(own)
    return own


class Reader(Protocol):
    """What bytes come from."""

    async def read(self, n: int) -> bytes: ...


class Writer(Protocol):
    """Where bytes go."""

    def write(self, data: bytes) -> None: ...


async def pump(reader: Reader, writer: Writer) -> None:
    """Pass bytes on to their end. What nobody takes any more is read, too: a process counts as
    ended once its pipes are read to the end."""
    taken = True
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await reader.read(65536):
            taken = taken and passed(data, writer)


def passed(data: bytes, writer: Writer) -> bool:
    """Whether there is anyone who takes it."""
    try:
        writer.write(data)
    except (OSError, asyncssh.Error):
        return False
    return True


@contextlib.asynccontextmanager
async def running(*hosts: Host) -> AsyncIterator[None]:
    """The hosts, listening; at the end every process that was started in their homes is ended."""
    try:
        for host in hosts:
            await host.start()
        yield
    finally:
        for host in hosts:
            await host.stop()
            for script in host.home.glob(".bilbo/**/*.sh"):
                sys.audit("bilbo.tests.service", script.stem)  # heard by tests/touching.py
            end_processes(host)
            for child in host.children:
                await child.wait()
            if host.serving:  # until the pipes are closed, too
                await asyncio.wait(filter(None, host.serving), timeout=10)


def environments() -> dict[int, bytes]:
    """The environment of every process of this machine."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = (entry / "environ").read_bytes()
    return found


def processes_of(host: Host) -> list[int]:
    """The processes that run with the host's home folder, login shells included."""
    mark = f"HOME={host.home}\0".encode()
    return [pid for pid, text in environments().items() if mark in text]


def end_processes(host: Host) -> None:
    """Leave nothing behind, whatever the test did."""
    for pid in processes_of(host):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
