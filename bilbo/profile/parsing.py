"""Reads JSON as people write it: comments and trailing commas are fine, duplicate keys are not.

What is not JSON is blanked out with spaces, so that every offset stays true; the standard
library then does the parsing, and a second walk over the same tokens finds each key's line.
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

# The standard library's words differ between Python's releases; these do not.
_WORDS = (
    ("Expecting property name", "a key in double quotes is expected here"),
    ("Expecting value", "a value is expected here"),
    ("Expecting ',' delimiter", "a comma is missing before this, or a bracket is not closed"),
    ("Expecting ':' delimiter", "a colon is missing after the key"),
    ("Illegal trailing comma", "there is a comma too many"),
    ("Extra data", "the profile ends before this: there is a bracket too many, or text after it"),
    ("Invalid control character", "a text must not hold a raw control character; write \\n or \\t"),
    ("Invalid \\", "a single backslash means nothing here; write two (\\\\) for one"),
)


class DuplicateKeyError(ProfileError):
    """An object has one key twice: JSON by its grammar, but never what was meant."""


@dataclass(frozen=True)
class Source:
    """A parsed text and, for each key and list item, the line (from 1) on which it begins."""

    document: Any
    lines: Mapping[KeyPath, int]


@dataclass
class _Container:
    """An object or a list that the walk is inside of; `key` is the step to the next value."""

    path: KeyPath
    key: str | int | None
    seen: dict[str, int] = field(default_factory=dict)


def read(path: Path) -> dict[str, Any]:
    """The profile in the file `path`, unchecked. Raises ProfileError as `source` does."""
    document = source(path).document
    if not isinstance(document, dict):
        raise ProfileError("a profile must be an object, { … }", where=f"{shown(str(path), 500)}:1")
    return document


def source(path: Path) -> Source:
    """The JSON in the file `path`, with its lines.

    Raises ProfileError, with file, line and column, where it cannot be read or understood.
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
        raise ProfileError("is larger than 1 MiB; a profile never is", where=where)
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
            hint="Save the profile in the encoding UTF-8.",
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _plain(text: str, where: str) -> str:
    """`text` with spaces for comments and trailing commas, refusing what JSON has not."""
    pieces = list(text)
    comma = None  # a comma that is a trailing one if a bracket closes next
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
        # `[,]` and `[1,,]` are mistakes, not lists with a trailing comma
        comma = start if kind == "comma" and before not in ("", "open", "comma", "colon") else None
        before = kind
    return "".join(pieces)


def _problem(kind: str, token: str, depth: int) -> str | None:
    """What is wrong with one token, in words that the standard library does not have."""
    if kind == "broken":
        words = {
            "/*": "a comment is not closed; */ is missing",
            '"': "a text is not closed; its second double quote is missing on this line",
            "'": "a text must stand in double quotes",
        }
        return words[token]
    if depth > MAX_DEPTH:
        return f"is nested more than {MAX_DEPTH} levels deep"
    if kind != "scalar" or token in ("true", "false", "null"):
        return None
    if re.fullmatch(r"-?[0-9][0-9.eE+-]*", token) is None:
        return f"{shown(token)} is not a value; a text must stand in double quotes"
    return "this number is too large" if _is_huge(token) else None


def _is_huge(token: str) -> bool:
    if len(token) > MAX_DIGITS:
        return True
    try:
        return math.isinf(float(token))
    except ValueError:
        return False  # not a number at all: the parser says so


def _lines(plain: str, where: str) -> dict[KeyPath, int]:
    """The line of each key and list item of `plain`, which is known to be good JSON."""
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
                words = f"the key {shown(key)} is here again; line {top.seen[key]} has it too"
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
    """The error for the place `offset`, with its line and a mark below the column."""
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
