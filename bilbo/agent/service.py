"""A cluster's services on this host: their files and processes."""

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
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set

MARKER = "BILBO_SERVICE"  # in the environment of a service's processes, in any session
CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


class Failure(Exception):
    """Why a request failed, in words for the user."""


def open_private(path: Path, flags: int) -> int:
    """Open a file for writing that only the user can read; create it if missing."""
    return os.open(str(path), os.O_WRONLY | os.O_CREAT | flags, 0o600)


def write_private(path: Path, text: str) -> None:
    """Write a file that only the user can read, in one step."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(open_private(fresh, os.O_TRUNC), "w") as file:
        file.write(text)
    fresh.replace(path)


def read_text(path: Path) -> str:
    """A file's text; empty if the file does not exist or disappears meanwhile."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def remove(path: Path) -> None:
    """Remove a file if it exists."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def cluster_folder(cluster: str) -> Path:
    """`~/.bilbo/CLUSTER`, created if missing, closed to others."""
    if not CLUSTER_NAME.match(cluster):
        raise Failure(f"{cluster!r} is not a valid cluster name")
    folder = Path.home() / ".bilbo" / cluster
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def age(path: Path) -> Optional[float]:
    """How many seconds ago a file was written, by this host's clock; None if there is none."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one agent at a time changes services; the lock ends with the process that holds it."""
    with open(open_private(folder / ".lock", 0), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start_time(pid: int) -> Optional[int]:
    """When a process started, in clock ticks since boot; None if it is not running."""
    stat = read_text(Path(f"/proc/{pid}/stat"))
    if not stat:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the program's name may contain spaces
    return None if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    """An id that changes with each boot, and so tells apart the pid files of earlier boots."""
    return read_text(Path("/proc/sys/kernel/random/boot_id")).strip()


def processes_with(variable: bytes) -> Set[int]:
    """The pids of all processes that started with `NAME=value` in their environment."""
    found = set()
    for name in os.listdir("/proc"):  # noqa: PTH208
        with contextlib.suppress(OSError, ValueError):
            if variable in Path(f"/proc/{int(name)}/environ").read_bytes().split(b"\0"):
                found.add(int(name))
    return found - {os.getpid()}


def send(number: int, pids: Iterable[int]) -> None:
    """Send a signal to processes, some of which may have ended."""
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
        """The pid of the running supervisor, also its process group's id; else None."""
        try:
            seen = json.loads(read_text(self.file(".pid")))
            if seen["boot_id"] != boot_id():
                return None
            pid = int(seen["pid"])
            return pid if start_time(pid) == int(seen["start_time"]) else None
        except (ValueError, KeyError, TypeError):
            return None

    def exit_code(self) -> Optional[int]:
        """The last run's exit code; None while it runs or if nobody saw it end."""
        text = read_text(self.file(".exit"))
        return int(text) if text else None

    def report(self, lines: int) -> Dict[str, Any]:
        """What has become of the service, with the last `lines` of its log.

        `age` is how many seconds ago it was started or, if it does not run, was seen to end.
        """
        running = self.supervisor() is not None
        return {
            "service": self.name,
            "running": running,
            "code": None if running else self.exit_code(),
            "age": age(self.file(".pid" if running else ".exit")),
            "rebooted": not running and self._is_of_another_boot(),
            "log": self.tail(lines) if lines else [],
        }

    def _is_of_another_boot(self) -> bool:
        try:
            seen = json.loads(read_text(self.file(".pid")))
            return bool(seen["boot_id"] != boot_id())
        except (ValueError, KeyError, TypeError):
            return False

    def tail(self, lines: int) -> List[str]:
        """The last lines of the log, including the rotated one, without reading all of it."""
        found: List[str] = []
        for path in (self.log, self.file(".log.1")):
            if len(found) < lines and path.exists():
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - 400 * lines - 4096))
                    found = file.read().decode(errors="replace").splitlines() + found
        return found[-lines:]

    def members(self) -> Set[int]:
        """Every process that the service started, whatever its session now."""
        return processes_with(f"{MARKER}={self.file('')}".encode())

    def owns(self, pid: int) -> bool:
        """Whether the service started the process."""
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            return f"{MARKER}={self.file('')}".encode() in variables
        return False

    def stop(self, grace: float) -> None:
        """Stop the service's processes and nothing else: SIGTERM, then SIGKILL after `grace`.

        SIGTERM goes only to the process group: a program with children of its own (Jupyter with its
        kernels) ends them better than we could.
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
                raise Failure(f"{self.name} did not end, not even after SIGKILL")

    def _gone(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.members():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def launch(self) -> None:
        """Run the service's script under a supervisor that outlives this process."""
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
