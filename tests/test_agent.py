"""The part of bilbo that runs on hosts, run as it runs there: by its opening lines over a pipe."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ssh_hosts import own_programs

from bilbo.agent import await_dask
from bilbo.agent.measure import count_cpus
from bilbo.agent.service import MARKER, processes_with, start_time
from bilbo.engines import dask
from bilbo.remote.agent_session import AGENT_MODULES, COMMAND, agent_source, opening_lines
from bilbo.remote.watching import WATCHER_MODULES

FOREVER = "echo here we are; exec sleep 1000"


class Agent:
    """An agent with a home folder of its own, whose login profile also has the text `more`."""

    def __init__(self, home: Path, more: str = "") -> None:
        own = own_programs(home)
        text = f"PATH={own}:$PATH\necho a greeting nobody asked for\n"
        (home / ".bash_profile").write_text(text + more)
        self.home = home
        self.folder = home / ".bilbo" / "test"
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
            bufsize=0,
        )
        self.write(opening_lines())
        self._rest = b""
        self._id = 0

    def write(self, data: bytes) -> None:
        """Write to the agent's standard input."""
        assert self.process.stdin
        self.process.stdin.write(data)

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask for something and return its first event."""
        self._id += 1
        request = {"id": self._id, "op": op, "cluster": "test", **fields}
        self.write(json.dumps(request).encode() + b"\n")
        return self.event()

    def event(self, seconds: float = 20) -> dict[str, Any]:
        """The next event of the last request."""
        assert self.process.stdout
        end = time.monotonic() + seconds
        while True:
            while b"\n" not in self._rest:
                ready = select.select([self.process.stdout], [], [], end - time.monotonic())
                assert ready[0], "no event in time"
                data = os.read(self.process.stdout.fileno(), 65536)
                assert data, "the agent has ended"
                self._rest += data
            line, self._rest = self._rest.split(b"\n", 1)
            if line.startswith(b"{") and (event := json.loads(line))["id"] == self._id:
                return dict(event)

    def start(self, name: str = "sleeper", script: str = FOREVER, **fields: Any) -> dict[str, Any]:
        """Start a service."""
        defaults: dict[str, Any] = {"listens": [], "page": None, "seconds": 20}
        defaults |= {"fresh": False, "replace": False}
        files = {f"{name}.sh": script, **fields.pop("files", {})}
        supervisor = agent_source("supervisor")
        request = {**defaults, "grace": 1, "files": files, "supervisor": supervisor, **fields}
        request.setdefault("starter", agent_source("service"))
        event = self.ask("start", service=name, **request)
        while event["event"] == "started" and FOREVER in script and not self.pids(name, b"sleep"):
            time.sleep(0.01)
        return event

    def pids(self, name: str = "sleeper", program: bytes = b"") -> set[int]:
        """All that a service has started, or those of them that run a program."""
        found = set()
        for pid in processes_with(f"{MARKER}={self.folder / name}".encode()):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(program):
                    found.add(pid)
        return found

    def close(self) -> int:
        """Leave; the agent's exit code."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(timeout=10)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    agent.process.kill()
    agent.process.wait()
    for pid in processes_with(f"HOME={tmp_path}".encode()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "module",
    sorted({*AGENT_MODULES, *WATCHER_MODULES, "supervisor", "await_dask", "settings_dask"}),
)
def test_old_pythons_on_hosts_understand_the_agent(module: str) -> None:
    """Each module is Python 3.6 and imports the standard library and its like only."""
    tree = ast.parse(agent_source(module), feature_version=(3, 6))
    names = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    foreign = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    sent = AGENT_MODULES if module in AGENT_MODULES else WATCHER_MODULES
    assert foreign <= {f"bilbo.agent.{name}" for name in sent}
    if module in WATCHER_MODULES:
        assert foreign <= {f"bilbo.agent.{name}" for name in WATCHER_MODULES}
    assert not (foreign and module == "supervisor")
    assert "__future__" not in names  # annotations from there are 3.7's


def test_measures_this_machine(agent: Agent) -> None:
    """The CPUs, memory, versions and programs are those that the machine itself reports."""
    seen = agent.ask("measure", packages=["pip", "no-such"], executables=["bash", "no-such"])
    assert seen["event"] == "measured"
    assert seen["cpus"] == os.cpu_count()
    assert seen["memory"] == 1024 * int(Path("/proc/meminfo").read_text().split()[1])
    assert seen["threads_per_core"] >= 1
    assert seen["versions"]["no-such"] is None
    assert seen["executables"]["bash"].endswith("/bash")
    assert seen["executables"]["no-such"] is None


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-1\n", 2), ("0,4\n", 2), ("0-3,8", 5)])
def test_counts_the_threads_of_a_core(text: str, count: int) -> None:
    """The kernel's lists of siblings are read in all their forms."""
    assert count_cpus(text) == count


def test_starting_twice_starts_once(agent: Agent) -> None:
    """A second start finds the running service and tells whether it is still what is wanted."""
    assert agent.start()["event"] == "started"
    before = agent.pids()
    again = agent.start()
    assert (again["event"], again["changed"]) == ("already", False)
    other = agent.start(script=FOREVER + " # now")
    assert (other["event"], other["changed"]) == ("already", True)
    assert agent.pids() == before


def test_replaces_what_is_no_longer_wanted(agent: Agent) -> None:
    """`replace` restarts a service whose script has changed, `fresh` one whose has not."""
    agent.start()
    first = agent.pids()
    assert agent.start(replace=True)["event"] == "already"
    assert agent.start(script=FOREVER + " # now", replace=True)["event"] == "started"
    second = agent.pids()
    assert agent.start(script=FOREVER + " # now", fresh=True)["event"] == "started"
    assert not first & second
    assert not second & agent.pids()


def test_a_service_outlives_the_client(agent: Agent) -> None:
    """When the client goes the agent ends, and what it has started does not."""
    agent.start()
    before = agent.pids()
    assert before
    assert agent.close() == 0
    assert agent.pids() == before


def test_stopping_leaves_nothing_of_the_service_and_all_of_the_others(agent: Agent) -> None:
    """Children in sessions of their own and those that ignore SIGTERM end with their service; the
    service next to it stays."""
    agent.start("neighbour")
    others = agent.pids("neighbour")
    deaf = "setsid bash -c 'trap \"\" TERM; sleep 1000 & wait; sleep 1000' & "
    agent.start(script=deaf + FOREVER)
    time.sleep(0.3)
    assert len(agent.pids()) >= 4
    assert agent.ask("stop", services=["sleeper"], grace=0.5)["event"] == "done"
    assert not agent.pids()
    assert agent.pids("neighbour") == others
    rows = agent.ask("status")["services"]
    assert {row["service"]: row["running"] for row in rows} == {"neighbour": True, "sleeper": False}


def test_a_reused_pid_is_left_alone(agent: Agent) -> None:
    """A pid file whose process has another start time, or is of another boot, names nobody."""
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        agent.start()
        agent.ask("stop", services=["sleeper"], grace=1)
        path = agent.folder / "sleeper.pid"
        seen = json.loads(path.read_text())
        right = {**seen, "pid": stranger.pid, "start_time": start_time(stranger.pid)}
        for wrong in ({"start_time": 1}, {"boot_id": "another"}):
            path.write_text(json.dumps({**right, **wrong}))
            agent.ask("stop", services=["sleeper"], grace=1)
            assert agent.start()["event"] == "started"
            agent.ask("stop", services=["sleeper"], grace=1)
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_what_a_dead_service_left_is_cleared_before_the_next_start(agent: Agent) -> None:
    """Processes of a killed service do not live beside those of its successor."""
    agent.start(script="setsid sleep 1000 & " + FOREVER)
    time.sleep(0.2)
    left = agent.pids()
    os.kill(json.loads((agent.folder / "sleeper.pid").read_text())["pid"], signal.SIGKILL)
    assert agent.event()["event"] == "exited"
    assert agent.start(script="setsid sleep 1000 & " + FOREVER)["event"] == "started"
    assert not left & agent.pids()


def test_a_service_that_dies_is_told_with_its_last_words(agent: Agent) -> None:
    """The exit code and the tail of the log come with the event."""
    agent.start(script="for n in $(seq 50); do echo line $n; done; exit 7")
    event = agent.event()
    assert (event["event"], event["code"]) == ("exited", 7)
    assert event["log"] == [f"line {n}" for n in range(31, 51)]


def test_a_log_never_outgrows_its_limit(agent: Agent) -> None:
    """Twelve MiB of output leave two files of at most 5 MiB, the newest line last."""
    agent.start(script="head -c 12000000 /dev/zero | tr '\\0' 'x' | fold; echo; echo the end")
    assert agent.event()["log"][-1] == "the end"
    sizes = [path.stat().st_size for path in agent.folder.glob("sleeper.log*")]
    assert len(sizes) == 2
    assert max(sizes) <= 5 * 2**20


def test_files_are_for_the_user_only(agent: Agent) -> None:
    """No file or folder of a service can be read by anybody else, secrets least of all."""
    agent.start(files={"token": "secret"}, script="exit 1")
    agent.event()
    paths = [agent.folder, *agent.folder.iterdir()]
    assert (agent.folder / "token").read_text() == "secret"
    assert {path.name: path.stat().st_mode & 0o077 for path in paths} == {p.name: 0 for p in paths}


def test_a_taken_port_is_named(agent: Agent) -> None:
    """A start whose port is in use says so at once, instead of leaving it to a log."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        event = agent.start(listens=[["127.0.0.1", port]])
    assert event["event"] == "failed"
    assert f"127.0.0.1:{port}: another process already listens there" in event["cause"]
    assert not agent.pids()


def test_ready_is_when_the_page_answers_to_the_headers(agent: Agent) -> None:
    """`timeout` comes with what was wrong last; a page that answers makes a service `ready`."""
    page = {"host": "127.0.0.1", "port": 1, "path": "/", "headers": {}}
    agent.start(page=page, seconds=0.3)
    event = agent.event()
    assert event["event"] == "timeout"
    assert event["cause"] == "http://127.0.0.1:1/: Connection refused"
    with socket.create_server(("127.0.0.1", 0)) as free:
        page["port"] = free.getsockname()[1]
    script = f"exec python3 -m http.server --bind 127.0.0.1 {page['port']}"
    assert agent.start("web", script, page=page)["event"] == "started"
    assert agent.event()["event"] == "ready"


def test_init_commands_run_once_each(agent: Agent) -> None:
    """A failure names the command and shows its output; the next attempt goes on there."""
    commands = ["echo one >>order", "test -e allowed || { echo no; exit 3; }", "echo two >>order"]
    failed = agent.ask("init", commands=commands)
    assert (failed["event"], failed["code"], failed["number"]) == ("exited", 3, 2)
    assert failed["log"] == ["no"]
    (agent.home / "allowed").touch()
    assert agent.ask("init", commands=commands)["ran"] == 2
    assert agent.ask("init", commands=commands)["ran"] == 0
    assert (agent.home / "order").read_text() == "one\ntwo\n"


def test_follows_logs(agent: Agent) -> None:
    """The tail comes first, then what is added, in whole lines."""
    agent.start(script="echo old; while [ ! -e go ]; do sleep 0.05; done; echo new; sleep 1000")
    time.sleep(0.3)
    event = agent.ask("logs", services=[], lines=5, follow=True)
    assert (event["service"], event["lines"]) == ("sleeper", ["old"])
    (agent.home / "go").touch()
    assert agent.event()["lines"] == ["new"]


@pytest.mark.parametrize("name", ["../x", "", "-rf", "a/b", "a\n"])
def test_no_cluster_name_leaves_the_folder(agent: Agent, name: str) -> None:
    """A name that would be another path is refused, and the agent goes on."""
    event = agent.ask("status", cluster=name)
    assert event["event"] == "failed"
    assert "is not a valid cluster name" in event["cause"]
    assert agent.ask("status")["event"] == "status"


SCHEDULER = "127.0.0.9"
NANNY = SimpleNamespace(scheduler=SimpleNamespace(addr=f"tcp://{SCHEDULER}:8786"))


def test_a_worker_goes_on_as_soon_as_its_scheduler_answers() -> None:
    """It waits while the port is closed, and no longer than a pause once it is open."""

    async def wait() -> float:
        waiting = asyncio.ensure_future(await_dask.dask_setup(NANNY))
        await asyncio.sleep(0.5)
        assert not waiting.done()

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.0 200 OK\r\n\r\nok")
            writer.close()

        opened = time.monotonic()
        async with await asyncio.start_server(answer, SCHEDULER, await_dask.DASHBOARD_PORT):
            await waiting
            return time.monotonic() - opened

    assert asyncio.run(wait()) < await_dask.PAUSE + 0.4


@pytest.mark.parametrize("opened", [False, True])
def test_a_worker_does_not_wait_forever(opened: bool) -> None:
    """Neither for a port that stays closed nor for one that is open and says nothing: Dask tries
    by itself then, and tells what is wrong."""
    with socket.socket() as mute:
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if opened:
            mute.bind((SCHEDULER, await_dask.DASHBOARD_PORT))
            mute.listen()
        patience, silence = (60.0, 0.3) if opened else (0.3, 60.0)
        began = time.monotonic()
        asyncio.run(await_dask.until_it_answers(SCHEDULER, patience, silence))
        assert 0.2 < time.monotonic() - began < 3


def test_a_worker_waits_for_the_page_that_its_scheduler_has() -> None:
    """The program on the host and the engine name the same port."""
    assert await_dask.DASHBOARD_PORT == dask.DASHBOARD_PORT
