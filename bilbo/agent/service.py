"""The services of a cluster on this host: their files, and their processes from start to end."""

# ruff: noqa: UP006, UP035, UP045 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterable, Iterator, List, Optional, Set

MARKER = "BILBO_SERVICE"  # in the environment of all that a service starts, whatever its session
CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


class Failure(Exception):
    """What a request cannot do, in words for the user."""


def open_private(path: Path, flags: int) -> int:
    """Open a file for writing that only the user can read, made where it is missing."""
    return os.open(str(path), os.O_WRONLY | os.O_CREAT | flags, 0o600)


def write_private(path: Path, text: str) -> None:
    """Write a file that only the user can read, whole or not at all."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(open_private(fresh, os.O_TRUNC), "w") as file:
        file.write(text)
    fresh.replace(path)


def read_text(path: Path) -> str:
    """A file's text; empty where there is no such file or it went while we looked."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def remove(path: Path) -> None:
    """Remove a file that may be missing."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def cluster_folder(cluster: str) -> Path:
    """`~/.bilbo/CLUSTER`, made where it is missing, closed to others."""
    if not CLUSTER_NAME.match(cluster):
        raise Failure(f"{cluster!r} cannot be a cluster's name")
    folder = Path.home() / ".bilbo" / cluster
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One agent at a time changes what runs; the lock goes with the process that holds it."""
    with open(open_private(folder / ".lock", 0), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start_time(pid: int) -> Optional[int]:
    """When a process started, in clock ticks since boot; None if it does not run."""
    stat = read_text(Path(f"/proc/{pid}/stat"))
    if not stat:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the program's name may hold spaces
    return None if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    """Differs after each boot, so that the pid file of an earlier one is recognised."""
    return read_text(Path("/proc/sys/kernel/random/boot_id")).strip()


def processes_with(variable: bytes) -> Set[int]:
    """The pids of all processes that were started with `NAME=value` in their environment."""
    found = set()
    for name in os.listdir("/proc"):  # noqa: PTH208
        with contextlib.suppress(OSError, ValueError):
            if variable in Path(f"/proc/{int(name)}/environ").read_bytes().split(b"\0"):
                found.add(int(name))
    return found - {os.getpid()}


def send(number: int, pids: Iterable[int]) -> None:
    """Send a signal to processes of which some may just have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class HostedService:
    """One service of a cluster. `folder` is the cluster's."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder
        self.log = self.file(".log")

    def file(self, suffix: str) -> Path:
        """The service's file with this suffix."""
        return self.folder / (self.name + suffix)

    def supervisor(self) -> Optional[int]:
        """The pid of the living supervisor, which is its process group's too; else None."""
        try:
            seen = json.loads(read_text(self.file(".pid")))
            if seen["boot_id"] != boot_id():
                return None
            pid = int(seen["pid"])
            return pid if start_time(pid) == int(seen["start_time"]) else None
        except (ValueError, KeyError, TypeError):
            return None

    def exit_code(self) -> Optional[int]:
        """The last run's exit code; None while it runs or when nobody saw it end."""
        text = read_text(self.file(".exit"))
        return int(text) if text else None

    def tail(self, lines: int) -> List[str]:
        """The last lines of the log, from the turned-over one too, without reading all of it."""
        found: List[str] = []
        for path in (self.log, self.file(".log.1")):
            if len(found) < lines and path.exists():
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - 400 * lines - 4096))
                    found = file.read().decode(errors="replace").splitlines() + found
        return found[-lines:]

    def members(self) -> Set[int]:
        """Every process that the service started, in whatever session it is by now."""
        return processes_with(f"{MARKER}={self.file('')}".encode())

    def owns(self, pid: int) -> bool:
        """Whether the process is one that the service started."""
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            return f"{MARKER}={self.file('')}".encode() in variables
        return False

    def stop(self, grace: float) -> None:
        """End all that belongs to the service and nothing else: kindly, after `grace` by force.

        Only the process group is asked: who keeps house for others (Jupyter for its kernels) ends
        them better than we could.
        """
        supervisor = self.supervisor()
        if supervisor:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(supervisor, signal.SIGTERM)
        else:
            send(signal.SIGTERM, self.members())
        if not self._gone(grace):
            send(signal.SIGKILL, self.members())
            if not self._gone(5.0):
                raise Failure(f"{self.name} could not be stopped, not even by SIGKILL")

    def _gone(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.members():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def launch(self) -> None:
        """Run the service's script under a supervisor that does not depend on this process."""
        remove(self.file(".exit"))
        if self.log.exists():
            self.log.replace(self.file(".log.1"))
        command = [sys.executable, "-I", "-S", str(self.folder / "supervisor.py")]
        with open(open_private(self.log, os.O_APPEND), "wb") as log:
            child = subprocess.Popen(
                [*command, str(self.file(""))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=str(Path.home()),
                env=dict(os.environ, **{MARKER: str(self.file(""))}),
                start_new_session=True,
            )
        seen = {"pid": child.pid, "start_time": start_time(child.pid), "boot_id": boot_id()}
        write_private(self.file(".pid"), json.dumps(seen))
