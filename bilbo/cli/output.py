"""The one way to a terminal: whatever the commands print goes through here, or through
`bilbo.cli.screen` where it is coloured or live.

What hosts, AWS, Terraform, states and locks said may stand in any of it, so nothing that a
terminal would obey leaves these modules. A test forbids every other way in `bilbo.cli`.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import click

from bilbo.text import json_text, plain


def can_move(stream: TextIO) -> bool:
    """Whether a stream leads to a terminal that knows colours and moves its cursor."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Prints a result; with `err` something beside it, on stderr."""
    click.echo(plain(str(text)), err=err, nl=nl)


def print_json(document: object) -> None:
    """Prints a document for programs."""
    echo(json_text(document))


def ask(question: str) -> bool:
    """Whether the person at the terminal agrees. Raises click's Abort at its end."""
    return click.confirm(plain(question), err=True)


def echo_lines(text: str, *, err: bool = False) -> None:
    """As `echo`; on a terminal lines that tell of an end, a failure or a change are coloured."""
    stream = sys.stderr if err else sys.stdout
    if can_move(stream):
        from bilbo.cli.screen import print_lines

        print_lines(text, stream)
    else:
        echo(text, err=err)


def echo_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints a table as a result, its first row the heading; on a terminal it fits the width."""
    if can_move(sys.stdout):
        from bilbo.cli.screen import print_table

        print_table(rows, sys.stdout)
    else:
        from bilbo.present.report import table

        echo(table(rows))


class Foreign:
    """What a host prints, passed on to stdout or stderr: as it is to a pipe or a file, and to a
    terminal as `plain` text, also where a character comes in pieces."""

    def __init__(self, *, err: bool) -> None:
        self._stream = sys.stderr if err else sys.stdout
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # a carriage return that may be half of a line's end

    def write(self, data: bytes) -> None:
        """Prints what came. Raises OSError when nobody reads any more."""
        if self._stream.isatty():
            text = self._held + self._decoder.decode(data)
            self._held = "\r" if text.endswith("\r") else ""
            data = plain(text.removesuffix(self._held)).encode()
        self._stream.buffer.write(data)
        self._stream.flush()

    def end(self) -> None:
        """Prints what was held back: nothing more comes."""
        if rest := self._held + self._decoder.decode(b"", final=True):
            self._held = ""
            self._stream.buffer.write(plain(rest).encode())
            self._stream.flush()
