"""bilbo's own log: `logs/bilbo.log` in its home, bounded in size and free of secrets.

It holds what bilbo prints on stderr and how each command ended, but no outputs or URLs.
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
    """Keeps every log file private to the user, also after a rotation."""

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).touch(mode=0o600)
        Path(self.baseFilename).chmod(0o600)
        return super()._open()


class _Lines(logging.Formatter):
    """Indents continuation lines and escapes control characters, so that quoted text cannot pass
    for another message."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record)).replace("\n", "\n    ")


def open_log(home: Path) -> logging.Logger:
    """Returns this process's log, and opens it at the first call. An unwritable log is skipped."""
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
    logging.raiseExceptions = False  # a full disk must not garble the command's output
    return logger
