"""`get` and `put`: files and folders between here and a cluster, with progress."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import click

from bilbo.cli.context import Context, pass_context
from bilbo.cli.hosts import TIMEOUT_OPTION, reaching
from bilbo.cli.names import CLUSTER, TARGET

if TYPE_CHECKING:
    from bilbo.cluster.work import Progress
    from bilbo.remote import Copying

QUIET_SECONDS = 5.0
TARGET_OPTION = click.option(
    "-t", "--target", type=TARGET, help="The instance; else the notebook, or the scheduler."
)


class CopyProgress:
    """Tells how far files are: live on a terminal, every few seconds elsewhere; then the sum."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._pause = 0.0 if sys.stderr.isatty() else QUIET_SECONDS
        self._last = time.monotonic()
        self._sizes: dict[tuple[str, str], int] = {}

    def copying(self, copying: Copying) -> None:
        """One file is so far."""
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
            self._progress.say(f"Not all was copied: {what}, the last perhaps in part.")


def size(count: int) -> str:
    """A number of bytes in its largest unit, such as `3.4 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


@click.command(short_help="Copy files from an instance.")
@click.argument("name", type=CLUSTER)
@click.argument("remote")
@click.argument("local", type=click.Path(path_type=Path), default=Path())
@TARGET_OPTION
@TIMEOUT_OPTION
@pass_context
def get(
    context: Context,
    name: str,
    remote: str,
    local: Path,
    target: str | None,
    timeout: float | None,
) -> None:
    """Copy the file or folder REMOTE of the cluster NAME to LOCAL, else to the current folder.

    \b
    REMOTE is relative to the home folder there. An existing folder LOCAL is what
    REMOTE is copied into. Times and permissions are kept.

    \b
    Examples:
      bilbo get test result.csv
      bilbo get test data/run-7 runs/
      bilbo get test /var/log/syslog -t scheduler
    """
    from bilbo.cluster import hosts, targets

    record = context.store.load(name)
    node = targets.only(record, target)
    with reaching(context, record, timeout, live=True) as w, CopyProgress(w.progress) as progress:
        hosts.get(w, record, node, remote, local, progress.copying)


@click.command(short_help="Copy files to instances.")
@click.argument("name", type=CLUSTER)
@click.argument("local", type=click.Path(path_type=Path))
@click.argument("remote", default="")
@TARGET_OPTION
@TIMEOUT_OPTION
@pass_context
def put(
    context: Context,
    name: str,
    local: Path,
    remote: str,
    target: str | None,
    timeout: float | None,
) -> None:
    """Copy the file or folder LOCAL to REMOTE on the cluster NAME, else to the home folder there.

    \b
    REMOTE is relative to the home folder there; an existing folder is what LOCAL
    is copied into. A TARGET may be several instances. Times and permissions are kept.

    \b
    Examples:
      bilbo put test analysis.ipynb
      bilbo put test data input/
      bilbo put test model.bin -t workers
    """
    from bilbo.cluster import hosts, targets

    record = context.store.load(name)
    nodes = targets.resolve(record, target)
    with reaching(context, record, timeout, live=True) as w, CopyProgress(w.progress) as progress:
        hosts.put(w, record, nodes, local, remote, progress.copying)
