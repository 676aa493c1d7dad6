"""Copies files from a host for `get`: walks them itself, and writes only inside one folder.

A host's listing is not trusted: a name must be a single step, links are neither created nor
followed here, and the copies get no permissions beyond the user's own.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import asyncssh

# Bytes per request; asyncssh reads its blocks in parallel. As many as come in about a second: each
# request ends by the deadline of a host that has fallen silent.
FIRST_CHUNK, LONGEST_CHUNK = 256 << 10, 4 << 20
DEEPEST = 100
KEPT_MODE = 0o755
# On Windows, which lacks these, each step of a path is checked before it is opened.
_AT = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_NO_LINK = 0  # do not block on a FIFO, nor make a terminal the controlling one
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_BINARY", "O_CLOEXEC"):
    _NO_LINK |= getattr(os, _flag, 0)

# Called with a file's path on the host, the bytes so far, and the total.
Progress = Callable[[str, int, int], None]


class Refused(Exception):
    """Why a file or folder is skipped."""


@dataclass
class Fetching:
    """One copy from a host. `left_out` says what was not copied, and why.

    `alive` is called for whatever the host lists, `progress` for what it sends.
    """

    client: asyncssh.SFTPClient
    progress: Progress
    left_out: list[str] = field(default_factory=list)
    alive: Callable[[], None] = lambda: None

    async def get(self, source: str, target: Path) -> None:
        """Copies `source` to `target`, or into `target` if that is a folder. Raises the errors of
        SFTP and of the file system."""
        attributes = await self.client.stat(source)
        try:
            await self._get(source, attributes, target)
        except Refused as why:
            self.left_out.append(f"{source}: {why}")

    async def _get(self, source: str, attributes: asyncssh.SFTPAttrs, target: Path) -> None:
        if target.is_dir():
            name = source.rstrip("/").rpartition("/")[2]
            if name in ("", ".", ".."):  # the home or the root: as scp does, use its real name
                name = str(await self.client.realpath(source)).rstrip("/").rpartition("/")[2]
            folder, name = target, step(name)
        else:
            folder, name = target.parent, target.name
        with _Folder.open(folder) as here:
            await self._one(source, attributes, here, name, 0)

    async def _one(
        self, path: str, attributes: asyncssh.SFTPAttrs, here: _Folder, name: str, depth: int
    ) -> None:
        kind = stat.S_IFMT(attributes.permissions or stat.S_IFREG)
        if kind == stat.S_IFDIR:
            if depth == DEEPEST:
                raise Refused(f"it is more than {DEEPEST} folders deep")
            with here.enter(name) as folder:
                await self._folder(path, folder, depth)
                folder.finish(attributes)
        elif kind == stat.S_IFREG:
            await self._file(path, attributes, here, name)
        else:
            raise Refused("it is neither a file nor a folder")

    async def _folder(self, path: str, here: _Folder, depth: int) -> None:
        async for name, attributes in self._entries(path):
            below = f"{path.rstrip('/')}/{name}"
            try:
                if stat.S_ISLNK(attributes.permissions or 0):
                    attributes = await self._behind_link(below)
                await self._one(below, attributes, here, step(name), depth + 1)
            except Refused as why:
                self.left_out.append(f"{below}: {why}")

    async def _entries(self, path: str) -> AsyncIterator[tuple[str, asyncssh.SFTPAttrs]]:
        seen: set[str] = set()
        async for entry in self.client.scandir(path):
            self.alive()
            name = os.fsdecode(entry.filename)
            if name in (".", ".."):
                continue
            if name in seen:
                self.left_out.append(f"{path}/{name}: it is listed twice")
                continue
            seen.add(name)
            attributes = entry.attrs
            if attributes.permissions is None:
                attributes = await self.client.lstat(f"{path.rstrip('/')}/{name}")
            yield name, attributes

    async def _behind_link(self, path: str) -> asyncssh.SFTPAttrs:
        """Copies a link to a file as the file. Links to folders may form loops."""
        try:
            attributes = await self.client.stat(path)
        except asyncssh.SFTPError as error:
            raise Refused(f"it is a broken link ({error.reason})") from None
        if not stat.S_ISREG(attributes.permissions or 0):
            raise Refused("it is a link to a folder")
        return attributes

    async def _file(
        self, path: str, attributes: asyncssh.SFTPAttrs, here: _Folder, name: str
    ) -> None:
        total, done, chunk = attributes.size or 0, 0, FIRST_CHUNK
        async with self.client.open(path, "rb") as source:
            with here.create(name) as target:
                began = time.monotonic()
                while data := await source.read(chunk, done):
                    assert isinstance(data, bytes)  # it was opened as bytes
                    now = time.monotonic()
                    faster = min(2 * chunk, LONGEST_CHUNK)
                    chunk = faster if now - began < 1 else FIRST_CHUNK
                    began = now
                    target.write(data)
                    done += len(data)
                    self.progress(path, done, max(total, done))
                self.progress(path, done, done)
                target.flush()
                _finish(target.fileno(), attributes)


def step(name: str) -> str:
    """A name that stays in its folder, on any system. Raises Refused."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise Refused("its name points outside the folder")
    if os.name == "nt" and (set(name) & set('\\:<>"|?*') or name.endswith((".", " "))):
        raise Refused("its name is not valid on this system")
    return name


@dataclass(frozen=True)
class _Folder:
    """An open local folder: files are created in it even if its path is replaced meanwhile."""

    path: Path
    descriptor: int

    @classmethod
    def open(cls, path: Path) -> _Folder:
        """A folder that the user named: links in its path are the user's own."""
        return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY) if _AT else -1)

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def enter(self, name: str) -> _Folder:
        """The folder of that name, created if missing. Raises Refused if it is something else."""
        path = self.path / name
        if not _AT:
            _no_link(path)
            path.mkdir(mode=0o700, exist_ok=True)
            return _Folder(path, -1)
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | _NO_LINK
            return _Folder(path, os.open(name, flags, dir_fd=self.descriptor))
        except OSError as error:
            raise Refused(f"{path} cannot be entered: {error.strerror}") from None

    def create(self, name: str) -> BinaryIO:
        """The file of that name, empty and open for writing. Raises Refused if it is not a file."""
        flags = os.O_WRONLY | os.O_CREAT | _NO_LINK
        path = self.path / name
        if not _AT:
            _no_link(path)
        try:
            found = os.open(
                name if _AT else path, flags, 0o600, dir_fd=self.descriptor if _AT else None
            )
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise
            raise Refused(f"{path} cannot be written: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise Refused(f"{path} is not a file")
        os.ftruncate(found, 0)
        return os.fdopen(found, "wb")

    def finish(self, attributes: asyncssh.SFTPAttrs) -> None:
        """Sets the times and permissions that the folder has on the host."""
        if _AT:
            _finish(self.descriptor, attributes)


def _no_link(path: Path) -> None:
    if path.is_symlink():
        raise Refused(f"{path} is a link")


def _finish(descriptor: int, attributes: asyncssh.SFTPAttrs) -> None:
    """Sets times and permissions: never setuid, setgid, or writable by others."""
    with suppress(OSError, OverflowError, ValueError):
        if attributes.atime is not None and attributes.mtime is not None and _AT:
            os.utime(descriptor, (attributes.atime, attributes.mtime))
    if attributes.permissions is not None and hasattr(os, "fchmod"):
        os.fchmod(descriptor, attributes.permissions & KEPT_MODE)
