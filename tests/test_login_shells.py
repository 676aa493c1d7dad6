"""Hosts whose users have another login shell than bash, with the real shells over real SSH."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
from cli_hosts import key_pair, told_by
from reliability import told
from ssh_hosts import Host, processes_of, running

from bilbo.cluster.starting import _ask_token
from bilbo.cluster.work import Work
from bilbo.model import Target
from bilbo.record import Store
from bilbo.remote import (
    Deadlines,
    HostFailure,
    KnownHosts,
    Remote,
    in_sh,
    run_command,
    service_status,
)
from bilbo.status import HostStatus

QUICK = Deadlines(connect=5, start=20, ready=20, new_key=0.3)
SHELLS = ("/bin/sh", "/usr/bin/bash", "/usr/bin/tcsh", "/usr/bin/fish", "/usr/bin/zsh")
# What one shell or another would take for something of its own.
NASTY = "a'b\"c\\d\\\\e!f!!g$h`i%j%%k\tl\nm~*?[n]{o,p}(q)|r;s&t<u>v#w=x^y äö 클러스터\\n -e"


class Terse:
    """Progress that nobody looks at."""

    def __getattr__(self, name: str) -> object:
        return lambda *_, **__: None


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_pair(tmp_path)


def host_of(key: Path, shell: str) -> Host:
    """A host whose user has this login shell."""
    return Host(key.parent / "home", asyncssh.read_private_key(key), shell=shell)


async def run(host: Host, key: Path, command: str) -> tuple[int | HostFailure | None, bytes, bytes]:
    """How a command ends on a host that listens, and its output."""
    said: dict[bool, bytes] = {False: b"", True: b""}

    def take(_: object, data: bytes, is_stderr: bool) -> None:
        said[is_stderr] += data

    async def typed() -> AsyncIterator[bytes]:
        yield b"typed"

    remote = Remote(KnownHosts(key.parent / "known_hosts"), QUICK)
    (done,) = await run_command([host.node(key)], command, remote, on_output=take, stdin=typed())
    return done.failure or done.exit_code, said[False], said[True]


@pytest.mark.parametrize("shell", SHELLS)
def test_any_login_shell_will_do(key: Path, shell: str) -> None:
    """The agent runs, a script of bilbo's reaches sh as it is, a person's command their own
    shell: with its input, its two outputs and its exit code."""
    host = host_of(key, shell)
    token = host.kept / "jupyter.token"

    async def main() -> None:
        async with running(host):
            remote = Remote(KnownHosts(key.parent / "known_hosts"), QUICK)
            (found,) = await service_status([host.node(key)], "test", remote)
            assert isinstance(found, HostStatus)  # else it is a failure
            quoted = NASTY.replace("'", "'\\''")
            script = f"printf %s '{quoted}'; cat; echo oops >&2; exit 7"
            said = NASTY.encode() + b"typed"
            assert await run(host, key, in_sh(script)) == (7, said, b"oops\n")
            own = b"typed" + Path(shell).name.encode() + b"\n"
            name = "(status fish-path)" if "fish" in shell else "`readlink /proc/$$/exe`"
            if shell == "/bin/sh":
                own = b"typed" + Path(shell).resolve().name.encode() + b"\n"
            assert await run(host, key, f"cat; basename {name}") == (0, own, b"")
            await asyncio.to_thread(token.write_text, "s3cret")
            work = Work(Store(key.parent), Target("us-east-1"), Terse())  # type: ignore[arg-type]
            for earlier in (False, True):  # did not keep it by instance
                if earlier:
                    token.rename(host.kept.parent / token.name)
                answer = await asyncio.to_thread(_ask_token, "test", host.node(key), work)
                assert answer[0] == "s3cret"

    asyncio.run(main())


@pytest.mark.parametrize("shell", SHELLS)
def test_ctrl_c_ends_a_command_under_any_login_shell(key: Path, shell: str) -> None:
    """And what the command has started."""
    host = host_of(key, shell)

    async def main() -> None:
        async with running(host):
            work = asyncio.ensure_future(run(host, key, "sleep 1000"))
            while len(processes_of(host)) < 1:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            end = time.monotonic() + 5
            while processes_of(host) and time.monotonic() < end:
                await asyncio.sleep(0.05)
            assert processes_of(host) == []

    asyncio.run(main())


def test_a_long_command(key: Path) -> None:
    """Shells have limits of their own for words; none is below a hundred thousand bytes."""
    for shell in SHELLS:
        host = host_of(key, shell)

        async def main(host: Host = host) -> None:
            async with running(host):
                code, out, _ = await run(host, key, f"echo {'x' * 100_000} | wc -c")
                assert (code, out.strip()) == (0, b"100001")

        asyncio.run(main())


def test_a_login_shell_that_runs_nothing_is_named(key: Path) -> None:
    """It would exit with 0, as if the command had."""
    host = host_of(key, "/bin/true")

    async def main() -> None:
        async with running(host):
            failure, _, _ = await run(host, key, "touch there")
            assert isinstance(failure, HostFailure)
            assert failure.what == "the login shell on the host ended without running the command"

    asyncio.run(main())


def test_what_is_shown_of_a_command_under_tcsh(key: Path) -> None:
    """What the command prints, and its exit code."""
    host = host_of(key, "/usr/bin/tcsh")
    done = told_by([host], key, "rcmd", "test", "1", "--", "echo $version | cut -c1-4; exit 3")
    told(
        "The login shell on a host is tcsh (or fish, zsh), and `bilbo rcmd` runs",
        done.stdout + done.stderr,
        done.returncode,
        "nothing: the command ran in that shell",
    )
