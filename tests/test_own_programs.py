"""A stand-in host's own sudo, systemctl and the like: found first, and for its folder alone."""

from __future__ import annotations

import asyncio
import re
import shlex
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest
from ssh_hosts import fresh_address

from bilbo.local import ssh
from bilbo.local.own_programs import PROGRAMS, REFUSED, lay_out

# Before all else: nothing below may call a program by a name that leads to this machine's.
RESETS = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nexport PATH\n"
NAMES = " ".join(PROGRAMS)
FIND = f"for name in {NAMES}; do command -v $name || echo none; done"

WAYS = [
    FIND,
    f"bash -c '{FIND}'",
    f"bash -lc '{FIND}'",
    f"bash --login -c '{FIND}'",
    f"sudo -n bash -c '{FIND}'",
    f"sudo -i '{FIND}'",
    f"sh -c {shlex.quote(f'bash -l -c {shlex.quote(FIND)}')}",
]


class Machine:
    """A machine of a stand-in without its API."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.host = ssh.Host(
            instance_id="i-0123456789abcdef0",
            address=fresh_address(),
            port=0,
            public_key=self.key.export_public_key(),
            folder=root / "instances" / "i-0123456789abcdef0",
            mark=str(root),
            host_key=asyncssh.generate_private_key("ssh-ed25519"),
        )
        lay_out(root / "own")
        ssh.make_home(self.host)

    @asynccontextmanager
    async def connected(self, user: str) -> AsyncIterator[asyncssh.SSHClientConnection]:
        listener = socket.create_server((self.host.address, 0))
        server = await ssh.listen(self.host, listener)
        try:
            async with asyncssh.connect(
                self.host.address, server.get_port(), username=user, client_keys=[self.key],
                known_hosts=None, config=None,
            ) as connection:  # fmt: skip
                yield connection
        finally:
            server.close()

    def run(self, command: str, user: str = "ubuntu") -> tuple[int, str]:
        """The exit code of a command on the machine, and all that it says."""
        return self.run_each([command], user)[0]

    def run_each(self, commands: list[str], user: str = "ubuntu") -> list[tuple[int, str]]:
        """As `run`, one after the other over one connection."""

        async def asked() -> list[tuple[int, str]]:
            found = []
            async with self.connected(user) as connection:
                for command in commands:
                    done = await connection.run(command, stderr=asyncssh.STDOUT)
                    found.append((done.exit_status or 0, str(done.stdout)))
            return found

        return asyncio.run(asked())

    def typed(self, command: str) -> str:
        """What a login shell on a terminal says to a command."""

        async def asked() -> str:
            async with self.connected("root") as connection:
                done = await connection.run(
                    input=f"{command}\nexit\n", term_type="dumb", stderr=asyncssh.STDOUT
                )
            return str(done.stdout)

        return asyncio.run(asked())

    def finds_its_own(self, said: str) -> bool:
        """Whether each program was found in the machine's folder."""
        return said.split() == [f"{self.host.own}/{name}" for name in PROGRAMS]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("user", ["ubuntu", "root"])
def test_its_own_programs_are_found_first(machine: Machine, user: str) -> None:
    """By commands, login shells and sudo, whatever the machine's or the user's profile files make
    of PATH."""
    for profile, text in ((".hushlogin", ""), (".profile", RESETS), (".bash_profile", RESETS)):
        with (machine.host.home / profile).open("a") as file:
            file.write(text)
        for command, (_, said) in zip(WAYS, machine.run_each(WAYS, user), strict=True):
            assert machine.finds_its_own(said), f"{profile}: {command}: {said}"


def test_a_terminal_finds_its_own_programs(machine: Machine) -> None:
    """A login shell on a terminal does, too, with profile files that set PATH anew."""
    (machine.host.home / ".bash_profile").write_text(RESETS)
    said = machine.typed(f"echo from; {FIND}; echo to")
    (found,) = re.findall(r"\nfrom\n(.*?)\nto\n", said.replace("\r", ""), re.DOTALL)
    assert machine.finds_its_own(found), said


def test_python_finds_its_own_programs(machine: Machine) -> None:
    """What bilbo's agent does, below a login shell that sets PATH anew."""
    (machine.host.home / ".bash_profile").write_text(RESETS)
    look = f"import shutil; print(*map(shutil.which, {list(PROGRAMS)}))".replace("'", '\\"')
    said = machine.run(f"bash -lc 'cd / && exec python3 -c \"{look}\"'")
    assert machine.finds_its_own(said[1])


def test_bash_is_bash(machine: Machine) -> None:
    """The host's bash passes on arguments, input, options, and exit codes."""
    (machine.host.home / "script.sh").write_text('echo "$1"\n')
    wanted = {
        "bash -c 'echo \"$0\" \"$2\"; exit 7' a b 'c  d'": (7, "a c  d\n"),
        "bash -lc 'echo \"$0\" \"$2\"; exit 7' a b 'c  d'": (7, "a c  d\n"),
        "echo 'echo in; exit 3' | bash": (3, "in\n"),
        "echo 'echo in; exit 3' | bash -l": (3, "in\n"),
        "bash -lc": (2, "/bin/bash: -c: option requires an argument\n"),
        "bash script.sh 'a b'": (0, "a b\n"),
        "bash -eo pipefail -c 'false | true; echo no'": (1, ""),
    }
    assert dict(zip(wanted, machine.run_each(list(wanted)), strict=True)) == wanted


UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
PUT = f"printf {shlex.quote(UNIT)} | sudo -n tee $(systemctl show -p UnitPath --value)/x.service"


def listing() -> dict[str, list[str]]:
    """What of this machine the programs of these names would change."""
    places = ("/etc/systemd/system", "/var/spool/cron", "/var/lib/systemd/linger")
    return {place: sorted(str(path) for path in Path(place).rglob("*")) for place in places}


@pytest.mark.parametrize("user", ["ubuntu", "root"])
def test_they_act_on_the_machines_folder_alone(machine: Machine, user: str) -> None:
    """Units, lingering, crontabs and reboots: as root too, nothing of this machine changes."""
    before = listing()
    wanted = {
        "sudo -n systemctl daemon-reload": (0, ""),
        "systemctl is-system-running": (0, "running\n"),
        "sudo systemctl enable --now y.service": (
            1, "Failed to enable unit: Unit file y.service does not exist.\n",
        ),
        f"{PUT} >/dev/null && sudo -n systemctl enable x.service": (0, ""),
        "systemctl is-enabled x.service": (0, "enabled\n"),
        "systemctl --user is-enabled x.service": (1, "disabled\n"),
        "sudo systemctl disable x": (0, ""),
        "sudo systemctl disable x.service; systemctl is-enabled x.service": (1, "disabled\n"),
        "systemctl restart x.service": (
            (0, "") if user == "root" else
            (1, "Failed to restart unit: Interactive authentication required.\n")
        ),
        "sudo systemctl start x.service": (0, ""),
        "sudo systemctl stop x.service": (
            1, "systemctl: a stand-in host does not know 'stop'\n",
        ),
        "sudo chown nobody:nogroup .; ls -d .": (0, ".\n"),
        "loginctl enable-linger": (0, ""),
        "crontab -l": (1, f"no crontab for {user}\n"),
        "echo '@reboot true' | crontab - && crontab -l": (0, "@reboot true\n"),
        "sudo reboot": (0, ""),
        "sudo -n -- shutdown -h now": (0, ""),
        "sudo /sbin/reboot": (
            1,
            "sudo: /sbin/reboot is the machine's underneath: call it reboot on a stand-in host\n",
        ),
        "sudo FROM=here sh -c 'echo $FROM $SUDO_USER'": (0, f"here {user}\n"),
    }  # fmt: skip
    assert dict(zip(wanted, machine.run_each(list(wanted), user), strict=True)) == wanted
    assert (machine.root / "power" / machine.host.instance_id).read_text() == "poweroff\n"
    assert (machine.host.folder / "var" / "lib" / "systemd" / "linger" / user).is_file()
    assert listing() == before


def test_only_root_may(machine: Machine) -> None:
    """Without sudo a user may not do what systemd asks a password for, and root may."""
    commands = ["reboot", "systemctl poweroff", "systemctl enable x.service"]
    codes = [code for code, said in machine.run_each(commands) if "authentication" in said]
    assert codes == [1, 1, 1]
    assert not (machine.root / "power").exists()
    assert machine.run("systemctl reboot", "root") == (0, "")
    assert (machine.root / "power" / machine.host.instance_id).read_text() == "reboot\n"


def test_what_would_change_this_machine_is_refused(machine: Machine) -> None:
    """A host has no package manager and the like; sudo finds none either."""
    commands = [f"sudo {REFUSED[1]} install x", *REFUSED]
    for command, (code, said) in zip(commands, machine.run_each(commands, "root"), strict=True):
        assert (code, "a stand-in host has none" in said) == (1, True), f"{command}: {said}"


def test_scripts_are_clean() -> None:
    """shellcheck finds nothing in them."""
    import bilbo.local

    scripts = sorted((Path(bilbo.local.__file__).parent / "own").glob("*.sh"))
    assert {path.stem for path in scripts} == set(PROGRAMS.values())
    subprocess.run(["shellcheck", *map(str, scripts)], check=True)
