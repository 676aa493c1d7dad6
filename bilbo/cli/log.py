"""bilbo's own log: `logs/bilbo.log` under its home, of bounded size, without secrets.

What is told on stderr is logged, and how each command ended; outputs and URLs are not.
"""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

_BYTES = 1_000_000
_FILES = 3


def open_log(home: Path) -> logging.Logger:
    """The log of this process, opened at the first call. A log that cannot be written is none."""
    logger = logging.getLogger("bilbo")
    if logger.handlers:
        return logger
    logger.setLevel(logging.INFO)
    logger.propagate = False
    path = home / "logs" / "bilbo.log"
    try:
        path.touch(mode=0o600)
        handler: logging.Handler = RotatingFileHandler(
            path, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8", delay=True
        )
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logging.raiseExceptions = False  # a full disk must not spoil what the command prints
    return logger
