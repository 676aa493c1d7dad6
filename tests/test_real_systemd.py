"""The units that bilbo installs, under a real systemd: one starts the services at boot, one powers
the machine off.

A user's manager runs in namespaces of its own, with its own processes, `/run` and cgroups: nothing
of this machine's systemd is asked or changed. To such a manager, its start is the boot.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MANAGER = "/lib/systemd/systemd"
UNIT = "bilbo-test-i-1.service"
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts")
# Where the hierarchies of cgroups that systemd uses are, by what /proc/self/cgroup calls them.
ROOTS = {
    "name=systemd": ["/sys/fs/cgroup/systemd"],
    "": ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"],
}


def until(check: Callable[[], Any], seconds: float = 60) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def cgroups(name: str) -> Iterator[Path]:
    """The folders of a cgroup in those hierarchies that systemd uses."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kind, path = line.split(":", 2)
        there = [each for each in ROOTS.get(kind, ()) if Path(each, "cgroup.procs").exists()]
        if there:
            yield Path(there[0] + path, name)


def systemctl(*words: str) -> str:
    """What the manager answers."""
    done = subprocess.run(
        ["systemctl", "--user", *words], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.strip()


@contextlib.contextmanager
def booted() -> Iterator[None]:
    """A manager from its start to its end, which ends what it has started."""
    manager = subprocess.Popen(
        [MANAGER, "--user", "--log-target=console", "--log-level=warning"], stdout=sys.stderr
    )
    try:
        assert until(lambda: systemctl("is-system-running") in ("running", "degraded"))
        yield
    finally:
        manager.send_signal(signal.SIGTERM)
        manager.wait(60)


def settle_in(name: str) -> None:
    """Gives this process, in namespaces of its own, what a manager needs."""
    for each in cgroups(name):
        each.mkdir()
        (each / "cgroup.procs").write_text("0")
    for argv in (["--make-rprivate", "/"], ["-t", "tmpfs", "tmpfs", "/run"]):
        subprocess.run(["mount", *argv], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    for path in ("/run/systemd/system", os.environ["XDG_RUNTIME_DIR"]):
        Path(path).mkdir(parents=True)


def inside(home: Path, name: str) -> dict[str, Any]:
    """What happens at boots, in namespaces of their own."""
    from bilbo.agent import boot
    from bilbo.agent.service import HostedService, machine
    from bilbo.remote.agent_session import agent_source

    settle_in(name)
    sleeper, another = (
        HostedService(home / ".bilbo" / "test" / name, "sleeper") for name in ("i-1", "i-2")
    )
    for service in (sleeper, another):
        service.folder.mkdir(parents=True)
        for module in ("service", "supervisor"):
            (service.folder / f"{module}.py").write_text(agent_source(module))
        service.file(".sh").write_text("echo here we are; exec sleep 1000")
        service.file(".wanted").write_text(machine())
    found: dict[str, Any] = {}
    with booted():
        boot.user_unit("test", sleeper.folder)
        vars(boot)["machine_id"] = lambda: "f" * 32  # another machine of the same home
        boot.user_unit("test", another.folder)
        found["installed"] = [systemctl("is-enabled", UNIT), sleeper.supervisor()]
    with booted():
        found["boot"] = until(sleeper.supervisor) and until(lambda: len(sleeper.members()) == 2)
        found["state"] = systemctl("is-active", UNIT)
        found["another"] = another.supervisor()
        first = sleeper.supervisor()
        systemctl("restart", UNIT)
        found["restart"] = until(lambda: sleeper.supervisor() not in (None, first))
        systemctl("stop", UNIT)
        found["stop"] = until(lambda: not sleeper.members())
        systemctl("start", UNIT)
        found["start"] = until(sleeper.supervisor)
    found["shutdown"] = until(lambda: not sleeper.members())
    sleeper.file(".wanted").unlink()
    with booted():
        found["ended"] = [systemctl("is-active", UNIT), sleeper.supervisor()]
    return found


def powered(home: Path, name: str) -> dict[str, Any]:
    """What becomes of a machine whose user data bilbo has written."""
    from bilbo.lifetime import UNIT as LIFETIME
    from bilbo.lifetime import install_script

    settle_in(name)
    units, marks, off = home / "etc/systemd/system", home / "var/lib/bilbo", home / "off"
    (units / "default.target.wants").mkdir(parents=True)
    (units / "multi-user.target").write_text("[Unit]\nDescription=as a system has it\n")
    (units / "default.target.wants" / "multi-user.target").symlink_to("../multi-user.target")
    # Which systemctl the unit finds.
    path = f"Environment=PATH={home}/bin:{os.defpath}"
    (units / f"{LIFETIME}.d").mkdir()
    (units / f"{LIFETIME}.d" / "path.conf").write_text(f"[Service]\n{path}\n")
    script = home / "part-001"
    script.write_text(install_script("root", 3600))
    found: dict[str, Any] = {}
    with booted():
        for _ in range(2):
            subprocess.run(["sh", str(script)], check=True)
        found["installed"] = [systemctl("is-enabled", LIFETIME), str(marks.is_dir())]
        found["first"] = until(lambda: systemctl("is-active", LIFETIME) == "active")
        assert systemctl("show", "-p", "Environment", LIFETIME) == path
        (marks / "reached").write_text("")
        first = systemctl("show", "-p", "MainPID", LIFETIME)
        systemctl("kill", "--signal=KILL", LIFETIME)
        found["again"] = until(lambda: systemctl("show", "-p", "MainPID", LIFETIME) != first)
    with booted():
        found["boot"] = until(lambda: systemctl("is-active", LIFETIME) == "active")
        found["stays"] = not off.exists()
        (marks / "poweroff").write_text("a test\n")
        found["obeyed"] = until(off.exists)
        found["once"] = not (marks / "poweroff").exists()
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone makes such namespaces")
def test_a_boot_starts_the_services(tmp_path: Path) -> None:
    """The unit is found and enabled, starts what should run at each boot, ends it with the machine
    or by name, and leaves ended what a person has ended. Another machine's unit, in the home that
    both have, starts nothing here."""
    # Would ask the machine's own logind.
    program(tmp_path, "loginctl", '[ "$1" = enable-linger ]')
    assert happens(inside, tmp_path) == {
        "installed": ["enabled", None],
        "boot": True,
        "state": "active",
        "another": None,
        "restart": True,
        "stop": True,
        "start": True,
        "shutdown": True,
        "ended": ["active", None],
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone makes such namespaces")
def test_the_unit_powers_a_machine_off(tmp_path: Path) -> None:
    """User data, run twice, install a unit that runs at once and at each boot, is started again
    when it dies, and has the machine power off when that is asked for."""
    # Here a user's manager stands for the system's, and must not power this machine off.
    systemd = shutil.which("systemctl")
    lines = f"""[ "$1" != poweroff ] || exec touch "{tmp_path}/off"\nexec {systemd} --user "$@"\n"""
    program(tmp_path, "systemctl", lines)
    units = f"{tmp_path}/etc/systemd/system:"
    assert happens(powered, tmp_path, SYSTEMD_UNIT_PATH=units) == {
        "installed": ["enabled", "True"],
        "first": True,
        "again": True,
        "boot": True,
        "stays": True,
        "obeyed": True,
        "once": True,
    }


def program(folder: Path, name: str, text: str) -> None:
    """Writes a program that is found before this machine's."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)


def happens(
    what: Callable[[Path, str], dict[str, Any]], tmp_path: Path, **more: str
) -> dict[str, Any]:
    """What a function finds in namespaces of its own."""
    probe = subprocess.run([*NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/run"], check=False)
    if probe.returncode or not all(os.access(each.parent, os.W_OK) for each in cgroups("x")):
        pytest.skip("this machine allows no namespaces or no cgroups")
    name = f"bilbo-test-{os.getpid()}"
    text = (
        "import json, test_real_systemd as t; from pathlib import Path; "
        f"print(json.dumps(t.{what.__name__}(Path({str(tmp_path)!r}), {name!r})))"
    )
    around = {
        **more,
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": "/run/user/0",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    try:
        done = subprocess.run(
            [*NAMESPACES, sys.executable, "-c", text],
            env=around, capture_output=True, text=True, check=False, timeout=500,
        )  # fmt: skip
    finally:
        for each in cgroups(name):
            for folder in sorted((f for f in each.rglob("*") if f.is_dir()), reverse=True):
                folder.rmdir()
            if each.is_dir():
                each.rmdir()
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
