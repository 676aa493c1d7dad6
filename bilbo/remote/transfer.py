"""Files and folders to and from a host, over SFTP."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

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

    async def work(client: asyncssh.SFTPClient, progress: Progress) -> None:
        def tell(path: str, done: int, total: int) -> None:
            progress(os.fsencode(path), b"", done, total)

        await Fetching(client, tell, left_out).get(in_home(source), target)

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

    async def work(client: asyncssh.SFTPClient, progress: Progress) -> None:
        await client.put(
            source,
            in_home(target),
            recurse=True,
            preserve=True,
            follow_symlinks=True,
            progress_handler=progress,
        )

    async def one(node: Node) -> HostFailure | None:
        return await over_sftp(node, remote, on_copying, str(source), work)

    return await on_each(nodes, remote.limit, one)


Progress = Callable[[bytes, bytes, int, int], None]


async def over_sftp(
    node: Node,
    remote: Remote,
    on_copying: OnCopying,
    source: str,
    work: Callable[[asyncssh.SFTPClient, Progress], Awaitable[None]],
) -> HostFailure | None:
    """Run `work` with one host's files, including `source`. Returns the failure, if any."""

    def progress(path: bytes, _target: bytes, done: int, total: int) -> None:
        on_copying(Copying(node, os.fsdecode(path), done, total))

    try:
        async with (
            connected(node, remote, PrivateKeys()) as connection,
            connection.start_sftp_client() as client,
        ):
            await work(client, progress)
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
