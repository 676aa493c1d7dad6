"""The warning before a cluster ends, where people are: in terminals, in JupyterLab's list of files,
and in the watcher's log."""

import contextlib
import time
from pathlib import Path

from bilbo.agent.boot import said
from bilbo.agent.service import Failure, remove, write_private
from bilbo.agent.watcher import say

TEXT = """\
bilbo: cluster {cluster} ends in {left}, at {at} UTC: {why}.
To keep it, run on the machine that has bilbo: bilbo extend {cluster} 2h
"""


class Farewell:
    """Warns once of each end, and takes the warning back."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
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
            say(f"no warning in terminals: {error}")

    def take_back(self) -> None:
        """It does not end soon."""
        if self.is_due:
            say("it does not end soon")
        self.is_due = False
        with contextlib.suppress(OSError):
            remove(self._path())


def words(seconds: float) -> str:
    """A time in words."""
    if seconds < 60:
        return f"{max(0, round(seconds))} seconds"
    minutes = round(seconds / 60)
    return "1 minute" if minutes == 1 else f"{minutes} minutes"
