"""A cluster's services on this host: their files and processes.

It is also a program by itself, in a cluster's folder: it starts the services that should run there.
Boot entries run it, see `boot`.
"""

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
AGAIN = "BILBO_AGAIN"  # in the environment of a run that is not a person's first start
# What belongs to a login, not to a service that outlives it.
OF_THE_LOGIN = (
    *("SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS"),
    *("XDG_SESSION_ID", "XDG_RUNTIME_DIR", AGAIN),
)
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


def cluster_folder(cluster: str, host: str = "") -> Path:
    """`~/.bilbo/CLUSTER/INSTANCE`, created if missing, closed to others.

    Machines may share one home: what bilbo keeps is each machine's own. An earlier bilbo kept it in
    `~/.bilbo/CLUSTER`. That folder is used as long as a service started there runs on this machine.
    """
    for name in (cluster, host or "none"):
        if not CLUSTER_NAME.match(name):
            raise Failure(
                f"{name!r} is not a valid {'cluster' if name is cluster else 'host'} name"
            )
    shared = _closed(Path.home() / ".bilbo" / cluster)
    folder = shared / host
    if folder.is_dir():
        return _closed(folder)
    if any(HostedService(shared, path.stem).supervisor() for path in shared.glob("*.pid")):
        return shared
    _closed(folder)
    for name in ("init.done", "packages.done"):
        with contextlib.suppress(FileNotFoundError):
            (shared / name).rename(folder / name)
    return folder


def _closed(folder: Path) -> Path:
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


def machine() -> str:
    """The id of the instance, where the machine knows it, as on EC2's Nitro; else empty.

    A new machine from an image of this one has another.
    """
    with contextlib.suppress(OSError):
        tag = Path("/sys/class/dmi/id/board_asset_tag").read_text(errors="replace").strip()
        return tag if tag.startswith("i-") else ""
    return ""


def processes_with(variable: bytes) -> Set[int]:
    """The pids of all processes that started with `NAME=value` in their environment."""
    found = set()
    for name in os.listdir("/proc"):  # noqa: PTH208
        with contextlib.suppress(OSError, ValueError):
            if variable in Path(f"/proc/{int(name)}/environ").read_bytes().split(b"\0"):
                found.add(int(name))
    return found - {os.getpid()}


def _group(pid: int) -> Optional[int]:
    """A process's group; None if it has ended."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


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

    def wanted(self) -> bool:
        """Whether the supervisor, and the next boot, start the service again."""
        return self.file(".wanted").exists()

    def keep(self) -> None:
        """Have the service started again when it dies, and at boot, until `stop`."""
        write_private(self.file(".wanted"), machine())

    def runs(self) -> Dict[str, Any]:
        """What the supervisor has noted of the service's runs; empty before the first."""
        try:
            found = json.loads(read_text(self.file(".runs")) or "{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def exit_code(self) -> Optional[int]:
        """The last run's exit code; None while it runs or if nobody saw it end."""
        text = read_text(self.file(".exit"))
        return int(text) if text else None

    def report(self, lines: int) -> Dict[str, Any]:
        """What has become of the service, with the last `lines` of its log.

        `running` is true also while a dead one waits for its restart: then it is `restarting`, and
        `code` is how its last run ended. It is `unsupervised` if only its supervisor was killed.
        `age` is how many seconds ago the present run began or, if there is none, was seen to end.
        `wanted` are started again; `restarts` counts how often they were, and `ended` has the `at`
        and `code` of the last runs.
        """
        supervised, runs = self.supervisor() is not None, self.runs()
        since, ended = runs.get("since"), runs.get("ended") or []
        unsupervised = not supervised and self._goes_on()
        running = supervised or unsupervised
        code = None if running else self.exit_code()
        if code is None and ended and since is None:  # its supervisor has seen its end at least
            code = ended[-1]["code"]
        return {
            "service": self.name,
            "running": running,
            "unsupervised": unsupervised,
            "restarting": supervised and bool(ended) and since is None,
            "code": code,
            "age": self._age(running, since),
            "rebooted": not running and self._is_of_another_boot(),
            "wanted": self.wanted(),
            "restarts": runs.get("restarts", 0),
            "ended": ended,
            "log": self.tail(lines) if lines else [],
        }

    def _age(self, running: bool, since: Optional[float]) -> Optional[float]:
        if running and since is not None:
            return max(0.0, time.time() - since)
        return age(self.file(".pid" if running else ".exit"))

    def _is_of_another_boot(self) -> bool:
        try:
            seen = json.loads(read_text(self.file(".pid")))
            return bool(seen["boot_id"] != boot_id())
        except (ValueError, KeyError, TypeError):
            return False

    def _goes_on(self) -> bool:
        """Whether processes of the dead supervisor's own group run. What the service put into other
        sessions, such as JupyterLab's kernels, may outlive it."""
        if self.exit_code() is not None:
            return False
        try:
            group = int(json.loads(read_text(self.file(".pid")))["pid"])
        except (ValueError, KeyError, TypeError):
            return False
        return any(_group(pid) == group for pid in self.members())

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
        """End the service's processes as `end` does; it stays ended."""
        remove(self.file(".wanted"))
        self.end(grace)

    def end(self, grace: float) -> None:
        """End the service's processes and nothing else: SIGTERM, then SIGKILL after `grace`.

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

    def launch(self, environment: Optional[Dict[str, str]] = None) -> None:
        """Run the service's script under a supervisor that outlives this process.

        Without an `environment` it gets this process's, which is kept for the next boot.
        """
        if environment is None:
            environment = dict(os.environ, **{MARKER: str(self.file(""))})
            kept = {key: text for key, text in environment.items() if key not in OF_THE_LOGIN}
            write_private(self.file(".env"), json.dumps(kept))
        for suffix in (".exit", ".runs"):
            remove(self.file(suffix))
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
                env=environment,
                start_new_session=True,
            )
        seen = {"pid": child.pid, "start_time": start_time(child.pid), "boot_id": boot_id()}
        write_private(self.file(".pid"), json.dumps(seen))

    def start_again(self) -> None:
        """Launch the service as it was last launched by a person, if it does not run."""
        if self.supervisor():
            return
        self.end(5.0)
        environment = dict(os.environ, **{MARKER: str(self.file(""))})
        with contextlib.suppress(ValueError):
            environment = json.loads(read_text(self.file(".env")))
        self.launch(dict(environment, **{AGAIN: "1"}))


def start_wanted(folder: Path) -> None:
    """Start the services of a cluster's folder that should run on this machine and do not."""
    with locked(folder):
        for path in sorted(folder.glob("*.wanted")):
            if read_text(path) == machine():
                HostedService(folder, path.stem).start_again()


if __name__ == "__main__":
    start_wanted(Path(__file__).absolute().parent)
