"""Where in a profile a mistake is, and how messages show keys and values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bilbo.text import without_credentials

KeyPath = tuple[str | int, ...]
"""The keys and list indexes that lead to a value; () is the whole document."""

_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True)
class Places:
    """Where a document's values come from, as far as known.

    `where` is the file, `lines` the line (from 1) of each key or list item, `overrides` the
    path and the text of each `-p`. `what` is how errors call the document.
    """

    where: str = "profile"
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    overrides: tuple[tuple[KeyPath, str], ...] = ()
    what: str = "the profile"

    def of(self, path: KeyPath) -> str:
        """`FILE:LINE` of the path or its nearest parent, or the `-p` that set it."""
        for prefix, text in reversed(self.overrides):
            if path[: len(prefix)] == prefix:
                return f"-p {shown(without_credentials(text), 80)}"
        return f"{self.where}:{self.line(path)}" if self.lines else self.where

    def line(self, path: KeyPath) -> int:
        """The line of `path` or of the nearest parent that has one."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return 1


def shown(text: str, limit: int = 60) -> str:
    """`text` on one line, safe for any terminal, at most `limit` characters."""
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", short)


def dotted(path: KeyPath) -> str:
    """`path` as `-p` takes it, such as `dask.worker.count`."""
    return ".".join(shown(str(step)) for step in path)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The `known` name that was probably meant, if any is similar."""
    import difflib

    plain = {re.sub("[^a-z0-9]", "", each.lower()): each for each in known}
    wanted = re.sub("[^a-z0-9]", "", name[:100].lower())
    found = difflib.get_close_matches(wanted, plain, n=1)
    return plain[found[0]] if found else None
