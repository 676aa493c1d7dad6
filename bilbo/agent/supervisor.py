"""Runs one service's script to its end, limits the size of its log, and writes its exit code.

Usage: python3 supervisor.py BASE, where BASE.sh is the script. It imports nothing of bilbo, because
it is a single file on the host.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from typing import Any

LOG_LIMIT = 5 * 2**20  # bytes; a log is rotated once, so a service keeps at most twice this


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


def main(base: str) -> None:
    """Run BASE.sh with its output in BASE.log, then write BASE.exit."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        # The service decides when it ends. SIG_IGN would be inherited by it; a handler is not.
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(
        ["bash", base + ".sh"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(base),
    )
    copy(child, Log(base + ".log"))
    code = child.wait()
    with open(open_private(base + ".exit"), "w") as file:
        file.write(str(code))


if __name__ == "__main__":
    main(sys.argv[1])
