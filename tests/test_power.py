"""A machine that powers itself off: when bilbo does not come, and when it is asked to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import time
from pathlib import Path

import asyncssh
import pytest
from ssh_hosts import Host, own_programs, running
from test_own_programs import Machine, listing

from bilbo.lifetime import INSTALL, UNIT, install_script
from bilbo.local import ssh
from bilbo.local.boot_entries import BootEntry, boot_entries, unit_entry, user_data
from bilbo.model import HostPlan, HostResult, Page, Service, StagePlan
from bilbo.remote import Deadlines, KnownHosts, Remote, bring_up
from bilbo.resources import folder

GENERATED = "# From bilbo/lifetime.py: BILBO_WRITE_DOCS=1 pytest tests/test_power.py writes it."
MACHINE = "i-0123456789abcdef0"


class Booted:
    """A machine of a stand-in without its API, whose user data have run."""

    def __init__(self, root: Path, unreached: int = 3600) -> None:
        self.machine = Machine(root)
        self.folder = self.machine.host.folder
        self.units = self.folder / "etc" / "systemd" / "system"
        self.place = self.folder / "var" / "lib" / "bilbo"
        self.script = install_script("ubuntu", unreached)
        (entry,) = user_data(self.folder, self.script.encode())
        self.entry = entry
        self.run(entry)

    def run(self, entry: BootEntry, seconds: float = 60) -> None:
        """Runs an entry to its end, or so long."""

        async def ran() -> None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ssh.run_entry(self.machine.host, entry), seconds)

        asyncio.run(ran())

    def serve(self) -> str:
        """Runs the unit until it has asked the stand-in for something, or for a second."""
        entry = unit_entry(self.folder, UNIT)
        assert entry
        asked = self.machine.root / "power" / MACHINE
        asked.unlink(missing_ok=True)

        async def ran() -> None:
            task = asyncio.ensure_future(ssh.run_entry(self.machine.host, entry))
            end = time.monotonic() + (1 if self.stays else 60)
            while not asked.exists() and time.monotonic() < end:
                await asyncio.sleep(0.02)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        asyncio.run(ran())
        return asked.read_text().strip() if asked.exists() else ""

    stays = False

    def is_left_alone(self) -> bool:
        """Whether the unit asks for nothing at its first look."""
        self.stays = True
        try:
            return self.serve() == ""
        finally:
            self.stays = False

    def mark(self, name: str, age: float = 0) -> None:
        """Leaves a file in the folder, so old."""
        (self.place / name).write_text("")
        then = time.time() - age
        os.utime(self.place / name, (then, then))

    @property
    def since(self) -> Path:
        """Where the time of the first boot is kept."""
        return self.units / "bilbo_lifetime.since"


@pytest.fixture
def booted(tmp_path: Path) -> Booted:
    before = listing()
    made = Booted(tmp_path)
    assert listing() == before
    return made


def test_user_data_install_the_unit(booted: Booted) -> None:
    """It is enabled and started, and the folder of marks is there; to run it again changes
    nothing."""
    (entry,) = boot_entries(booted.folder)
    script, folder = booted.units / "bilbo_lifetime.sh", booted.place
    assert entry.commands == (("/bin/sh", str(script), str(folder), "3600"),)
    assert (entry.user, folder.stat().st_mode & 0o777) == ("root", 0o700)
    started = booted.machine.root / "start" / f"{MACHINE}:{UNIT}"
    assert started.read_text() == f"{UNIT}\n"
    before = {path: path.read_bytes() for path in sorted(booted.units.iterdir()) if path.is_file()}
    booted.run(booted.entry)
    after = {path: path.read_bytes() for path in sorted(booted.units.iterdir()) if path.is_file()}
    assert after == before and len(before) == 2


def test_a_request_is_obeyed_once(booted: Booted) -> None:
    """The machine powers off; when it is started again, it stays."""
    booted.mark("reached")
    assert booted.is_left_alone()
    booted.mark("poweroff")
    assert booted.serve() == "poweroff"
    assert not (booted.place / "poweroff").exists()
    assert booted.is_left_alone()


def test_a_machine_that_nobody_reaches(tmp_path: Path) -> None:
    """It powers off, but for the mark. A reboot does not begin the count anew; a power-off does, or
    nobody could start the machine again."""
    booted = Booted(tmp_path, unreached=600)
    assert booted.is_left_alone()
    first = int(booted.since.read_text())
    booted.since.write_text(f"{first - 590}\n")
    assert booted.is_left_alone()  # a boot
    assert int(booted.since.read_text()) == first - 590
    booted.since.write_text(f"{first - 600}\n")
    booted.mark("reached")
    assert booted.is_left_alone()
    (booted.place / "reached").unlink()
    assert booted.serve() == "poweroff"
    assert booted.is_left_alone()
    assert int(booted.since.read_text()) >= first


def test_what_an_image_brings_along_does_not_count(booted: Booted) -> None:
    """User data take away the marks of the machine whose disk the image was made of. Those that
    bilbo has left since this boot began stay, though user data come late."""
    assert booted.is_left_alone()
    old = booted.since.read_text()
    for path in (booted.since, booted.place / "reached"):
        path.write_text("1\n")
        os.utime(path, (1, 1))
    booted.mark("poweroff", age=3600)
    booted.run(booted.entry)
    assert not booted.since.exists()
    assert list(booted.place.iterdir()) == []
    assert booted.is_left_alone() and booted.since.read_text() >= old
    booted.mark("reached")
    booted.run(booted.entry)
    assert (booted.place / "reached").exists()


def test_a_restart_replaces_what_runs(booted: Booted) -> None:
    """When its run is cancelled, a unit's processes end."""
    assert booted.is_left_alone()
    seen = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(booted.units / "bilbo_lifetime.sh") not in seen


def test_the_script_is_portable(tmp_path: Path) -> None:
    """Nothing that the linter knows to be wrong. POSIX has no -nt, but every sh of Linux has."""
    for name, text in (
        ("install", f"#!/bin/sh\nuser=a unreached=1\n{INSTALL}"),
        ("unit", "#!/bin/sh\n" + re.findall(r"<<'END'\n(.*?)\nEND\n", INSTALL, re.DOTALL)[0]),
    ):
        (tmp_path / name).write_text(f"{text}\n")
        done = subprocess.run(
            ["shellcheck", "-e", "SC3013", str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_terraform_has_the_same_script() -> None:
    """The module's file is the script as HCL. BILBO_WRITE_DOCS=1 writes it."""
    path = folder("templates") / "terraform" / "modules" / "lifetime" / "install.tf"
    text = INSTALL.replace("${", "$${").replace("%{", "%%{")
    wanted = f"{GENERATED}\n\nlocals {{\n  install = <<EOT\n{text}EOT\n}}\n"
    if os.environ.get("BILBO_WRITE_DOCS"):
        path.write_text(wanted, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == wanted


# The SSH stage


class Reached:
    """A host in an SSH stage of a cluster with a lifetime."""

    def __init__(self, folder: Path, *refuses: str) -> None:
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.key_path = folder / "key.pem"
        self.key.write_private_key(self.key_path)
        self.key_path.chmod(0o600)
        self.host = Host(folder / "a" / "b" / "host", self.key)
        self.host.home.mkdir(parents=True)
        self.machine = own_programs(self.host.home).parent
        (self.machine / "etc").mkdir(exist_ok=True)
        (self.machine / "etc" / "refuses").write_text("".join(f"{each}\n" for each in refuses))
        self.place = self.machine / "var" / "lib" / "bilbo"
        self.remote = Remote(KnownHosts(folder / "known_hosts"), Deadlines(20, 60, 60, 60))

    def brought_up(self) -> HostResult:
        """The host's result. Its init_cmd tells whether the mark was there before."""

        async def asked() -> HostResult:
            async with running(self.host):
                node = self.host.node(self.key_path)
                page = Page(node.private_ip, 7999, "/")
                server = f"exec python3 -m http.server --bind {node.private_ip} 7999"
                service = Service("server", server, page=page)
                look = f"ls {self.place} >~/found"
                plan = HostPlan(
                    node, "server", lambda _: service,
                    init_cmd=(look,), lifetime=install_script("ubuntu", 3600),
                )  # fmt: skip
                (result,) = await bring_up(StagePlan("test", notebook=plan), self.remote)
                return result

        return asyncio.run(asked())

    def found(self) -> str:
        """What init_cmd found in the folder."""
        path = self.host.home / "found"
        return path.read_text() if path.exists() else ""


def test_the_mark_is_left_first(tmp_path: Path) -> None:
    """Before `init_cmd`. On a machine that user data have not prepared, sudo does what they do."""
    host = Reached(tmp_path)
    result = host.brought_up()
    assert result.ok, result
    assert host.found() == "reached\n"
    assert (host.machine / "etc/systemd/system/multi-user.target.wants" / UNIT).exists()


def test_the_mark_needs_no_sudo(tmp_path: Path) -> None:
    """Where user data have made the folder."""
    host = Reached(tmp_path, "sudo")
    host.place.mkdir(parents=True)
    assert host.brought_up().ok
    assert host.found() == "reached\n"


@pytest.mark.parametrize(
    ("refuses", "why"), [("sudo", "var/lib/bilbo is missing"), ("systemctl-system", "systemd")]
)
def test_where_no_lifetime_can_be_kept(tmp_path: Path, refuses: str, why: str) -> None:
    """Neither `init_cmd` nor a service is started; a person is told that the machine runs on."""
    host = Reached(tmp_path, refuses)
    result = host.brought_up()
    assert (result.ok, result.stage, result.lasts) == (False, "lifetime", True)
    assert why in result.cause, result.cause
    assert "until `bilbo destroy`" in result.hint
    assert host.found() == "" and not host.host.kept.exists()
