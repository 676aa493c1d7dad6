"""Machines whose users have one home among them, as with EFS or NFS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import asyncssh
from cli_hosts import key_pair
from reliability import told
from ssh_hosts import Host, processes_of, running

from bilbo.agent.service import MARKER, processes_with
from bilbo.model import (
    HostPlan,
    HostResult,
    Node,
    Page,
    Service,
    StagePlan,
)
from bilbo.present.report import failures
from bilbo.remote import Deadlines, KnownHosts, Remote, bring_up, service_status
from bilbo.remote.agent_session import Session
from bilbo.remote.commands import with_agent
from bilbo.status import HostStatus

QUICK = Deadlines(connect=5, start=20, ready=20, new_key=0.3)


def together(place: Path, count: int) -> tuple[list[Host], Path]:
    """Hosts with one home."""
    path = key_pair(place)
    key = asyncssh.read_private_key(path)
    return [Host(place / "home", key) for _ in range(count)], path


def plan_of(node: Node, script: str = "", init_cmd: tuple[str, ...] = ()) -> HostPlan:
    """A host with a service whose page is its own."""
    server = f"exec python3 -m http.server --bind {node.private_ip} 7999"
    service = Service("web", script or server, page=Page(node.private_ip, 7999, "/"))
    return HostPlan(node, "web", lambda _: service, init_cmd=init_cmd)


def test_one_home_for_three_machines(tmp_path: Path) -> None:
    """`init_cmd` runs on each, each has its own service and log, and stopping one stops no
    other."""
    hosts, key = together(tmp_path, 3)
    remote = Remote(KnownHosts(tmp_path / "known_hosts"), QUICK)

    async def main() -> tuple[HostResult, ...]:
        async with running(*hosts):
            nodes = [host.node(key) for host in hosts]
            sick = f"echo {nodes[2].private_ip} is sick; exit 3"
            plans = (
                plan_of(node, sick if node is nodes[2] else "", ("echo x >>~/ran",))
                for node in nodes
            )
            stages = (bring_up(StagePlan("test", notebook=plan), remote) for plan in plans)
            results = tuple(result for (result,) in await asyncio.gather(*stages))
            assert [result.ok for result in results] == [True, True, False]
            for host in hosts:
                assert {path.name for path in host.kept.iterdir()} >= {"web.sh", "web.log"}

            async def stop(_: Node, session: Session) -> None:
                await session.ask("stop", 10, services=["web"], grace=5)

            assert await with_agent([nodes[0]], "test", remote, stop) == (None,)
            found = await service_status(nodes, "test", remote)
            runs = [each.services[0].running for each in found if isinstance(each, HostStatus)]
            assert runs == [False, True, False]
            return results

    results = asyncio.run(main())
    assert (tmp_path / "home" / "ran").read_text() == "x\n" * 3
    assert results[2].log == (f"{hosts[2].address} is sick",)
    told(
        "All machines have one home (EFS, NFS), and the service of one ends",
        "\n".join(failures(results, {result.node.instance_id: 1 for result in results})),
        3,
        "the services of the others; `init_cmd` ran on each",
    )


def test_what_an_earlier_bilbo_started_is_found(tmp_path: Path) -> None:
    """It kept nothing by instance: its services go on where they are, and their `init_cmd` is not
    run again once they are gone."""
    (host,), key = together(tmp_path, 1)
    remote = Remote(KnownHosts(tmp_path / "known_hosts"), QUICK)
    earlier = host.home / ".bilbo" / "test"

    async def main() -> None:
        async with running(host):
            node = host.node(key)
            plan = StagePlan("test", notebook=plan_of(node, "", ("echo x >>~/ran",)))
            (made,) = await bring_up(plan, remote)
            assert made.ok
            pids = processes_with(f"{MARKER}={host.kept / 'web'}".encode())
            # As an earlier bilbo would have left it.
            for path in host.kept.iterdir():
                path.rename(earlier / path.name)
            host.kept.rmdir()
            (found,) = await bring_up(plan, remote)
            assert found.ok and found.facts["already"]
            assert pids <= set(processes_of(host))
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            while service_is_there(host):
                await asyncio.sleep(0.05)
            (anew,) = await bring_up(plan, remote)
            assert anew.ok and not anew.facts["already"]
            assert (host.kept / "web.log").exists()

    asyncio.run(main())
    assert (tmp_path / "home" / "ran").read_text() == "x\n"


def service_is_there(host: Host) -> bool:
    """Whether a process of the service still lives."""
    return bool(processes_with(f"{MARKER}={host.kept / 'web'}".encode()) & set(processes_of(host)))
