"""Who is at work on this machine besides the cluster's engine: logins, and the CPU they use.

All by the kernel's figures, which cost a few milliseconds.
"""

# ruff: noqa: UP006, UP035, UP045 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import os
import struct
import time
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from bilbo.agent.boot import unit_folder
from bilbo.agent.service import MARKER, Failure

SHARE = 0.1  # of a CPU: less than that is nobody's work
_UNITS = "/etc/systemd/system"
# Judged by its own figures: terminals and kernels are JupyterLab's processes.
_PEOPLES = b"/jupyter"
# glibc's struct utmp, see utmp(5): type, pid, line, id, user, host, and what does not matter here.
_UTMP = struct.Struct("hi32s4s32s256s52x")
_USER_PROCESS = 7
# As tmux and screen have their windows recorded, which stay when everybody has left.
_WINDOWS = (b"tmux(", b":S.")

Finding = Tuple[str, float]  # what somebody did, and how many seconds ago: 0 while they still do


class Process(NamedTuple):
    """A process: `ticks` of CPU by itself and by children that ended; `terminal` is the kernel's
    number of it, 0 for none."""

    pid: int
    name: str
    began: int
    own: int
    ticks: int
    terminal: int
    leads: bool


class Presence:
    """Looks again and again. `root` is where the machine's own files begin.

    On a stand-in, whose machines are processes of one computer, that is a folder: then the
    processes with this one's home are the machine's.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = Path(root)
        home = os.environ.get("HOME", "")
        self._only = None if root == "/" else f"HOME={home}".encode()
        self._kinds: Dict[Tuple[int, int], Optional[bool]] = {}
        self._before: Optional[Tuple[float, int]] = None
        self._own: Dict[Tuple[int, int], int] = {}

    def look(self) -> List[Finding]:
        """What people do on the machine now; CPU since the last look."""
        found = list(self._others())
        there = [*logins(self.root / "run" / "utmp"), *at_terminals(found)]
        people = [(f"somebody is logged in ({each})", 0.0) for each in dict.fromkeys(there)]
        return [*people, *self._used(found)]

    def _others(self) -> Iterator[Process]:
        """The machine's processes that are not the engine's."""
        seen = {}  # type: Dict[Tuple[int, int], Optional[bool]]
        for process in processes():
            key = (process.pid, process.began)
            known = self._kinds.get(key)
            others = self._is_others(process.pid) if known is None else known
            # A process that has just been forked may have another's environment still.
            seen[key] = others if key in self._kinds else None
            if others:
                yield process
        self._kinds = seen

    def _is_others(self, pid: int) -> bool:
        variables = variables_of(pid)
        if self._only is not None and self._only not in variables:
            return False
        mark = f"{MARKER}=".encode()
        marks = [each for each in variables if each.startswith(mark)]
        return all(each.endswith(_PEOPLES) for each in marks)

    def _used(self, found: List[Process]) -> List[Finding]:
        """Whether they use more of the CPU than a tenth of one."""
        now, ticks = time.monotonic(), sum(each.ticks for each in found)
        before, self._before = self._before, (now, ticks)
        own, self._own = self._own, {(each.pid, each.began): each.own for each in found}
        if before is None or now <= before[0]:
            return []
        # What a process used moves to its parent when it ends, so the sum only grows.
        share = (ticks - before[1]) / os.sysconf("SC_CLK_TCK") / (now - before[0])
        if share < SHARE:
            return []
        most = max(found, key=lambda each: each.own - own.get((each.pid, each.began), 0))
        return [(f"programs use {share:.1f} of a CPU, {most.name} the most", 0.0)]


def machines_root() -> str:
    """Where the machine's own files begin: not at / on a stand-in."""
    with contextlib.suppress(Failure):
        units = str(unit_folder(["systemctl"]))
        if units.endswith(_UNITS):
            return units[: -len(_UNITS)] or "/"
    return "/"


def processes() -> Iterator[Process]:
    """Every process of this computer. Source: proc(5)."""
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                yield parsed(int(name), Path(f"/proc/{name}/stat").read_bytes())


def parsed(pid: int, stat: bytes) -> Process:
    """A process by its line of the kernel's. Raises ValueError and IndexError for anything else."""
    begins, ends = stat.index(b"("), stat.rindex(b")")  # the name may have both
    fields = stat[ends + 2 :].split()
    own = int(fields[11]) + int(fields[12])
    name = stat[begins + 1 : ends].decode(errors="replace")
    all_ticks = own + int(fields[13]) + int(fields[14])
    leads = int(fields[3]) == pid
    return Process(pid, name, int(fields[19]), own, all_ticks, int(fields[4]), leads)


def variables_of(pid: int) -> List[bytes]:
    """The environment of a process; empty if that is not ours to know."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []


def terminal_name(number: int) -> str:
    """The device of a terminal of windows and logins; empty for others. Source: Linux's
    Documentation/admin-guide/devices.txt, majors 136 to 143."""
    major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
    return f"/dev/pts/{(major - 136) * 256 + minor}" if 136 <= major <= 143 else ""


def at_terminals(found: List[Process]) -> Iterator[str]:
    """The terminals of logins over SSH, by what sshd tells their shells: not every system keeps
    utmp. What a login leaves behind, as in tmux, leads no session at the login's own terminal."""
    for each in found:
        if each.leads and each.terminal:
            device = terminal_name(each.terminal)
            if f"SSH_TTY={device}".encode() in variables_of(each.pid):
                yield device[len("/dev/") :]


def logins(utmp: Path) -> Iterator[str]:
    """The terminals of all logins, where the system keeps them."""
    with contextlib.suppress(OSError):
        data = utmp.read_bytes()
        whole = len(data) - len(data) % _UTMP.size
        for kind, pid, line, _, _, host in _UTMP.iter_unpack(data[:whole]):
            window = any(each in host for each in _WINDOWS)
            if kind == _USER_PROCESS and not window and os.path.isdir(f"/proc/{pid}"):  # noqa: PTH112
                yield line.rstrip(b"\0").decode(errors="replace")
