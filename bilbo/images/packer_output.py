"""Parses Packer's `-machine-readable` output: lines of `TIME,TARGET,TYPE,DATA,…`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Source: Packer's documentation, "Machine-Readable Output".
_ESCAPES = (("%!(PACKER_COMMA)", ","), ("\\n", "\n"), ("\\r", "\r"))
# Packer prefixes its messages with the builder's name.
_BUILDER = re.compile(r"\A(?:==>|-->)?\s*[\w.-]+:\s+")


@dataclass(frozen=True)
class Event:
    """A line of the stream. `kind` is `say` (a step begins), `message` (within a step), `error`,
    `artifact` (with the text `REGION:AMI`), or bilbo's own `interrupt`."""

    kind: str
    text: str


def parse(line: str) -> Event | None:
    """The event in a line; None for other lines, and for events that people need not see."""
    fields = line.rstrip("\r\n").split(",")
    if len(fields) < 4 or not fields[0].isdigit():
        return None
    kind, data = fields[2], [_plain(field) for field in fields[3:]]
    if kind == "ui" and data[0] in ("say", "message", "error"):
        whole = ",".join(data[1:]).strip()
        text = _BUILDER.sub("", whole)
        if data[0] == "say" and (text == whole or whole.startswith("-->")):
            return None  # Packer's own message about its builders
        return Event(data[0], text) if text else None
    if kind == "artifact" and data[1:2] == ["id"]:
        return Event("artifact", data[2])
    return None


def _plain(field: str) -> str:
    for escaped, plain in _ESCAPES:
        field = field.replace(escaped, plain)
    return field


def built(events: Iterable[Event]) -> tuple[str, str] | None:
    """The region and the id of the AMI that was built; None if none was."""
    for event in events:
        region, _, ami = event.text.partition(":")
        if event.kind == "artifact" and ami.startswith("ami-"):
            return region, ami
    return None
