"""Services that die, or whose host boots: they are started again, until stopped or a limit."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_agent import FOREVER, Agent
from waiting import eventually

from bilbo.agent import boot
from bilbo.agent.service import processes_with
from bilbo.local.boot_entries import boot_entries
from bilbo.remote.agent_session import agent_source

PAUSES = "PAUSES = (2, 4, 8, 16, 32)"
QUICK = agent_source("supervisor").replace(PAUSES, "PAUSES = (0.3,) * 5")


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


def machine(host: Agent) -> Path:
    """The folder that the host's own programs act on."""
    return host.home.with_name("home.machine")


def kept(host: Agent, script: str = FOREVER, **fields: Any) -> dict[str, Any]:
    """Start a service that is kept from then on; the answer to that."""
    host.start(script=script, supervisor=QUICK, **fields)
    return host.ask("keep", service="sleeper")


def status(host: Agent) -> dict[str, Any]:
    (row,) = host.ask("status")["services"]
    return dict(row)


def kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_service_that_dies_is_started_again(host: Agent) -> None:
    """Its end is in the log and in the status, and what it left behind does not stay beside it."""
    assert PAUSES in agent_source("supervisor")
    began = time.time()
    kept(host, "setsid sleep 1000 & " + FOREVER)
    row = status(host)
    assert (row["running"], row["wanted"], row["restarts"], row["ended"]) == (True, True, 0, [])
    assert 0 <= row["age"] < time.time() - began + 1
    left = host.pids(program=b"sleep")
    eventually(lambda: len(host.pids(program=b"sleep")) == 2)
    left = host.pids(program=b"sleep")
    supervisor = json.loads((host.folder / "sleeper.pid").read_text())["pid"]
    (main,) = (pid for pid in left if os.getpgid(pid) == supervisor)
    os.kill(main, signal.SIGKILL)
    eventually(lambda: len(host.pids(program=b"sleep") - left) == 2)
    assert not left & host.pids()
    after = eventually(lambda: None if (found := status(host))["restarting"] else found)
    assert (after["running"], after["restarts"], after["code"]) == (True, 1, None)
    assert after["age"] < time.time() - after["ended"][0]["at"]
    assert [each["code"] for each in after["ended"]] == [-9]
    log = host.ask("logs", services=[], lines=5, follow=False)["lines"]
    assert log[-1] == "here we are"
    assert log[-2].endswith("sleeper ended with signal 9; it is started again in 0.3 s")


def test_there_is_a_limit(host: Agent) -> None:
    """The sixth death in ten minutes is the last, and told as such; the pauses grow."""
    kept(host, "[ -e go ] || sleep 1000 & wait; echo ran; exit 5")
    (host.home / "go").touch()
    kill(host.pids(program=b"sleep"))
    row = eventually(lambda: (found := status(host))["running"] or found, 15)
    row = eventually(lambda: None if (found := status(host))["running"] else found, 15)
    assert (row["code"], row["restarts"], len(row["ended"])) == (5, 5, 6)
    assert not row["restarting"]
    log = host.ask("logs", services=[], lines=20, follow=False)["lines"]
    assert log[-1].endswith("exit code 5, 6 times in 10 minutes: it is not started again")
    pauses = json.loads(f"[{PAUSES.partition('(')[2][:-1]}]")
    assert pauses == sorted(set(pauses))
    assert len(pauses) == 5


def test_a_first_start_that_fails_is_not_repeated(host: Agent) -> None:
    """It ends at once, with its exit code, as if nobody started anything again."""
    host.start(script="echo ran; exit 7", supervisor=QUICK)
    event = host.event()
    assert (event["event"], event["code"], event["log"]) == ("exited", 7, ["ran"])
    row = status(host)
    assert (row["wanted"], row["restarts"], len(row["ended"])) == (False, 0, 1)


@pytest.mark.parametrize("waiting", [False, True])
def test_what_bilbo_ends_stays_ended(host: Agent, waiting: bool) -> None:
    """Also in the pause before a restart."""
    slow = agent_source("supervisor").replace(PAUSES, "PAUSES = (60,) * 5")
    host.start(script=FOREVER, supervisor=slow)
    host.ask("keep", service="sleeper")
    if waiting:
        kill(host.pids(program=b"sleep"))
        eventually(lambda: status(host)["ended"])
    began = time.monotonic()
    assert host.ask("stop", services=["sleeper"], grace=5)["event"] == "done"
    assert time.monotonic() - began < 3
    row = status(host)
    assert (row["running"], row["wanted"], row["restarts"]) == (False, False, 0)
    assert not host.pids()


def test_a_killed_supervisor_is_told(host: Agent) -> None:
    """The service runs without it, and is started anew; what only sleeps in another session, as a
    kernel does, is not the service. A death that the supervisor saw keeps its exit code."""
    kept(host, "setsid sleep 500 & " + FOREVER)
    eventually(lambda: len(host.pids(program=b"sleep")) == 2)
    before = host.pids(program=b"sleep")
    supervisor = json.loads((host.folder / "sleeper.pid").read_text())["pid"]
    os.kill(supervisor, signal.SIGKILL)
    row = eventually(lambda: found if (found := status(host))["unsupervised"] else None)
    assert (row["running"], row["restarting"], row["code"]) == (True, False, None)
    assert row["age"] is not None and host.pids(program=b"sleep") == before
    kill({pid for pid in before if os.getpgid(pid) == supervisor})
    row = eventually(lambda: None if (found := status(host))["running"] else found)
    assert (row["unsupervised"], row["code"], len(host.pids(program=b"sleep"))) == (False, None, 1)
    assert kept(host)["event"] == "kept"
    assert not before & host.pids()

    slow = agent_source("supervisor").replace(PAUSES, "PAUSES = (60,) * 5")
    host.start(script=FOREVER, supervisor=slow, fresh=True)
    host.ask("keep", service="sleeper")
    kill(host.pids(program=b"sleep"))
    eventually(lambda: status(host)["restarting"])
    kill({json.loads((host.folder / "sleeper.pid").read_text())["pid"]})
    row = eventually(lambda: None if (found := status(host))["running"] else found)
    assert (row["unsupervised"], row["code"]) == (False, -9)


def test_a_boot_starts_what_ran(host: Agent) -> None:
    """By the unit's own command, in the environment of before; neither what was stopped, nor what
    ran on another machine, whose disk was copied."""
    script = 'echo "$BILBO_AGAIN:$FROM_LOGIN:$SSH_CLIENT:$PWD:$(command -v sudo)"; ' + FOREVER
    other = Agent(host.home, "export FROM_LOGIN=yes SSH_CLIENT=gone\n")
    assert kept(other, script)["way"] == "systemd"
    other.start("stopped")
    other.ask("keep", service="stopped")
    other.ask("stop", services=["stopped"], grace=1)
    (host.folder / "copied.sh").write_text(FOREVER)
    (host.folder / "copied.wanted").write_text("i-another")
    other.process.kill()
    other.process.wait()
    host.process.kill()
    host.process.wait()
    kill(processes_with(f"HOME={host.home}".encode()))
    (host.home / ".bash_profile").unlink()
    (entry,) = boot_entries(machine(host))
    assert entry.user == boot.user_name()
    for _ in range(2):  # the second changes nothing
        for command in entry.commands:
            subprocess.run(
                command, env={"HOME": str(host.home), "PATH": "/usr/bin:/bin"}, check=True
            )
        eventually(lambda: host.pids(program=b"sleep"))
    log = (host.folder / "sleeper.log").read_text().splitlines()
    own = machine(host) / "own" / "sudo"
    assert log == [f"1:yes::{host.home}:{own}", "here we are"]
    assert not host.pids("stopped") | host.pids("copied")


def test_the_best_boot_entry_that_the_host_allows(host: Agent) -> None:
    """A systemd unit, else one of the user's own with lingering, else a crontab, else none, with
    the causes. What is installed twice is there once."""
    etc = machine(host) / "etc"
    etc.mkdir()
    found = {}
    for refused in ("", "sudo", "loginctl", "crontab"):
        with (etc / "refuses").open("a") as file:
            file.write(f"{refused}\n")
        kept(host)
        event = kept(host)
        entries = [each.where.name for each in boot_entries(machine(host))]
        found[event["way"]] = (event["why"], entries)
        for path in etc.rglob("*.service"):
            path.unlink()
        for path in (machine(host) / "var").rglob("*"):
            if path.is_file():
                path.unlink()
    assert {way: entries for way, (_, entries) in found.items()} == {
        "systemd": ["bilbo-test.service"],
        "user": [],  # the stand-in's machines have their home elsewhere
        "crontab": ["root"],
        "": [],
    }
    own = host.home / ".config/systemd/user"
    assert (
        (own / "default.target.wants" / "bilbo-test-test.service")
        .read_text()
        .endswith("WantedBy=default.target\n")
    )
    assert found[""][0] == (
        "sudo -n: sudo: a password is required; loginctl enable-linger: Could not enable linger: "
        "Access denied; crontab -l: You (root) are not allowed to use this program (crontab)"
    )


def test_a_crontab_of_ones_own_stays(host: Agent) -> None:
    """bilbo's line goes beside what is there, once."""
    machine(host).joinpath("etc").mkdir()
    machine(host).joinpath("etc", "refuses").write_text("sudo\nloginctl\n")
    table = machine(host) / "var" / "spool" / "cron" / "root"
    table.parent.mkdir(parents=True)
    table.write_text("1 2 * * * mine\n")
    for _ in range(2):
        assert kept(host, fresh=True)["way"] == "crontab"
    mine, line = table.read_text().splitlines()
    assert mine == "1 2 * * * mine"
    assert line.startswith("@reboot ")
    assert line.endswith(f" -I -S {host.folder}/service.py # bilbo: test")


@pytest.mark.parametrize("target", ["multi-user.target", "default.target"])
def test_units_are_what_systemd_takes(tmp_path: Path, target: str) -> None:
    """systemd's own check finds nothing in them, whatever the folder's name."""
    folder = tmp_path / 'a "b" $HOME 100% \\c'
    folder.mkdir()
    user = f"User={boot.user_name()}\n" if target.startswith("multi") else ""
    path = tmp_path / boot.unit_name("demo.x-1")
    condition = "" if user else f"ConditionHost={'0123456789abcdef' * 2}\n"
    path.write_text(boot.unit("demo.x-1", folder, target, user=user, condition=condition))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    wrong = tmp_path / "wrong.service"
    wrong.write_text(path.read_text().replace("ExecStart=", "ExecSTART="))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(wrong)], capture_output=True, text=True, check=False
    )
    assert "ExecSTART" in done.stderr
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / path.name).write_text(path.read_text())
    (entry,) = boot_entries(tmp_path)
    assert list(entry.commands[0]) == boot.starter(folder)
    assert shlex.split(" ".join(map(shlex.quote, boot.starter(folder)))) == boot.starter(folder)
