"""Times in words. Pure."""

from __future__ import annotations

from datetime import datetime


def local_time(iso: str) -> str:
    """Returns an ISO 8601 time as local time, to the second."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S")
