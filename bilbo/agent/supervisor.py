"""Runs one service's script, again when it dies; limits the size of its log.

Usage: python3 supervisor.py BASE, where BASE.sh is the script. BASE.wanted is there as long as the
service should run: it is written once the service was ready, so a first start that fails is not
repeated. BASE.runs is JSON: `since` the present run is there, in seconds since 1970, how many
`restarts` there were, and how the last runs `ended` (`at`, `code`). BASE.exit is the exit code of
the last run, written at the end of all. It imports nothing of bilbo, because it is a single file on
the host.
"""

# ruff: noqa: UP045 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any, Optional

LOG_LIMIT = 5 * 2**20  # bytes; a log is rotated once, so a service keeps at most twice this
PAUSES = (2, 4, 8, 16, 32)  # seconds before each restart within WINDOW; then no more
WINDOW = 600  # seconds
KEPT = 20  # runs whose end is remembered
AGAIN = "BILBO_AGAIN"  # in the environment of a run that is not a person's first start


def open_private(path: str) -> int:
    """Open a file for appending, created so that only the user can read it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


class Log:
    """A file that only the user can read, rotated when it is full."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self._file = open_private(self._path)
        self._size = os.fstat(self._file).st_size

    def write(self, data: bytes) -> None:
        """Append to the log; on a full disk the output is lost, but the service keeps running."""
        with contextlib.suppress(OSError):
            if self._size + len(data) > LOG_LIMIT:
                os.close(self._file)
                os.rename(self._path, self._path + ".1")  # noqa: PTH104
                self._open()
            self._size += os.write(self._file, data)


class Supervised:
    """A service and what is known of its runs."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.name = os.path.basename(base)  # noqa: PTH119
        self.log = Log(base + ".log")
        self.ending = False
        self.restarts = 0
        self.ended = []  # type: Any # (when, exit code)

    def end(self, *_: object) -> None:
        """Note that whoever ends the process group wants no restart."""
        self.ending = True

    def wanted(self) -> bool:
        """Whether it should be started again."""
        return not self.ending and os.path.exists(self.base + ".wanted")  # noqa: PTH110

    def note(self, since: Optional[float]) -> None:
        """Write down what is known of the runs; a full disk costs the note only.

        JSON by hand: to import its module takes a quarter of the supervisor's start.
        """
        ended = ", ".join(f'{{"at": {at}, "code": {code}}}' for at, code in self.ended)
        shown = "null" if since is None else since
        text = f'{{"since": {shown}, "restarts": {self.restarts}, "ended": [{ended}]}}'
        with contextlib.suppress(OSError):
            fresh = self.base + ".runs.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)  # noqa: PTH108
            with open(open_private(fresh), "w") as file:
                file.write(text)
            os.replace(fresh, self.base + ".runs")  # noqa: PTH105

    def run(self) -> int:
        """Run the script to its end; its exit code."""
        self.note(time.time())
        child = subprocess.Popen(
            ["bash", self.base + ".sh"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(self.base),
        )
        copy(child, self.log)
        code = child.wait()
        self.ended = [*self.ended, (time.time(), code)][-KEPT:]
        self.note(None)
        return code

    def pause(self, code: int) -> bool:
        """Wait before the next run. Returns False if there must be none."""
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        recent = [at for at, _ in self.ended if at > time.time() - WINDOW]
        if len(recent) > len(PAUSES):
            self.say(
                f"{how}, {len(recent)} times in {WINDOW // 60} minutes: it is not started again"
            )
            return False
        pause = PAUSES[len(recent) - 1]
        self.say(f"{how}; it is started again in {pause} s")
        end_others(self.base)
        end = time.monotonic() + pause
        while self.wanted() and time.monotonic() < end:
            time.sleep(0.1)
        self.restarts += 1
        return self.wanted()

    def say(self, how: str) -> None:
        """Add a line of bilbo's to the log."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        self.log.write(f"bilbo: {now}: {self.name} ended with {how}\n".encode())


def copy(child: Any, log: Log) -> None:
    """Copy a process's output until it ends."""
    while True:
        ended = child.poll() is not None
        if select.select([child.stdout], [], [], 0.5)[0]:
            data = os.read(child.stdout.fileno(), 65536)
            if not data:
                return
            log.write(data)
        elif ended:  # a process that it left running holds the pipe open
            return


def environment(base: str) -> Any:
    """Ours, in which no proxy stands between the machines of the cluster: the file `addresses`
    beside BASE names them, one a line. `no_proxy` of the login files is kept."""
    found = dict(os.environ)
    names = [name for key in ("no_proxy", "NO_PROXY") for name in found.get(key, "").split(",")]
    if "*" not in names:
        path = os.path.join(os.path.dirname(base), "addresses")  # noqa: PTH118, PTH120
        with contextlib.suppress(OSError), open(path) as file:  # noqa: PTH123
            names += file.read().split()
        found["no_proxy"] = ",".join(dict.fromkeys(filter(None, names)))
        found["NO_PROXY"] = found["no_proxy"]
    return found


def end_others(base: str) -> None:
    """Kill what a dead run left behind: it would be in the way of the next."""
    mark = f"BILBO_SERVICE={base}".encode()
    for name in os.listdir("/proc"):  # noqa: PTH208
        with contextlib.suppress(OSError, ValueError):
            if int(name) != os.getpid():
                with open(f"/proc/{int(name)}/environ", "rb") as file:  # noqa: PTH123
                    variables = file.read().split(b"\0")
                if mark in variables:
                    os.kill(int(name), signal.SIGKILL)


def main(base: str) -> None:
    """Run BASE.sh until it is not wanted any more, then write BASE.exit."""
    service = Supervised(base)
    # The service decides when it ends. SIG_IGN would be inherited by it; a handler is not.
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGTERM, service.end)
    code = service.run()
    os.environ[AGAIN] = "1"
    while service.wanted() and service.pause(code):
        code = service.run()
    with open(open_private(base + ".exit"), "w") as file:
        file.write(str(code))


if __name__ == "__main__":
    main(sys.argv[1])
