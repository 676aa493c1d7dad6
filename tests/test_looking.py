"""The look over SSH: what hosts tell of their services, within a time, and at which address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from ssh_hosts import Host, fresh_address, running

from bilbo.model import HostPlan, Node, Service, StagePlan
from bilbo.remote import (
    Deadlines,
    HostFailure,
    KnownHosts,
    Remote,
    bring_up,
    is_there,
    run_command,
    service_status,
)
from bilbo.status import HostStatus, ServiceStatus

SECONDS = 4.0


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The client's private key."""
    path = tmp_path / "key.pem"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(path)
    path.chmod(0o600)
    return path


@pytest.fixture
def host(tmp_path: Path, key: Path) -> Callable[[], Host]:
    """Makes hosts that admit the key, not yet listening."""
    return lambda: Host(tmp_path / fresh_address(), asyncssh.read_private_key(key))


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    """How the hosts are reached."""
    return Remote(KnownHosts(tmp_path / "known_hosts"), Deadlines(connect=2, start=20, ready=20))


def services(found: HostStatus | HostFailure) -> Sequence[ServiceStatus]:
    """What a host told of its services; nothing if it did not answer."""
    return found.services if isinstance(found, HostStatus) else ()


def plan(node: Node, script: str) -> StagePlan:
    """A stage of one host with one service."""
    service = Service("napper", script)
    return StagePlan("test", notebook=HostPlan(node, "napper", lambda _: service))


def test_a_service_tells_since_when_it_runs_and_how_it_ended(
    host: Callable[[], Host], key: Path, remote: Remote
) -> None:
    """A running service has an age, an ended one its exit code and the end of its log."""

    async def main() -> list[HostStatus | HostFailure]:
        one = host()
        async with running(one):
            node = one.node(key)
            script = "echo last words; while [ ! -e end ]; do sleep 0.05; done; exit 7"
            results = asyncio.ensure_future(
                bring_up(plan(node, script), replace(remote, deadlines=Deadlines(ready=60)))
            )
            found: list[HostStatus | HostFailure] = []
            while not any(each.running for status in found for each in services(status)):
                found = list(await service_status([node], "test", remote))
            (one.home / "end").touch()
            await results
            return [*found, *await service_status([node], "test", remote)]

    before, after = asyncio.run(asyncio.wait_for(main(), 60))
    assert isinstance(before, HostStatus) and isinstance(after, HostStatus)
    (was,), (now,) = before.services, after.services
    assert was.running and was.code is None and was.age is not None and was.age < 30
    assert (now.name, now.running, now.code, now.rebooted) == ("napper", False, 7, False)
    assert now.age is not None and now.log == ("last words",)
    assert now.ending == "ended with exit code 7"


def test_dead_hosts_are_told_in_time_and_the_others_too(
    host: Callable[[], Host], key: Path, remote: Remote
) -> None:
    """A host that refuses, one that says nothing and one that never answers cost only the time."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def main() -> tuple[list[HostStatus | HostFailure], float]:
        well, gone, silent, hung = (host() for _ in range(4))
        gone.port = 9  # discard: nobody listens
        server = await asyncio.start_server(mute, silent.address, 0)
        silent.port = server.sockets[0].getsockname()[1]
        async with running(well, hung):
            (hung.home / ".bash_profile").write_text("sleep 1000\n")
            nodes = [each.node(key) for each in (well, gone, silent, hung)]
            began = time.monotonic()
            found = await service_status(nodes, "test", remote, seconds=SECONDS)
            took = time.monotonic() - began
            server.close()
            return list(found), took

    (well, gone, silent, hung), took = asyncio.run(asyncio.wait_for(main(), 60))
    assert well == HostStatus()
    assert isinstance(gone, HostFailure) and "refuses connections" in gone.what
    assert isinstance(silent, HostFailure) and "no SSH banner" in silent.what
    assert isinstance(hung, HostFailure) and "did not answer within" in hung.what
    assert took < SECONDS + 1.5


@pytest.mark.parametrize("taken", [False, True])
def test_a_host_is_found_at_its_new_address(
    host: Callable[[], Host], key: Path, remote: Remote, taken: bool
) -> None:
    """Where nobody answers, or another machine that was given the address, the new one is asked
    for once, and its host key still has to be the instance's."""
    asked: list[str] = []

    async def main() -> tuple[int | None, bool, bool]:
        ours, stranger = host(), host()
        async with running(ours):
            node = ours.node(key)

            async def where(each: Node) -> str:
                asked.append(each.instance_id)
                return ours.address

            now = replace(remote, where=where)
            await run_command([node], "true", now, on_output=lambda *_: None)
            assert not asked  # it is where it was
            stranger.port = ours.port
            old = replace(node, public_ip=stranger.address)
            if taken:
                await stranger.start()
            try:
                there = await is_there(node, now, 5), await is_there(old, now, 5)
                (found,) = await run_command([old], "exit 5", now, on_output=lambda *_: None)
            finally:
                await stranger.stop()
            assert not stranger.logins
            return found.exit_code, *there

    assert asyncio.run(asyncio.wait_for(main(), 60)) == (5, True, False)
    assert len(asked) == 1


def test_a_stranger_at_the_only_known_address_stays_a_stranger(
    host: Callable[[], Host], key: Path, remote: Remote
) -> None:
    """If nobody knows another address, a changed host key is still refused."""

    async def main() -> HostFailure | None:
        ours, stranger = host(), host()
        async with running(ours):
            await run_command([ours.node(key)], "true", remote, on_output=lambda *_: None)
            stranger.port = ours.port
            async with running(stranger):
                node = replace(ours.node(key), public_ip=stranger.address)
                (found,) = await run_command([node], "true", remote, on_output=lambda *_: None)
                return found.failure

    failure = asyncio.run(asyncio.wait_for(main(), 60))
    assert failure and "impersonating" in failure.what
