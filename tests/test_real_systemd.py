"""The unit that bilbo installs, under a real systemd: it starts the services at boot.

A user's manager runs in namespaces of its own, with its own processes, `/run` and cgroups: nothing
of this machine's systemd is asked or changed. To such a manager, its start is the boot.
"""

from __future__ import annotations

import contextlib
import json
import os
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


def inside(home: Path, name: str) -> dict[str, Any]:
    """What happens at boots, in namespaces of their own."""
    from bilbo.agent import boot
    from bilbo.agent.service import HostedService, machine
    from bilbo.remote.agent_session import agent_source

    for each in cgroups(name):
        each.mkdir()
        (each / "cgroup.procs").write_text("0")
    for argv in (["--make-rprivate", "/"], ["-t", "tmpfs", "tmpfs", "/run"]):
        subprocess.run(["mount", *argv], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    for path in ("/run/systemd/system", os.environ["XDG_RUNTIME_DIR"]):
        Path(path).mkdir(parents=True)
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


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone makes such namespaces")
def test_a_boot_starts_the_services(tmp_path: Path) -> None:
    """The unit is found and enabled, starts what should run at each boot, ends it with the machine
    or by name, and leaves ended what a person has ended. Another machine's unit, in the home that
    both have, starts nothing here."""
    probe = subprocess.run([*NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/run"], check=False)
    if probe.returncode or not all(os.access(each.parent, os.W_OK) for each in cgroups("x")):
        pytest.skip("this machine allows no namespaces or no cgroups")
    lingers = tmp_path / "bin" / "loginctl"  # would ask the machine's own logind
    lingers.parent.mkdir()
    lingers.write_text('#!/bin/sh\n[ "$1" = enable-linger ]\n')
    lingers.chmod(0o700)
    name = f"bilbo-test-{os.getpid()}"
    program = (
        "import json, test_real_systemd as t; from pathlib import Path; "
        f"print(json.dumps(t.inside(Path({str(tmp_path)!r}), {name!r})))"
    )
    around = {
        "PATH": f"{lingers.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": "/run/user/0",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    try:
        done = subprocess.run(
            [*NAMESPACES, sys.executable, "-c", program],
            env=around, capture_output=True, text=True, check=False, timeout=500,
        )  # fmt: skip
    finally:
        for each in cgroups(name):
            for folder in sorted((f for f in each.rglob("*") if f.is_dir()), reverse=True):
                folder.rmdir()
            if each.is_dir():
                each.rmdir()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
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
