"""bilbo's own log: `logs/bilbo.log` under its home, of bounded size, without secrets.

What is told on stderr is logged, and how each command ended; outputs and URLs are not.
"""

from __future__ import annotations

import logging
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from bilbo.text import plain

_BYTES = 1_000_000
_FILES = 3


class _Private(RotatingFileHandler):
    """Every file of the log is the user's alone, also after it has turned over."""

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).touch(mode=0o600)
        Path(self.baseFilename).chmod(0o600)
        return super()._open()


class _Lines(logging.Formatter):
    """Nothing that a message quotes can look like another message: its later lines are indented,
    and control characters are written out."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record)).replace("\n", "\n    ")


def open_log(home: Path) -> logging.Logger:
    """The log of this process, opened at the first call. A log that cannot be written is none."""
    logger = logging.getLogger("bilbo")
    if logger.handlers:
        return logger
    logger.setLevel(logging.INFO)
    logger.propagate = False
    path = home / "logs" / "bilbo.log"
    try:
        handler: logging.Handler = _Private(
            path, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8", delay=True
        )
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(_Lines("%(asctime)s %(process)d %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logging.raiseExceptions = False  # a full disk must not spoil what the command prints
    return logger
