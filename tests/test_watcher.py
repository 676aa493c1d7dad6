"""The watcher: one resident process a machine and cluster, and its duties."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_agent import FOREVER, Agent
from waiting import eventually

from bilbo.agent.service import processes_with
from bilbo.remote.agent_session import agent_source
from bilbo.remote.watching import watcher_program

# A duty that counts its looks into a file, and fails at the first.
COUNTS = """
import json, pathlib
from bilbo.agent.watcher import Duty

def duties(folder):
    looks = []
    def look():
        looks.append(1)
        if len(looks) == 1:
            raise ValueError("the first look")
        told = json.loads((folder / "counts.json").read_text())
        (folder / "looks").write_text(f"{len(looks)} {told['said']}")
    return [Duty(0.1, look)]
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Agent]:
    home = tmp_path / "home"
    home.mkdir()
    found = Agent(home)
    yield found
    found.process.kill()
    found.process.wait()
    for pid in processes_with(f"HOME={home}".encode()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def program(more: str = "") -> dict[str, str]:
    """The watcher's files, with the duty above."""
    text = watcher_program(()).replace("for name, source in SOURCES", ADDED, 1)
    return {
        "watcher.py": text.replace("in ()]", "in ('counts',)]") + more,
        "supervisor.py": agent_source("supervisor"),
        "service.py": agent_source("service"),
    }


ADDED = f"for name, source in [*SOURCES, ('bilbo.agent.counts', {COUNTS!r})]"


def watch(host: Agent, said: str, **files: str) -> None:
    host.ask("watch", files=files, settings={"counts": {"said": said}})


def looks(host: Agent, said: str) -> int:
    """How often the present watcher has looked, once it has with these settings."""

    def found() -> int | None:
        path = host.folder / "looks"
        count, _, told = path.read_text().partition(" ") if path.exists() else ("", "", "")
        return int(count) if told == said else None

    return eventually(found)


def pids(host: Agent) -> set[int]:
    found = set()
    for pid in host.pids("watcher"):
        with contextlib.suppress(OSError):
            if b"watcher.py\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def test_the_watcher_keeps_its_duties(host: Agent) -> None:
    """It looks again after a look that failed, takes new settings as it is, stays one, outlives the
    agent, is replaced by another program, comes again when it is killed, and ends with
    all services."""
    watch(host, "one", **program())
    looks(host, "one")
    (before,) = eventually(lambda: pids(host))
    watch(host, "two")
    looks(host, "two")
    watch(host, "three", **program())
    looks(host, "three")
    assert pids(host) == {before}
    assert "ValueError: the first look" in (host.folder / "watcher.log").read_text()
    assert json.loads((host.folder / "counts.json").read_text())["at"] > 1e9
    assert (host.folder / "counts.json").stat().st_mode & 0o077 == 0
    watch(host, "four", **program("# newer\n"))
    looks(host, "four")
    (after,) = eventually(lambda: pids(host))
    assert after != before
    host.process.kill()
    host.process.wait()
    os.kill(after, signal.SIGKILL)
    (again,) = eventually(lambda: pids(host) - {after}, 30)
    host.process = Agent(host.home).process
    watch(host, "five")
    looks(host, "five")
    assert pids(host) == {again}
    host.start(script=FOREVER)
    assert pids(host) == {again}
    host.start(script=FOREVER, unwatched=["counts"])
    assert not pids(host)
    assert not (host.folder / "counts.json").exists()
    watch(host, "six")
    assert eventually(lambda: pids(host))
    host.ask("stop", services=[], grace=5)
    assert not pids(host)
