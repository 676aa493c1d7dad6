"""The watcher: what stays of bilbo on a machine. It does its duties, each every few seconds.

bilbo sends it as one file, `watcher.py` in the cluster's folder, which runs under a supervisor as
the services do: so it outlives bilbo, comes again when it dies and at boot, and ends with `stop`.
A duty is a module with a function `duties(folder)`; it has its settings in a file of its own there,
and nothing to do while that is missing.
"""

# ruff: noqa: UP006, UP035, UP045 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import fcntl
import os
import sys
import threading
import time
from pathlib import Path
from typing import Callable, List, Optional

from bilbo.agent.service import open_private

LONGEST = 3600.0  # seconds between two looks, whatever a duty asks for
SHORTEST = 0.1
STEP = 2.0  # seconds until changed settings are noticed


class Duty:
    """Something to look at every `period` seconds, and soon after its `settings` have changed.

    `look` may return how many seconds to wait this time. It may take its time: each duty has a
    thread of its own. What it raises is said in the log, and it looks again.
    """

    def __init__(
        self,
        period: float,
        look: Callable[[], Optional[float]],
        settings: Optional[Path] = None,
    ) -> None:
        self.period = period
        self.look = look
        self._settings = settings
        self._said = ""

    def keep(self) -> None:
        """Look for ever."""
        while True:
            pause, seen = None, self._changed()
            try:
                pause = self.look()
                self._said = ""
            except Exception as error:
                self._complain(f"{type(error).__name__}: {error}")
            asked = self.period if pause is None else pause
            self._wait(min(max(asked, SHORTEST), LONGEST), seen)

    def _wait(self, seconds: float, seen: float) -> None:
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            if left <= 0 or self._changed() != seen:
                return
            time.sleep(min(left, STEP) if self._settings else left)

    def _changed(self) -> float:
        """When the settings have changed."""
        with contextlib.suppress(OSError):
            return self._settings.stat().st_mtime if self._settings else 0.0
        return 0.0

    def _complain(self, what: str) -> None:
        if what != self._said:  # once, not at every look
            say(what)
        self._said = what


def say(text: str) -> None:
    """Add a line to the watcher's log."""
    sys.stdout.write(f"bilbo: {time.strftime('%Y-%m-%d %H:%M:%S')}: {text}\n")
    sys.stdout.flush()


def main(folder: Path, makers: List[Callable[[Path], List[Duty]]]) -> None:
    """Do the machine's duties, which the `makers` return, for ever, unless another watcher does."""
    lock = open_private(folder / "watcher.lock", os.O_APPEND)  # it ends with the process
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("another watcher is at work here")
        return
    threads = [
        threading.Thread(target=each.keep, daemon=True) for make in makers for each in make(folder)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
