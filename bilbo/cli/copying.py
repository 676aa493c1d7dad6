"""The progress of `get` and `put`."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilbo.cluster.work import Progress
    from bilbo.remote import Copying


QUIET_SECONDS = 5.0


class CopyProgress:
    """Reports copy progress: live on a terminal, every few seconds elsewhere; then the total."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._pause = 0.0 if sys.stderr.isatty() else QUIET_SECONDS
        self._last = time.monotonic()
        self._sizes: dict[tuple[str, str], int] = {}

    def copying(self, copying: Copying) -> None:
        """Records one file's progress, and reports it if it is time to."""
        node = copying.node
        self._sizes[node.instance_id, copying.path] = copying.done
        now = time.monotonic()
        if now - self._last >= self._pause:
            self._last = now
            so_far = f"{copying.path} {size(copying.done)} of {size(copying.total)}"
            self._progress.host(node.instance_id, node.role, "copy", so_far)

    def __enter__(self) -> CopyProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        files = len(self._sizes)
        what = f"{files} file{'s' * (files != 1)}, {size(sum(self._sizes.values()))}"
        if kind is None:
            self._progress.say(f"Copied {what}.")
        elif files:
            self._progress.say(f"Incomplete: copied {what}; the last file may be partial.")


def size(count: int) -> str:
    """Returns a number of bytes in its largest unit, such as `3.4 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
