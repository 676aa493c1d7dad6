"""Processes of this machine, by what Linux says of them in /proc.

Every process of an instance carries two marks in its environment, from its stand-in
and from its instance; children inherit them, so that all can be found and ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

INSTANCE_MARK = "BILBO_INSTANCE"
STANDIN_MARK = "BILBO_STANDIN"


def start_time(pid: int) -> str:
    """When the process began, in clock ticks since boot; empty when there is none.

    A pid alone may have been given to another process since; pid and start time have not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks
    return "" if fields[0] == "Z" else fields[19]


def is_same(pid: int, started: str) -> bool:
    """Whether the process that had `pid` and began at `started` is still alive."""
    return pid > 0 and bool(started) and start_time(pid) == started


def of_standin(mark: str) -> dict[str, set[int]]:
    """The living processes of the stand-in `mark`, as instance id → pids."""
    found: dict[str, set[int]] = defaultdict(set)
    standin = f"{STANDIN_MARK}={mark}".encode()
    instance = f"{INSTANCE_MARK}=".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = Path(entry.path, "environ").read_bytes().split(b"\0")
        except OSError:  # another user's, or gone meanwhile
            continue
        if standin in variables:
            ids = [v[len(instance) :].decode() for v in variables if v.startswith(instance)]
            found[ids[0] if ids else ""].add(int(entry.name))
    return dict(found)


def end_of_standin(mark: str, instances: Iterable[str] | None = None, timeout: float = 3) -> int:
    """Kill what runs on `instances` (None: all) of the stand-in; returns how many were killed.

    A machine that is stopped does not ask its processes: SIGKILL. Looks again until nothing
    is left, since a process may fork while it is looked for; gives up after `timeout` seconds.
    """
    wanted = None if instances is None else set(instances)
    killed: set[int] = set()
    deadline = time.monotonic() + timeout
    while True:
        pids = {
            pid
            for instance, group in of_standin(mark).items()
            if wanted is None or instance in wanted
            for pid in group
        }
        if not pids or time.monotonic() > deadline:
            return len(killed)
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        killed |= pids
        time.sleep(0.01)


def holds_socket(mark: str, near: tuple[str, int], far: tuple[str, int]) -> bool:
    """Whether a process of the stand-in `mark` has the connection from `near` to `far`, addresses
    and ports of this machine."""
    wanted = [_in_hex(*near), _in_hex(*far)]
    with Path("/proc/net/tcp").open(encoding="ascii") as table:
        rows = (row.split() for row in table)
        inode = next((row[9] for row in rows if row[1:3] == wanted), "")
    link = f"socket:[{inode}]"
    return bool(inode) and any(
        link in _links(pid) for pids in of_standin(mark).values() for pid in pids
    )


def _in_hex(address: str, port: int) -> str:
    number = int.from_bytes(socket.inet_aton(address), sys.byteorder)
    return f"{number:08X}:{port:04X}"


def _links(pid: int) -> set[str]:
    """What the process has open."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(str(Path(entry.path).readlink()))
    return found
