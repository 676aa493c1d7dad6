"""Files and folders to and from a host, over SFTP."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from bilbo.model import Node
from bilbo.remote.connection import PrivateKeys, connected
from bilbo.remote.fetching import Fetching
from bilbo.remote.terms import HostFailure, Remote, on_each


@dataclass(frozen=True)
class Copying:
    """Progress of one file in bytes. `path` is the source's, on either side."""

    node: Node
    path: str
    done: int
    total: int


MOST_NAMED = 20
OnCopying = Callable[[Copying], None]


async def get_files(
    node: Node, source: str, target: Path, remote: Remote, *, on_copying: OnCopying
) -> HostFailure | None:
    """Copy a file or a folder from a host, with times and permissions: see `fetching`.

    `source` is relative to the home there. As with scp, an existing folder `target` receives the
    copy. Returns what failed or was skipped; files copied by then stay.
    """
    left_out: list[str] = []

    async def work(client: asyncssh.SFTPClient, moving: Moving) -> None:
        def tell(path: str, done: int, total: int) -> None:
            moving.progress(os.fsencode(path), b"", done, total)

        await Fetching(client, tell, left_out, moving.alive).get(in_home(source), target)

    failure = await over_sftp(node, remote, on_copying, source, work)
    if failure is None and left_out:
        more = [f"and {len(left_out) - MOST_NAMED} more"] if len(left_out) > MOST_NAMED else []
        return HostFailure(
            f"{len(left_out)} file(s) or folder(s) were skipped; the rest was copied",
            log=[*left_out[:MOST_NAMED], *more],
        )
    return failure


async def put_files(
    nodes: tuple[Node, ...], source: Path, target: str, remote: Remote, *, on_copying: OnCopying
) -> tuple[HostFailure | None, ...]:
    """Copy a file or a folder to hosts, with times and permissions; follows symbolic links.

    `target` is relative to the home there; empty means the home itself. Returns each node's
    failure, if any.
    """

    async def work(client: asyncssh.SFTPClient, moving: Moving) -> None:
        await client.put(
            source,
            in_home(target),
            recurse=True,
            preserve=True,
            follow_symlinks=True,
            progress_handler=moving.progress,
        )

    async def one(node: Node) -> HostFailure | None:
        return await over_sftp(node, remote, on_copying, str(source), work)

    return await on_each(nodes, remote.limit, one)


class Moving:
    """A copy to or from one host, ended when nothing has moved for `seconds`."""

    def __init__(self, node: Node, on_copying: OnCopying, seconds: float) -> None:
        self._node = node
        self._on_copying = on_copying
        self._seconds = seconds
        self._moved = time.monotonic()

    def alive(self) -> None:
        """The host has answered something."""
        self._moved = time.monotonic()

    def progress(self, path: bytes, _target: bytes, done: int, total: int) -> None:
        """Bytes have moved."""
        self.alive()
        self._on_copying(Copying(self._node, os.fsdecode(path), done, total))

    async def watched(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work. Raises its errors, and HostFailure when nothing moves any more."""
        self.alive()
        task = asyncio.ensure_future(work)
        try:
            while (left := self._moved + self._seconds - time.monotonic()) > 0:
                await asyncio.wait({task}, timeout=left)
                if task.done():
                    task.result()
                    return
            raise HostFailure(
                f"nothing has moved for {self._seconds:.0f} s",
                hint="Check the host and its disks. With --timeout bilbo waits longer.",
            )
        finally:
            task.cancel()
            await asyncio.wait({task}, timeout=1)


async def over_sftp(
    node: Node,
    remote: Remote,
    on_copying: OnCopying,
    source: str,
    work: Callable[[asyncssh.SFTPClient, Moving], Awaitable[None]],
) -> HostFailure | None:
    """Run `work` with one host's files, including `source`. Returns the failure, if any, also when
    nothing moves for `remote.deadlines.start`."""
    moving = Moving(node, on_copying, remote.deadlines.start)

    async def with_client(connection: asyncssh.SSHClientConnection) -> None:
        async with connection.start_sftp_client() as client:
            await work(client, moving)

    try:
        async with connected(node, remote, PrivateKeys()) as connection:
            await moving.watched(with_client(connection))
    except HostFailure as failure:
        return failure
    except (asyncssh.Error, OSError) as error:
        return HostFailure(in_words(error, source))
    return None


def in_words(error: Exception, otherwise: str) -> str:
    """An error of SFTP or of the file system, with its paths."""
    cause = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
    paths = [getattr(error, name, None) for name in ("srcpath", "dstpath")]
    about = " to ".join(os.fsdecode(path) for path in paths if path) or otherwise
    return f"{about}: {cause}"


def in_home(path: str) -> str:
    """A path for SFTP, which does not expand `~`; relative paths start in the home."""
    rest = "" if path == "~" else path.removeprefix("~/")
    return rest.rstrip("/") or ("/" if rest else ".")
