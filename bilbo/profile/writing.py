"""Edits a profile's file as a person would: everything else stays as it is, comments too."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from bilbo.errors import ProfileError
from bilbo.profile.parsing import TOKEN, parse
from bilbo.profile.places import KeyPath, shown

_CHOICES = ("ami", "image")


@dataclass
class _Inside:
    """An open object or list; `key` is the step to the next value, `at` its offset."""

    path: KeyPath
    key: str | int | None
    at: int = 0


@dataclass
class _Spans:
    """Where values are in a text: `members` from the first character of the key to the last of the
    value, `opened` the offset after the opening bracket of each object or list."""

    members: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    opened: dict[KeyPath, int] = field(default_factory=dict)


def write_ami(path: Path, ami: str) -> None:
    """Sets `ami` in the profile's common instance, replacing its `ami` or `image`.

    Raises ProfileError for a file that cannot be read, parsed or written.
    """
    where = shown(str(path), 500)
    try:
        text = path.read_bytes().decode("utf-8")
        changed = with_ami(text, ami, where)
        _replace(path.resolve(), changed.encode("utf-8"))
    except UnicodeDecodeError:
        raise ProfileError("is not UTF-8", where=where) from None
    except OSError as error:
        raise ProfileError(f"cannot be changed: {error.strerror}", where=where) from None


def with_ami(text: str, ami: str, where: str = "profile") -> str:
    """The profile `text` with `ami` in its common instance. Raises ProfileError as `parse` does."""
    document = parse(text.removeprefix("\ufeff").replace("\r\n", "\n"), where).document
    common = document.get("instance", {}) if isinstance(document, dict) else None
    if not isinstance(common, dict):
        raise ProfileError("`instance` is not an object; check it with `bilbo plan`", where=where)
    spans = _spans(text)
    member = f'"ami": {json.dumps(ami)}'
    for choice in _CHOICES:
        if choice in common:
            start, end = spans.members["instance", choice]
            return text[:start] + member + text[end:]
    if ("instance",) in spans.opened:
        return _inserted(text, spans.opened["instance",], member, bool(common))
    return _inserted(text, spans.opened[()], f'"instance": {{{member}}}', bool(document))


def _inserted(text: str, at: int, member: str, before_others: bool) -> str:
    """`text` with `member` first in the object that opens before `at`, indented as the next."""
    space = re.match(r"\s*", text[at:])
    gap = space[0] if space and before_others else ""
    return f"{text[:at]}{gap}{member}{',' if before_others else ''}{text[at:]}"


def _spans(text: str) -> _Spans:
    """The spans in `text`, which is valid JSON with comments."""
    spans = _Spans()
    inside: list[_Inside] = []
    for token in TOKEN.finditer(text):
        kind, top = token.lastgroup, inside[-1] if inside else None
        if kind == "close":
            closed = inside.pop()
            if inside:
                spans.members[closed.path] = (inside[-1].at, token.end())
        elif kind == "comma" and top:
            top.key = top.key + 1 if isinstance(top.key, int) else None
        elif kind == "string" and top and top.key is None:
            top.key, top.at = json.loads(token[0]), token.start()
        elif kind in ("open", "string", "scalar"):
            path: KeyPath = () if top is None or top.key is None else (*top.path, top.key)
            if kind == "open":
                inside.append(_Inside(path, 0 if token[0] == "[" else None))
                spans.opened[path] = token.end()
            elif top:
                spans.members[path] = (top.at, token.end())
    return spans


def _replace(path: Path, data: bytes) -> None:
    """Replaces the file in one step, keeping its permissions."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(data)
        shutil.copymode(path, fresh)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
