"""What a machine of the stand-in runs at its boot: its enabled units and its @reboot lines, and at
its first boot its user data.

Of a unit, ExecStart, User and Environment count; a user's units need lingering. Everything runs as
the computer's own user, with the machine's own programs first on PATH.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bilbo.local.own_programs import PROGRAMS

log = logging.getLogger(__name__)

# A program by the path that it has on the computer.
_BY_PATH = re.compile(r"(?<![\w./-])/(?:usr/(?:local/)?)?s?bin/([\w.-]+)")
# Whatever else a script might change there: all but programs, harmless devices and what is read of
# /proc.
_PLACE = re.compile(
    r"(?<![\w./~})*-])/(?:(?:boot|etc|home|lib|lib64|media|mnt|opt|root|run|srv|sys|var)\b"
    r"|proc/sys|dev/(?!null\b|zero\b|u?random\b|std|fd\b|shm\b|tty\b)"
    r"|usr/(?!(?:local/)?s?bin\b))[^\s\"';|&)]*"
)


@dataclass(frozen=True)
class BootEntry:
    """Commands to run one after the other, each an argv. `where` is the file that has them; `log`
    is where in the machine's `var/log` their output goes."""

    where: Path
    user: str
    commands: tuple[tuple[str, ...], ...]
    environment: dict[str, str] = field(default_factory=dict)
    log: str = "boot.log"


def boot_entries(folder: Path) -> list[BootEntry]:
    """The entries of the machine with this folder. Logs those that it refuses, and why."""
    found = list(_units(folder / "etc/systemd/system/multi-user.target.wants", folder, "root"))
    linger = folder / "var/lib/systemd/linger"
    for path in sorted(linger.iterdir()) if linger.is_dir() else ():
        wants = folder / "home/.config/systemd/user/default.target.wants"
        found += _units(wants, folder, path.name)
    tables = folder / "var/spool/cron"
    for path in sorted(tables.iterdir()) if tables.is_dir() else ():
        found += _lines(path)
    return [entry for entry in found if not _refused(entry)]


def unit_entry(folder: Path, name: str) -> BootEntry | None:
    """A unit of the machine's own that is to run now, enabled or not. Logs why it is refused."""
    if "/" in name:
        return None
    entries = [*_unit(folder / "etc/systemd/system" / name, folder, "root")]
    return next((entry for entry in entries if not _refused(entry)), None)


def user_data(folder: Path, data: bytes) -> list[BootEntry]:
    """The script that a machine's user data are, as cloud-init runs it: once in the machine's life.

    Nothing if it has run, or is refused: then the machine's own log and the stand-in's say why.
    Source: cloud-init's "User data script" and "Script per instance". Side effects: writes files of
    the names that cloud-init gives them.
    """
    kept = folder / "var/lib/cloud/instance/user-data.txt"
    if not data or kept.exists():
        return []
    script = kept.parent / "scripts" / "part-001"
    script.parent.mkdir(parents=True, exist_ok=True)
    for path in (kept, script):
        path.write_bytes(data)
        path.chmod(0o700)
    text = data.decode(errors="replace")
    # By its interpreter: while another thread forks, the system may take the file for still open.
    interpreter = text.partition("\n")[0].removeprefix("#!").strip().split(None, 1)
    command = _own([*interpreter, str(script)], folder)
    entry = BootEntry(script, "root", (command,), log="cloud-init-output.log")
    why = [] if text.startswith("#!") else ["only scripts are run, whose first line begins with #!"]
    why += _by_path(text)
    why += [f"{each[0]} is the computer's" for each in _PLACE.finditer(text)]
    if not why:
        return [entry]
    output = folder / "var" / "log" / entry.log
    output.parent.mkdir(parents=True, exist_ok=True)
    for each in dict.fromkeys(why):
        log.error("%s: not run: %s", script, each)
        with output.open("a") as file:
            file.write(f"bilbo: user data not run on a stand-in host: {each}\n")
    return []


def _refused(entry: BootEntry) -> bool:
    named = _by_path("\n".join(" ".join(command) for command in entry.commands))
    for each in named:
        log.error("%s: not run: %s", entry.where, each)
    return bool(named)


def _by_path(text: str) -> list[str]:
    """Why a text must not be run: the programs in it that are the computer's."""
    named = {each[0] for each in _BY_PATH.finditer(text) if each[1] in {*PROGRAMS} - {"bash"}}
    return [f"{path} is the computer's; call it by name" for path in sorted(named)]


def _units(wants: Path, folder: Path, user: str) -> Iterator[BootEntry]:
    for path in sorted(wants.glob("*.service")):
        yield from _unit(path, folder, user)


def _unit(path: Path, folder: Path, user: str) -> Iterator[BootEntry]:
    who = user
    commands: list[tuple[str, ...]] = []
    environment: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8")
        for line in text.replace("\\\n", " ").splitlines():
            key, _, value = line.partition("=")
            if key == "User":
                who = value.strip()
            elif key == "Environment":
                environment |= dict(each.split("=", 1) for each in _words(value))
            elif key == "ExecStart":
                commands.append(_own(_words(value.lstrip("-@:+!")), folder))
    except (OSError, ValueError) as error:
        log.error("%s: not run: %s", path, error)
        return
    yield BootEntry(path, who, tuple(commands), environment)


def _words(value: str) -> list[str]:
    """The words of a unit's setting: quotes and backslashes as in a shell, %% and $$ for one."""
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(value)]


def _own(command: list[str], folder: Path) -> tuple[str, ...]:
    """The command, its shell being the machine's own."""
    if command and command[0] in ("/bin/bash", "/usr/bin/bash"):
        return (str(folder / "own" / "bash"), *command[1:])
    return tuple(command)


def _lines(path: Path) -> Iterator[BootEntry]:
    for line in path.read_text(encoding="utf-8").splitlines():
        when, _, command = line.strip().partition(" ")
        if when == "@reboot":
            yield BootEntry(path, path.name, (("/bin/sh", "-c", command.strip()),))
