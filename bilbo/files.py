"""Writing files that hold secrets or state: in one step, readable by their owner only."""

from __future__ import annotations

import os
from pathlib import Path


def private_folder(path: Path) -> None:
    """Makes a folder, and those above it that are missing, for its owner only. One that is there
    stays as it is. Raises OSError."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def private_write(path: Path, text: str | bytes) -> None:
    """Replaces `path` in one step with `text`, mode 0600; makes its folder, mode 0700. Raises
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
