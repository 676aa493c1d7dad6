"""The SSH stage against real SSH servers, processes, Dask and JupyterLab, faults included."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import asyncssh
import pytest
from ssh_hosts import Host, processes_of, running

from bilbo import services
from bilbo.engines import dask
from bilbo.model import (
    NOTEBOOK,
    NOTEBOOK_PORT,
    SCHEDULER,
    WORKER,
    ClusterSpec,
    HostPlan,
    HostResult,
    Inventory,
    Machine,
    Measurement,
    Node,
    NodeGroup,
    Page,
    Service,
    StagePlan,
)
from bilbo.remote import (
    CommandResult,
    Deadlines,
    HostEvent,
    HostFailure,
    KnownHosts,
    LogLines,
    Remote,
    bring_up,
    fetch_logs,
    run_command,
    service_status,
)
from bilbo.remote.agent_session import Session
from bilbo.remote.commands import with_agent
from bilbo.remote.roll import Members
from bilbo.status import HostStatus

MACHINE = Machine("ami-1", "m5.xlarge", "key", "ubuntu", "key.pem")
QUICK = Deadlines(connect=1.5, start=20, ready=20, new_key=0.3)


@dataclass
class Place:
    """A client's key and files, and its hosts."""

    folder: Path
    key: asyncssh.SSHKey
    key_path: Path
    events: list[HostEvent] = field(default_factory=list)

    def hosts(self, count: int) -> list[Host]:
        """Hosts that admit the client's key, not yet listening."""
        return [Host(self.folder / f"host-{number}", self.key) for number in range(count)]

    def remote(self, deadlines: Deadlines = QUICK) -> Remote:
        """What the functions under test take."""
        return Remote(KnownHosts(self.folder / "known_hosts"), deadlines, self.events.append)

    def worker(self, host: Host) -> Node:
        return host.node(self.key_path)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    key = asyncssh.generate_private_key("ssh-ed25519")
    path = tmp_path / "key.pem"
    key.write_private_key(path)
    path.chmod(0o600)
    return Place(tmp_path, key, path)


def sleeper(node: Node, script: str = "exec sleep 1000") -> HostPlan:
    """A host with a service that is ready as soon as it answers; alone, that it runs is enough."""
    page = Page(node.private_ip, 7999, "/")
    server = f"exec python3 -m http.server --bind {node.private_ip} 7999"
    service = Service("sleeper", server if script == "web" else script, page=page)
    return HostPlan(node, "sleeper", lambda _: service)


def alone(node: Node, script: str = "web", **changes: Any) -> StagePlan:
    """The stage of a single host."""
    plan = replace(sleeper(node, script), **changes)
    return StagePlan("test", notebook=plan)


async def stop_services(
    nodes: list[Node], remote: Remote, services: list[str]
) -> tuple[HostFailure | None, ...]:
    """Asks each node's agent to stop services, where they run; each node's failure."""

    async def one(node: Node, session: Session) -> None:
        await session.ask("stop", remote.deadlines.start, services=services, grace=5)

    return await with_agent(nodes, "test", remote, one)


async def only_result(plan: StagePlan, remote: Remote) -> HostResult:
    """The result of a stage of one host."""
    (result,) = await bring_up(plan, remote)
    return result


# Reaching a host


async def refusing(host: Host) -> None:
    """Nobody listens."""
    with socket.create_server((host.address, 0)) as free:
        host.port = free.getsockname()[1]


@contextlib.asynccontextmanager
async def talker(host: Host, says: bytes | None) -> AsyncIterator[None]:
    """Something that listens but does not speak SSH: silent, or says something and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if says is None:
            await reader.read()
        else:
            writer.write(says)
        writer.close()

    server = await asyncio.start_server(answer, host.address, 0)
    host.port = server.sockets[0].getsockname()[1]
    yield
    server.close()


def test_no_hosts_no_results(place: Place) -> None:
    """An empty plan is done at once."""
    assert asyncio.run(bring_up(StagePlan("test"), place.remote())) == ()


def test_a_host_that_refuses_is_named_after_its_deadline(place: Place) -> None:
    """Refused connections are tried again until the deadline, and then are the cause."""

    async def main() -> HostResult:
        (host,) = place.hosts(1)
        await refusing(host)
        return await only_result(alone(place.worker(host)), place.remote())

    began = time.monotonic()
    result = asyncio.run(main())
    assert 1 < time.monotonic() - began < 2.5
    assert (result.stage, result.ok) == ("connect", False)
    assert "refuses connections (tried for" in result.cause
    assert "security group" in result.hint
    assert "waiting: " in place.events[0].message
    assert [each.milestone for each in place.events] == ["", "failed"]


@pytest.mark.parametrize(
    ("says", "cause"),
    [
        (None, "accepts TCP but sends no SSH banner"),
        (b"", "accepts TCP and closes the connection without an SSH banner"),
    ],
)
def test_a_host_that_is_no_ssh_server_is_named(
    place: Place, says: bytes | None, cause: str
) -> None:
    """A silent server does not hold the stage up beyond its deadline."""

    async def main() -> HostResult:
        (host,) = place.hosts(1)
        async with talker(host, says):
            return await only_result(alone(place.worker(host)), place.remote())

    result = asyncio.run(main())
    assert (result.stage, result.ok) == ("connect", False)
    assert cause in result.cause


def test_a_host_that_comes_up_later_is_found_soon(place: Place) -> None:
    """A booting host is tried again and again, and works as soon as it listens."""

    async def main() -> HostResult:
        (host,) = place.hosts(1)
        await refusing(host)
        work = asyncio.ensure_future(only_result(alone(place.worker(host)), place.remote()))
        await asyncio.sleep(0.6)
        async with running(host):
            return await work

    assert asyncio.run(main()).ok


def test_a_refused_key_is_named_after_a_short_while(place: Place) -> None:
    """The key is tried again for a moment, as a fresh instance may get it late, and no longer."""

    async def main() -> HostResult:
        (host,) = place.hosts(1)
        host.client_key = asyncssh.generate_private_key("ssh-ed25519")
        async with running(host):
            remote = place.remote(replace(QUICK, connect=30))
            return await only_result(alone(place.worker(host)), remote)

    began = time.monotonic()
    result = asyncio.run(main())
    assert time.monotonic() - began < 5
    assert (result.stage, result.ok) == ("authenticate", False)
    assert "refuses the key for user ubuntu" in result.cause
    assert "key pair test" in result.hint


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda path: path.unlink(), "there is no private key"),
        (lambda path: path.chmod(0o644), "others can read the private key"),
        (lambda path: path.write_text("nonsense"), "is not a private key"),
        (
            lambda path: subprocess.run(
                ["ssh-keygen", "-q", "-p", "-f", path, "-N", "secret"], check=True
            ),
            "is protected by a passphrase",
        ),
    ],
)
def test_a_private_key_that_cannot_be_used_is_told_at_once(
    place: Place, spoil: Callable[[Path], object], cause: str
) -> None:
    """What is wrong with the file is the cause, without any attempt to connect."""
    spoil(place.key_path)
    node = place.worker(place.hosts(1)[0])
    result = asyncio.run(only_result(alone(node), place.remote()))
    assert (result.stage, result.ok) == ("authenticate", False)
    assert cause in result.cause
    assert result.hint


def test_host_keys_are_remembered_by_instance_and_checked(place: Place) -> None:
    """Another key is refused with what to do; the same address with another id is another host."""

    async def main() -> tuple[HostResult, HostResult, HostResult]:
        (host,) = place.hosts(1)
        async with running(host):
            first = await only_result(alone(place.worker(host)), place.remote())
        host.server_key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
        host.port = 0
        async with running(host):
            node = place.worker(host)
            second = await only_result(alone(node), place.remote())
            third = await only_result(alone(replace(node, instance_id="i-new")), place.remote())
        return first, second, third

    first, second, third = asyncio.run(main())
    assert first.ok and third.ok
    assert (second.stage, second.ok) == ("connect", False)
    assert "host key of" in second.cause and "has changed" in second.cause
    assert f"ssh-keygen -R {first.node.instance_id} -f" in second.hint


def test_the_systems_ssh_reads_the_known_hosts(place: Place) -> None:
    """With the instance id as alias, ssh itself trusts exactly the host that bilbo has met."""

    async def main() -> tuple[int, int]:
        (host,) = place.hosts(1)
        async with running(host):
            node = place.worker(host)
            await only_result(alone(node), place.remote())
            return await ssh(node, node.instance_id), await ssh(node, "i-unknown")

    async def ssh(node: Node, alias: str) -> int:
        words = ["ssh", "-F", "none", "-i", node.ssh_private_key, "-p", str(node.ssh_port)]
        chosen = {
            "UserKnownHostsFile": place.folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": alias,
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
        }
        words += [f"-o{name}={value}" for name, value in chosen.items()]
        child = await asyncio.create_subprocess_exec(*words, f"ubuntu@{node.public_ip}", "exit 5")
        return await child.wait()

    assert asyncio.run(main()) == (5, 255)


def test_known_hosts_survive_many_writers_and_a_cut_line(tmp_path: Path) -> None:
    """Keys added by two at once, after a line that a full disk has cut, are all there."""
    path = tmp_path / "new" / "known_hosts"
    path.parent.mkdir()
    path.write_text("i-cut ssh-ed25519 AAAAC3Nz")
    key = asyncssh.generate_private_key("ssh-ed25519")
    both = [KnownHosts(path), KnownHosts(path)]
    for number in range(100):
        assert both[number % 2].accepts(f"i-{number}", key)
    fresh = KnownHosts(path)
    assert all(fresh.key(f"i-{number}") for number in range(100))
    assert fresh.key("i-cut") is None
    assert len(path.read_text().splitlines()) == 101


# What runs on a host


def test_a_host_without_python_is_named(place: Place) -> None:
    """The cause is not an exit code but what is missing."""
    (host,) = place.hosts(1)
    bare = place.folder / "bin"
    bare.mkdir()
    (bare / "sh").symlink_to("/bin/sh")
    host.path = str(bare)

    async def main() -> HostResult:
        async with running(host):
            return await only_result(alone(place.worker(host)), place.remote())

    result = asyncio.run(main())
    assert (result.stage, result.ok) == ("measure", False)
    assert result.cause == "python3 is not on the host's PATH"


@pytest.mark.parametrize(
    ("needs", "cause"),
    [
        ({"executables": ("no-such-dask",)}, "not on the host's PATH: no-such-dask"),
        (
            {"packages": ("dask",), "oldest": {"dask": "9999.1"}},
            "on the host is older than 9999.1",
        ),
        ({"init_cmd": ("echo why; exit 4",)}, "init_cmd's command 1 of 1 ended with exit code 4"),
    ],
)
def test_a_host_that_lacks_something_is_named(
    place: Place, needs: dict[str, Any], cause: str
) -> None:
    """Software that is missing or too old, and a failed init command, stop before any start."""

    async def main() -> HostResult:
        (host,) = place.hosts(1)
        async with running(host):
            return await only_result(alone(place.worker(host), **needs), place.remote())

    result = asyncio.run(main())
    assert not result.ok
    assert result.stage in ("measure", "init")
    assert cause in result.cause
    assert result.log == (("why",) if "init_cmd" in needs else ())


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("echo cannot go on >&2; exit 3", "sleeper ended with exit code 3"),
        ("echo cannot go on; exec sleep 1000", "sleeper was not ready after 1 s: http://127."),
    ],
)
def test_a_service_that_does_not_get_ready_is_told_with_its_log(
    place: Place, script: str, cause: str
) -> None:
    """Whether it dies or hangs, its last words are in the result."""

    async def main() -> HostResult:
        (host,) = place.hosts(1)
        async with running(host):
            remote = place.remote(replace(QUICK, ready=1))
            return await only_result(alone(place.worker(host), script), remote)

    result = asyncio.run(main())
    assert (result.stage, result.ok) == ("ready", False)
    assert result.cause.startswith(cause)
    assert result.log == ("cannot go on",)
    assert "bilbo logs" in result.hint


def test_a_host_that_dies_midway_is_named(place: Place) -> None:
    """A connection that breaks while a service gets ready is that host's failure."""

    async def main() -> HostResult:
        (host,) = place.hosts(1)
        async with running(host):
            work = asyncio.ensure_future(
                only_result(alone(place.worker(host), "sleep 1000"), place.remote())
            )
            while not any("started" in event.message for event in place.events):
                await asyncio.sleep(0.01)
            assert host.server
            await host.stop()
            for pid in processes_of(host):
                os.kill(pid, 9)
            return await work

    result = asyncio.run(main())
    assert (result.stage, result.ok) == ("ready", False)
    assert "lost" in result.cause or "ended" in result.cause


def unforeseen(_: Measurement | None) -> Service:
    """What raises something that is no error of bilbo's."""
    raise ZeroDivisionError


def test_a_surprise_is_one_hosts_result(place: Place) -> None:
    """An exception that nobody foresaw fails its host only."""

    async def main() -> tuple[HostResult, ...]:
        good, bad = place.hosts(2)
        async with running(good, bad):
            plan = alone(place.worker(good))
            odd = HostPlan(place.worker(bad), "odd", unforeseen)
            return await bring_up(replace(plan, head=odd), place.remote())

    bad, good = asyncio.run(main())
    assert bad.cause.startswith("unexpected: ZeroDivisionError")
    assert good.ok


def test_without_a_head_workers_are_not_started(place: Place) -> None:
    """A failed head costs the workers' start but not the notebook's."""

    async def main() -> tuple[tuple[HostResult, ...], list[int]]:
        head, notebook, worker = hosts = place.hosts(3)
        async with running(*hosts):
            plan = StagePlan(
                "test",
                head=sleeper(place.worker(head), "exit 1"),
                notebook=sleeper(place.worker(notebook), "web"),
                workers=(sleeper(place.worker(worker)),),
            )
            results = await bring_up(plan, place.remote())
            assert not (worker.home / ".bilbo").exists()
            return results, [host.logins for host in hosts]

    (head, notebook, worker), logins = asyncio.run(main())
    assert not head.ok and notebook.ok and not worker.ok
    assert (worker.stage, worker.cause) == ("start", "not started: sleeper failed")
    assert logins == [1, 1, 1]


def test_more_hosts_than_connections(place: Place) -> None:
    """With two connections at once, five hosts get their turns; no host is connected to twice."""

    async def main() -> tuple[HostResult, ...]:
        hosts = place.hosts(5)
        async with running(*hosts):
            head, *workers = [sleeper(place.worker(host), "web") for host in hosts]
            remote = replace(place.remote(), limit=2)
            plan = StagePlan("test", head=head, workers=tuple(workers))
            results = await bring_up(plan, remote)
            assert [host.logins for host in hosts] == [1] * 5
            return results

    assert all(result.ok for result in asyncio.run(main()))


def test_ctrl_c_leaves_services_and_closes_connections(place: Place) -> None:
    """A cancelled stage ends at once; what it has started stays and is found by the next one."""

    async def main() -> HostResult:
        (host,) = place.hosts(1)
        async with running(host):
            node = place.worker(host)
            work = asyncio.ensure_future(
                only_result(alone(node, "exec sleep 1000"), place.remote())
            )
            while not any("started" in event.message for event in place.events):
                await asyncio.sleep(0.01)
            began = time.monotonic()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            assert time.monotonic() - began < 0.5
            (found,) = await service_status([node], "test", place.remote())
            assert isinstance(found, HostStatus)  # else it is a failure
            assert [(each.name, each.running) for each in found.services] == [("sleeper", True)]
            return await only_result(alone(node), place.remote(replace(QUICK, ready=0.5)))

    result = asyncio.run(asyncio.wait_for(main(), 60))
    assert result.facts["already"] and result.facts["kept"]


def test_a_predecessors_name_is_no_join() -> None:
    """A name that the head still has from before counts only at a new address."""

    async def main() -> list[str]:
        steps, roll = [], Members()
        roll.update({"i-1": "tcp://old"}, [])
        waiting = asyncio.ensure_future(roll.wait(["i-1"], roll.addresses(["i-1"])))
        for joined, left in (({}, ["i-1"]), ({"i-1": "tcp://new"}, [])):
            await asyncio.sleep(0)
            steps.append(str(waiting.done()))
            roll.update(joined, left)
        await asyncio.wait_for(waiting, 1)
        roll.close("the head has gone")
        with pytest.raises(HostFailure, match="the head has gone"):
            await roll.wait(["i-2"], ())
        return steps

    assert asyncio.run(main()) == ["False", "False"]


# Commands


def test_runs_a_command_everywhere(place: Place) -> None:
    """Output comes by host and stream, exit codes by host; what cannot be reached is told."""
    said: list[tuple[str, bytes, bool]] = []

    async def main() -> tuple[CommandResult, ...]:
        one, two, gone = place.hosts(3)
        await refusing(gone)
        async with running(one, two):
            nodes = [place.worker(host) for host in (one, two, gone)]
            results = await run_command(
                nodes,
                "pwd; echo oops >&2; test -e .ready && exit 7; kill -9 $$",
                place.remote(),
                on_output=lambda node, data, error: said.append((node.public_ip, data, error)),
            )
            assert (one.address, f"{one.home}\n".encode(), False) in said
            assert (two.address, b"oops\n", True) in said
            return results

    one, two, gone = asyncio.run(main())
    assert one.exit_code == two.exit_code == 137
    assert gone.exit_code is None and gone.failure and "refuses" in gone.failure.what


def test_standard_input_reaches_the_command(place: Place) -> None:
    """A pipe on one side is a pipe on the other, to its end."""
    said: list[bytes] = []

    async def lines() -> AsyncIterator[bytes]:
        for number in range(1000):
            yield b"%d\n" % number

    async def main() -> int | None:
        (host,) = place.hosts(1)
        async with running(host):
            (result,) = await run_command(
                [place.worker(host)],
                "wc -l",
                place.remote(),
                on_output=lambda _node, data, _error: said.append(data),
                stdin=lines(),
            )
            return result.exit_code

    assert asyncio.run(main()) == 0
    assert b"".join(said) == b"1000\n"


def test_fetches_logs_and_stops_services(place: Place) -> None:
    """The log of a running service, its end on request, and nothing of it left."""
    logs: list[LogLines] = []

    async def main() -> None:
        (host,) = place.hosts(1)
        async with running(host):
            node, remote = place.worker(host), place.remote(replace(QUICK, ready=0.5))
            await only_result(alone(node, "echo hello; exec sleep 1000"), remote)
            failures = await fetch_logs([node], "test", remote, on_lines=logs.append)
            assert failures == (None,)
            assert await stop_services([node], remote, ["sleeper"]) == (None,)
            (found,) = await service_status([node], "test", remote)
            assert isinstance(found, HostStatus) and not found.services[0].running
            await nothing_runs(host)

    asyncio.run(main())
    assert [(each.service, each.lines) for each in logs] == [("sleeper", ("hello",))]


async def nothing_runs(*hosts: Host) -> None:
    """Wait for the agents, which end when their connection has, and for nothing else."""
    for _ in range(50):
        if not any(processes_of(host) for host in hosts):
            return
        await asyncio.sleep(0.1)
    raise AssertionError([processes_of(host) for host in hosts])


# The whole


def dask_spec(count: int) -> ClusterSpec:
    """Notebook, scheduler, and workers of one process each."""

    def group(role: str, count: int = 1) -> NodeGroup:
        return NodeGroup(
            role, role, f"test-{role}", MACHINE, count, settings={"nproc": 1, "nthread": 1}
        )

    return ClusterSpec(
        "test",
        "us-east-1",
        engine="dask",
        notebook=group(NOTEBOOK),
        head=group(SCHEDULER),
        workers=(group(WORKER, count),),
    )


SUM = """
from dask.distributed import Client
import sys
with Client(*sys.argv[1:], timeout=20) as client:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    print(client.submit(sum, range(10)).result(), len(workers))
"""


def compute(address: str) -> str:
    """A computation by a client of its own process."""
    done = subprocess.run(
        [sys.executable, "-c", SUM, address], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr[-2000:]


def secret_in_command_lines(secret: str) -> list[int]:
    """The processes of this machine whose command line holds the secret."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if secret.encode() in command_line(pid)]


@pytest.mark.programs
def test_a_real_cluster(place: Place) -> None:
    """Dask and JupyterLab come up, compute, are found again, are restarted after a worker was
    lost, and are stopped without a trace; the token shows nowhere."""
    token = "s3cret" + os.urandom(8).hex()

    async def main() -> None:
        hosts = place.hosts(4)
        async with running(*hosts):
            key = place.key_path
            notebook, head = hosts[0].node(key, NOTEBOOK), hosts[1].node(key, SCHEDULER)
            workers = tuple(host.node(key) for host in hosts[2:])
            inventory = Inventory(notebook, head, workers)
            plan = services.stage_plan(dask_spec(2), inventory, token)
            remote = place.remote(Deadlines())

            results = await bring_up(plan, remote)
            assert [(r.stage, r.ok, r.cause) for r in results] == [("ready", True, "")] * 4
            assert results[2].facts["nworkers"] == 1
            assert results[2].facts["versions"]["dask"]
            assert [host.logins for host in hosts] == [1] * 4
            address = dask.addresses(head)["dask_scheduler_address"]
            assert await asyncio.to_thread(compute, address) == "45 2\n"
            await asyncio.to_thread(check_notebook, hosts[0], notebook, token)
            assert secret_in_command_lines(token) == []
            assert readable_by_others(place.folder, token) == []

            again = await bring_up(plan, remote)
            assert all(result.facts["already"] for result in again)

            for pid in processes_of(hosts[2]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            mended = await bring_up(plan, remote)
            assert [r.ok for r in mended] == [True] * 4
            assert [r.facts["already"] for r in mended] == [True, True, False, True]

            anew = await bring_up(plan, remote, fresh={SCHEDULER, WORKER})
            assert [r.ok for r in anew] == [True] * 4
            assert [r.facts["already"] for r in anew] == [False, True, False, False]
            assert await asyncio.to_thread(compute, address) == "45 2\n"

            names = ["jupyter", "dask-worker", "dask-scheduler"]
            assert await stop_services(list(inventory.nodes()), remote, names) == (None,) * 4
            await nothing_runs(*hosts)

    asyncio.run(main())


def check_notebook(host: Host, node: Node, token: str) -> None:
    """JupyterLab answers with the token only, and a kernel of it can find the scheduler."""
    url = f"http://{node.public_ip}:{NOTEBOOK_PORT}/api"
    headers = {"Authorization": f"token {token}"}
    with pytest.raises(OSError, match="403"):
        urlopen(f"{url}/status")
    with urlopen(Request(f"{url}/kernels", data=b"{}", headers=headers)) as answer:
        assert json.load(answer)["id"]
    kernels = [pid for pid in processes_of(host) if b"ipykernel" in command_line(pid)]
    assert kernels
    for pid in kernels:
        assert b"DASK_SCHEDULER_ADDRESS=tcp://" in Path(f"/proc/{pid}/environ").read_bytes()


def command_line(pid: int) -> bytes:
    """A process's command line; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def readable_by_others(folder: Path, secret: str) -> list[Path]:
    """Files below the folder that hold the secret and that other users could read."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o077 and secret.encode() in path.read_bytes():
            closed = (at.stat().st_mode & 0o077 == 0 for at in path.parents if folder in at.parents)
            found += [] if any(closed) else [path]
    return found
