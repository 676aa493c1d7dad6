"""Clusters that end by themselves: what the watchers decide, on hosts without a cloud."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ssh_hosts import fresh_address
from test_agent import Agent
from waiting import eventually

from bilbo.agent.deciding import BY_HAND, judge
from bilbo.agent.hearing import tell
from bilbo.agent.service import processes_with
from bilbo.remote.watching import watcher_files

PORT = 8799
AT: dict[str, Any] = {"name": "scheduler i-1", "host": "", "port": PORT, "doors": []}
LEADER: dict[str, Any] = {
    "cluster": "test",
    "name": "scheduler i-1",
    "leads": True,
    "led": True,
    "leader": AT,
    "members": [],
    "period": 0.3,
    "idle": None,
    "follow": 600,
    "setup": 3600,
    "engine": None,
    "jupyter": None,
    "left": None,
    "never": False,
    "ready": True,
}


class Watched(Agent):
    """A host whose watcher does its duty: as the leader, unless its settings say otherwise."""

    def __init__(self, home: Path, address: str) -> None:
        home.mkdir()
        super().__init__(home)
        self.machine = home.with_name(f"{home.name}.machine")
        self.power = self.machine / "var" / "lib" / "bilbo"
        self.power.mkdir(parents=True)
        self.leader = {**AT, "host": address}

    def watch(self, **more: Any) -> None:
        settings = {**LEADER, "leader": self.leader, **more}
        self.ask("watch", files=watcher_files(), settings={"deciding": settings})

    def follow(self, **more: Any) -> None:
        self.watch(name="worker i-2", leads=False, led=False, **more)

    def asked(self) -> str:
        """Why the machine was asked to power off; empty if it was not."""
        path = self.power / "poweroff"
        return path.read_text() if path.exists() else ""

    def found(self) -> dict[str, Any]:
        """What the watcher found at its last look."""
        return dict(self.ask("status")["watch"] or {})

    def log(self) -> str:
        path = self.folder / "watcher.log"
        return path.read_text() if path.exists() else ""

    def finish(self) -> None:
        self.process.kill()
        self.process.wait()
        for pid in processes_with(f"HOME={self.home}".encode()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Makes hosts of one cluster."""
    address, made = fresh_address(), list[Watched]()

    def make() -> Watched:
        made.append(Watched(tmp_path / f"home{len(made)}", address))
        return made[-1]

    yield make
    for each in made:
        each.finish()


@pytest.mark.parametrize(
    ("more", "quiet", "awake", "expected"),
    [
        ({}, 0, False, (None, "")),
        ({"left": 100}, 0, True, (1100, "its time is over")),
        ({"idle": 60}, 1010, False, (1070, "nobody has used it for 1m")),
        ({"idle": 60}, 1010, True, (None, "")),
        ({"idle": 60, "left": 30}, 1010, False, (1030, "its time is over")),
        ({"idle": 60, "left": 90}, 1010, False, (1070, "nobody has used it for 1m")),
        ({"idle": 60, "left": 90, "never": True}, 1010, False, (None, "")),
        ({"idle": 60, "hold": 500}, 1010, False, (1500, "nobody has used it for 1m")),
    ],
)
def test_when_it_ends(more: dict[str, Any], quiet: float, awake: bool, expected: object) -> None:
    """The first limit counts; idle counts only while nobody works; `--never` lifts both."""
    told = {**LEADER, "at": 1000.0, **more}
    assert judge(told, 1020, 0, quiet, awake) == expected


def test_a_machine_that_was_started_by_hand_has_half_an_hour() -> None:
    """Whatever time is over since; not so for a boot before bilbo was here last."""
    told = {**LEADER, "at": 1000.0, "left": 100, "idle": 10}
    assert judge(told, 9000, 9000, 9000, False)[0] == 9000 + BY_HAND
    assert judge(told, 1020, 900, 1000, False)[0] == 1010


def test_its_time_is_over(hosts: Callable[..., Watched]) -> None:
    """People are warned at once of a short time, in terminals, in the list of files and in the log.
    `extend` takes that back; in the end the machine is asked to power off, and says why."""
    host = hosts()
    ours, theirs = pty.openpty()
    takes = f"exec <>{shlex.quote(os.ttyname(theirs))} >&0 2>&0; exec sleep 300"
    env = {"HOME": str(host.home), "PATH": os.environ["PATH"]}
    env["BILBO_SERVICE"] = str(host.folder / "jupyter")
    shell = subprocess.Popen(["/bin/sh", "-c", takes], env=env, start_new_session=True)
    eventually(lambda: b"sleep" in Path(f"/proc/{shell.pid}/cmdline").read_bytes())
    host.watch(left=600)
    path = host.machine / "var" / "log" / "wall"
    wall = eventually(lambda: path.read_text() if path.exists() else "")
    assert "cluster test ends in 10 minutes" in wall
    assert "bilbo extend test 2h" in wall
    shell.kill()
    shell.wait()
    assert os.read(ours, 4096).replace(b"\r", b"").endswith(wall.encode())
    os.close(ours)
    os.close(theirs)
    (notice,) = host.home.glob("*.txt")
    assert (notice.name, notice.read_text()) == ("test ENDS SOON.txt", wall)
    assert "its time is over" in host.log()
    assert host.ask("extend", seconds=7200)["left"] == pytest.approx(7800, abs=30)
    eventually(lambda: not notice.exists())
    assert 7000 < host.found()["ends_in"] < 8000
    assert host.ask("extend", seconds=None)["left"] is None
    eventually(lambda: host.found()["ends_in"] is None)
    assert not host.asked()
    host.watch(left=1.0)
    assert "its time is over" in eventually(host.asked)
    ended = json.loads((host.folder / "ended").read_text())
    assert ended["why"] == "its time is over"
    assert time.time() - 60 < ended["at"] <= time.time()
    assert "it is ending already" in host.ask("extend", seconds=60)["cause"]


def test_what_keeps_it_awake(hosts: Callable[..., Watched]) -> None:
    """A computation that nothing else knows of, a login at a terminal, and what bilbo sets up: not
    idle, and said; a shell without a terminal is idle, as is one that a login left behind."""
    host = hosts()
    host.watch(idle=6, ready=False)
    eventually(lambda: host.found().get("awake") == ["bilbo is setting it up"])
    env = {"HOME": str(host.home), "PATH": os.environ["PATH"]}
    spin = "end = __import__('time').time() + 300\nwhile __import__('time').time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", spin], env=env) as spinning:
        host.watch(idle=3)
        eventually(lambda: any("of a CPU, python" in each for each in host.found()["awake"]))
        spinning.kill()
    ours, theirs = pty.openpty()
    tty = os.ttyname(theirs)
    takes = f"exec <>{shlex.quote(tty)} >&0 2>&0; SSH_TTY={{}} exec sleep 300"

    def shell(named: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/sh", "-c", takes.format(named)], env=env, start_new_session=True
        )

    with shell(tty) as login:
        wanted = [f"somebody is logged in ({tty.removeprefix('/dev/')})"]
        eventually(lambda: host.found()["awake"] == wanted)
        login.kill()
    with shell("/dev/pts/99999") as left_behind:
        eventually(lambda: host.found()["awake"] == [])
        seen = host.found()
        assert 0 < seen["ends_in"] <= 3
        assert seen["why"] == "nobody has used it for 3s"
        assert "nobody has used it for 3s" in eventually(host.asked, 20)
        left_behind.kill()
    os.close(ours)
    os.close(theirs)


def test_the_others_follow(hosts: Callable[..., Watched]) -> None:
    """What people do on a follower keeps the leader awake, which waits for whom it must hear. Its
    end is theirs; and they end when nothing of its machine answers any more."""
    leader, follower = hosts(), hosts()
    leader.watch(idle=3, members=["worker i-2"])
    quiet = "nothing has been heard yet of the worker i-2"
    eventually(lambda: leader.found().get("awake") == [quiet])
    follower.follow(ready=False)
    busy = "bilbo is setting it up on the worker i-2"
    eventually(lambda: leader.found().get("awake") == [busy])
    host = leader.leader["host"]
    for strange in (b"", b"{}\n", b"[1]\n", b"x" * 40000):
        with contextlib.suppress(OSError):
            tell_raw(host, strange)
    assert tell(host, PORT, {"name": "x", "found": []})["over"] is False
    follower.follow()
    assert "nobody has used it for 3s" in eventually(follower.asked, 20)
    assert "nobody has used it for 3s" in eventually(leader.asked, 20)
    leader.watch()
    alone = hosts()
    alone.follow(follow=2)
    eventually(lambda: not alone.found().get("trouble", "?"))
    leader.ask("stop", services=[], grace=1)
    assert "the scheduler i-1 has not answered for 2s" in eventually(alone.asked, 20)


def tell_raw(host: str, data: bytes) -> None:
    """What a stranger may send."""
    import socket

    with socket.create_connection((host, PORT), timeout=5) as connection:
        connection.sendall(data)


def test_a_leader_that_is_up_is_followed_by_nobody(hosts: Callable[..., Watched]) -> None:
    """A machine whose watcher is not heard, behind a security group say, counts as there as long as
    anything answers on it."""
    import socket

    host = hosts()
    with socket.create_server((host.leader["host"], 0)) as door:
        host.leader["doors"] = [1, door.getsockname()[1]]
        host.follow(follow=2)
        eventually(lambda: "does not hear this machine" in host.found().get("trouble", ""))
        time.sleep(2.5)
        assert not host.asked()
    assert "has not answered for 2s" in eventually(host.asked, 20)


def test_a_host_without_a_lifetime_is_not_extended(hosts: Callable[..., Watched]) -> None:
    """It says so."""
    assert "created without a lifetime" in hosts().ask("extend", seconds=60)["cause"]
