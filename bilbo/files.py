"""Writes files with secrets or state in one step, readable only by their owner."""

from __future__ import annotations

import os
from pathlib import Path


def private_folder(path: Path) -> None:
    """Creates a folder and its missing parents for the owner only. Leaves an existing folder as it
    is. Raises OSError."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def private_append(path: Path, text: str) -> None:
    """Appends a short `text` to `path`, mode 0600, at once. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, flags, 0o600)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def private_write(path: Path, text: str | bytes) -> None:
    """Replaces `path` by `text` in one step, mode 0600; creates its folder, mode 0700. Raises
    OSError."""
    import tempfile

    data = text.encode() if isinstance(text, str) else text
    private_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
