"""The warning before a cluster ends, where people are: in terminals, in JupyterLab's list of files,
and in the watcher's log."""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import os
import time
from pathlib import Path
from typing import List

from bilbo.agent.boot import said
from bilbo.agent.presence import processes, terminal_name, variables_of
from bilbo.agent.service import MARKER, Failure, remove, write_private
from bilbo.agent.watcher import say

TEXT = """\
bilbo: cluster {cluster} ends in {left}, at {at} UTC: {why}.
To keep it, run on the machine that has bilbo: bilbo extend {cluster} 2h
"""


class Farewell:
    """Warns once of each end, and takes the warning back."""

    def __init__(self, cluster: str, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self.is_due = False

    def _path(self) -> Path:
        return Path.home() / f"{self._cluster} ENDS SOON.txt"

    def warn(self, left: float, why: str) -> None:
        """Say that it ends in `left` seconds, unless that was said."""
        if self.is_due:
            return
        self.is_due = True
        at = time.strftime("%H:%M:%S", time.gmtime(time.time() + left))
        text = TEXT.format(cluster=self._cluster, left=words(left), at=at, why=why)
        say(" ".join(text.splitlines()))
        with contextlib.suppress(OSError):
            write_private(self._path(), text)
        try:
            said(["wall"], text, 10.0)
        except Failure as error:
            say(f"no warning in terminals of logins: {error}")
        for terminal in self._jupyters():
            with contextlib.suppress(OSError):
                write_to(terminal, text)

    def _jupyters(self) -> List[str]:
        """JupyterLab's terminals: `wall` knows those of logins alone."""
        mark = f"{MARKER}={self._folder / 'jupyter'}".encode()
        return [
            terminal_name(each.terminal)
            for each in processes()
            if each.leads and each.terminal and mark in variables_of(each.pid)
        ]

    def take_back(self) -> None:
        """It does not end soon."""
        if self.is_due:
            say("it does not end soon")
        self.is_due = False
        with contextlib.suppress(OSError):
            remove(self._path())


def write_to(terminal: str, text: str) -> None:
    """Show a text on a terminal. Raises OSError, also if nobody reads there."""
    place = os.open(terminal, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        os.write(place, ("\n" + text).replace("\n", "\r\n").encode())
    finally:
        os.close(place)


def words(seconds: float) -> str:
    """A time in words."""
    if seconds < 60:
        return f"{max(0, round(seconds))} seconds"
    minutes = round(seconds / 60)
    return "1 minute" if minutes == 1 else f"{minutes} minutes"
