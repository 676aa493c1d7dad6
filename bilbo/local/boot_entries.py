"""What a machine of the stand-in runs at its boot: its enabled units and its @reboot lines.

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


@dataclass(frozen=True)
class BootEntry:
    """Commands to run one after the other, each an argv. `where` is the file that has them."""

    where: Path
    user: str
    commands: tuple[tuple[str, ...], ...]
    environment: dict[str, str] = field(default_factory=dict)


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


def _refused(entry: BootEntry) -> bool:
    named = {
        each[0]
        for command in entry.commands
        for each in _BY_PATH.finditer(" ".join(command))
        if each[1] in PROGRAMS and each[1] != "bash"
    }
    for path in sorted(named):
        log.error("%s: not run: %s is the computer's; call it by name", entry.where, path)
    return bool(named)


def _units(wants: Path, folder: Path, user: str) -> Iterator[BootEntry]:
    for path in sorted(wants.glob("*.service")):
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
            continue
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
