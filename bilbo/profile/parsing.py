"""Reads JSON with comments and trailing commas; refuses duplicate keys.

Spaces replace whatever is not JSON, so that every offset stays correct. The standard library then
parses the text, and a second pass over the same tokens finds the line of each key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bilbo.errors import ProfileError
from bilbo.profile.places import KeyPath, shown

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_DIGITS = 100

TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<open>[{\[]) | (?P<close>[}\]]) | (?P<comma>,) | (?P<colon>:)
      | (?P<broken>/\*|"|')
      | (?P<scalar>[^\s"'{}\[\],:/]+|/)""",
    re.VERBOSE | re.DOTALL,
)

# The standard library's messages differ between Python releases; these do not.
_WORDS = (
    ("Expecting property name", "expected a key in double quotes"),
    ("Expecting value", "expected a value"),
    ("Expecting ',' delimiter", "a comma is missing before this, or a bracket is not closed"),
    ("Expecting ':' delimiter", "a colon is missing after the key"),
    ("Illegal trailing comma", "there is an extra comma"),
    ("Extra data", "the profile ends before this: remove the extra bracket or text"),
    ("Invalid control character", "a string contains a raw control character; write \\n or \\t"),
    ("Invalid \\", "this is not an escape sequence; write \\\\ for a backslash"),
)


class DuplicateKeyError(ProfileError):
    """An object has the same key twice: valid JSON, but never intended."""


@dataclass(frozen=True)
class Source:
    """A parsed text with the line (from 1) on which each key and list item begins."""

    document: Any
    lines: Mapping[KeyPath, int]


@dataclass
class _Container:
    """An open object or list; `key` is the step to the next value."""

    path: KeyPath
    key: str | int | None
    seen: dict[str, int] = field(default_factory=dict)


def read(path: Path) -> dict[str, Any]:
    """The unchecked profile in the file `path`. Raises ProfileError as `source` does."""
    document = source(path).document
    if not isinstance(document, dict):
        raise ProfileError("a profile must be an object, { … }", where=f"{shown(str(path), 500)}:1")
    return document


def source(path: Path) -> Source:
    """The JSON in the file `path`, with its lines.

    Raises ProfileError with file, line and column if the file cannot be read or parsed.
    """
    where = shown(str(path), 500)
    if path.is_dir():
        raise ProfileError("this is a folder, not a profile", where=where)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=where) from None
    if len(data) > MAX_BYTES:
        raise ProfileError("must not be larger than 1 MiB", where=where)
    return parse(_decode(data, where), where)


def parse(text: str, where: str) -> Source:
    """The JSON in `text`; `where` names it in errors. Raises ProfileError as `source` does."""
    plain = _plain(text, where)
    if not plain.strip():
        raise ProfileError("is empty; the smallest profile is {}", where=where)
    try:
        document = json.loads(plain)
    except json.JSONDecodeError as error:
        words = next((ours for theirs, ours in _WORDS if error.msg.startswith(theirs)), error.msg)
        raise _mistake(words, text, error.pos, where) from None
    return Source(document, _lines(plain, where))


def _decode(data: bytes, where: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProfileError(
            f"the byte 0x{data[error.start]:02x} is not UTF-8",
            where=f"{where}:{line}",
            hint="Save the profile as UTF-8.",
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _plain(text: str, where: str) -> str:
    """`text` with spaces for comments and trailing commas. Raises ProfileError for other errors."""
    pieces = list(text)
    comma = None  # the offset of a comma that is trailing if a bracket closes next
    before = ""
    depth = 0
    for token in TOKEN.finditer(text):
        kind = str(token.lastgroup)
        start, end = token.span()
        if kind == "comment":
            pieces[start:end] = re.sub(r"[^\n]", " ", token[0])
            continue
        if kind == "close" and comma is not None:
            pieces[comma] = " "
        depth += (kind == "open") - (kind == "close")
        problem = _problem(kind, token[0], depth)
        if problem:
            raise _mistake(problem, text, start, where)
        # `[,]` and `[1,,]` are errors, not lists with a trailing comma
        comma = start if kind == "comma" and before not in ("", "open", "comma", "colon") else None
        before = kind
    return "".join(pieces)


def _problem(kind: str, token: str, depth: int) -> str | None:
    """What is wrong with one token, where the standard library has no message for it."""
    if kind == "broken":
        words = {
            "/*": "a comment is not closed; */ is missing",
            '"': "a string is not closed; its closing double quote is missing on this line",
            "'": "a string needs double quotes, not single ones",
        }
        return words[token]
    if depth > MAX_DEPTH:
        return f"is nested more than {MAX_DEPTH} levels deep"
    if kind != "scalar" or token in ("true", "false", "null"):
        return None
    if re.fullmatch(r"-?[0-9][0-9.eE+-]*", token) is None:
        return f"{shown(token)} is not a value; a string needs double quotes"
    return "this number is too large" if _is_huge(token) else None


def _is_huge(token: str) -> bool:
    if len(token) > MAX_DIGITS:
        return True
    try:
        return math.isinf(float(token))
    except ValueError:
        return False  # not a number: the parser reports it


def _lines(plain: str, where: str) -> dict[KeyPath, int]:
    """The line of each key and list item of `plain`, which is valid JSON."""
    lines: dict[KeyPath, int] = {}
    inside: list[_Container] = []
    for token, line in _tokens_with_lines(plain):
        kind, top = token.lastgroup, inside[-1] if inside else None
        if kind == "close":
            inside.pop()
        elif kind == "comma" and top:
            top.key = top.key + 1 if isinstance(top.key, int) else None
        elif kind == "string" and top and top.key is None:
            key = json.loads(token[0])
            if key in top.seen:
                words = f"the key {shown(key)} is already on line {top.seen[key]}"
                raise _mistake(words, plain, token.start(), where, DuplicateKeyError)
            top.key, top.seen[key] = key, line
            here: KeyPath = (*top.path, key)
            lines[here] = line
        elif kind != "colon":
            path: KeyPath = () if top is None or top.key is None else (*top.path, top.key)
            lines.setdefault(path, line)
            if kind == "open":
                inside.append(_Container(path, 0 if token[0] == "[" else None))
    return lines


def _tokens_with_lines(plain: str) -> Iterator[tuple[re.Match[str], int]]:
    line, counted = 1, 0
    for token in TOKEN.finditer(plain):
        line += plain.count("\n", counted, token.start())
        counted = token.start()
        yield token, line


def _mistake(
    what: str, text: str, offset: int, where: str, kind: type[ProfileError] = ProfileError
) -> ProfileError:
    """The error at `offset`, with its line and a mark below the column."""
    begin = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    line = text[begin : end if end >= 0 else len(text)]
    column = offset - begin
    left = max(0, column - 40)
    mark = " " * len(shown(line[left:column], 500)) + "^"
    return kind(
        what,
        where=f"{where}:{text.count(chr(10), 0, offset) + 1}:{column + 1}",
        details=(shown(line[left : left + 80], 500), mark),
    )
