"""A person's own commands wait for the host's first boot, and each runs once where it stands."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from dataclasses import replace
from pathlib import Path

import asyncssh
import psutil
from cli_hosts import key_pair
from reliability import told
from ssh_hosts import Host, running
from waiting import eventually

from bilbo.agent.first_boot import lock_holder
from bilbo.model import HostPlan, HostResult, Page, Service, StagePlan
from bilbo.present.report import failures
from bilbo.remote import Deadlines, HostEvent, KnownHosts, Remote, bring_up

QUICK = Deadlines(connect=5, start=20, ready=20, new_key=0.3)


def booting(place: Path, script: str) -> Host:
    """A host with a cloud-init of its own."""
    key = key_pair(place)
    programs = place / "bin"
    programs.mkdir()
    (programs / "cloud-init").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "cloud-init").chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin"
    return Host(place / "home", asyncssh.read_private_key(key), path=path)


def prepared(
    host: Host, *stages: tuple[str, ...], init: float = 20.0
) -> tuple[list[HostResult], list[HostEvent]]:
    """The results of stages with these `init_cmd`, one after the other, and what was told."""
    events: list[HostEvent] = []
    remote = Remote(
        KnownHosts(host.home.parent / "known_hosts"), replace(QUICK, init=init), events.append
    )

    async def main() -> list[HostResult]:
        results: list[HostResult] = []
        async with running(host):
            node = host.node(host.home.parent / "key.pem")
            server = f"exec python3 -m http.server --bind {node.private_ip} 7999"
            service = Service("web", server, page=Page(node.private_ip, 7999, "/"))
            for commands in stages:
                plan = HostPlan(node, "web", lambda _: service, init_cmd=commands)
                results += await bring_up(StagePlan("test", notebook=plan), remote)
        return results

    return asyncio.run(main()), events


def test_commands_are_known_by_place_and_text(tmp_path: Path) -> None:
    """The same command twice runs twice; one that has changed runs again, the others do not."""
    host = booting(tmp_path, "true")
    one = ("echo update >>ran", "echo add >>ran", "echo update >>ran", "echo install >>ran")
    two = (*one[:3], "echo other >>ran")
    results, events = prepared(host, one, one, two)
    assert all(result.ok for result in results)
    ran = (host.home / "ran").read_text().split()
    assert ran == ["update", "add", "update", "install", "other"]
    assert not [each for each in events if each.stage == "boot"]
    told("`init_cmd` has one command twice, and runs again with another", "nothing", 0,
         "the host, on which each has run once at its place")  # fmt: skip


def test_what_an_earlier_bilbo_ran_is_not_run_again(tmp_path: Path) -> None:
    """It remembered the text alone."""
    host = booting(tmp_path, "true")
    folder = host.home / ".bilbo" / "test"
    folder.mkdir(parents=True)
    (folder / "init.done").write_text('["echo one >>ran"]')
    (result,), _ = prepared(host, ("echo one >>ran", "echo two >>ran"))
    assert result.ok
    assert (host.home / "ran").read_text() == "two\n"


def test_the_first_boot_is_waited_for(tmp_path: Path) -> None:
    """A line says so; what cloud-init has put on PATH by then is found; and once the commands have
    run, nobody asks again."""
    host = booting(
        tmp_path,
        f'echo "$*" >>{tmp_path}/asked; sleep 2; cd {tmp_path}; '
        "echo touch from-new-program >bin/new-program; chmod +x bin/new-program",
    )
    (first, second), events = prepared(host, ("new-program",), ("new-program",))
    assert first.ok and second.ok
    assert (host.home / "from-new-program").exists()
    assert (tmp_path / "asked").read_text() == "status --wait\n"
    said = [each.message for each in events if each.stage == "boot"]
    assert said == ["waiting: cloud-init is still setting up the host"]


def test_a_first_boot_without_end_is_named(tmp_path: Path) -> None:
    """After the deadline of `init_cmd`; nothing has run, and no cloud-init of ours is left."""
    host = booting(tmp_path, f"echo $$ >{tmp_path}/pid; exec sleep 1000")
    (result,), _ = prepared(host, ("touch ran",), init=1.5)
    assert (result.stage, result.ok) == ("boot", False)
    assert not (host.home / "ran").exists()
    waiting = int((tmp_path / "pid").read_text())
    # Killed, it is there until init has taken note.
    eventually(lambda: not psutil.pid_exists(waiting))
    told(
        "cloud-init on a host does not end, and the profile has `init_cmd`",
        "\n".join(failures([result], {result.node.instance_id: 1})),
        3,
        "the other hosts, which were not held up",
    )


def test_who_holds_a_lock_is_named(tmp_path: Path) -> None:
    """Of dpkg, apt and rpm by the kernel's own list, which needs no right to read the file; of dnf
    by its pid file."""
    lock, pid_file = tmp_path / "lock", tmp_path / "dnf.pid"
    assert lock_holder([str(lock)], [str(pid_file)]) == ""
    with lock.open("w") as file:
        assert lock_holder([str(lock)], []) == ""
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert lock_holder([str(lock)], []).endswith(f"({os.getpid()}) holds {lock}")
    assert lock_holder([str(lock)], []) == ""
    pid_file.write_text(f"{os.getpid()}\n")
    assert lock_holder([], [str(pid_file)]).endswith(f"({os.getpid()}) holds {pid_file}")
    pid_file.write_text("4194304999\n")
    assert lock_holder([], [str(pid_file)]) == ""
