"""The one way to a terminal: whatever the commands print goes through here.

What hosts, AWS, Terraform, states and locks said may stand in any of it, so nothing that a
terminal would obey leaves this module. A test forbids every other way in `bilbo.cli`.
"""

from __future__ import annotations

import codecs
import shutil
import sys

import click

from bilbo.text import json_text, plain

_ERASE = "\r\x1b[2K"


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Prints a result; with `err` something beside it, on stderr."""
    click.echo(plain(str(text)), err=err, nl=nl)


def print_json(document: object) -> None:
    """Prints a document for programs."""
    echo(json_text(document))


def ask(question: str) -> bool:
    """Whether the person at the terminal agrees. Raises click's Abort at its end."""
    return click.confirm(plain(question), err=True)


def live_line(text: str = "") -> None:
    """Replaces the line that the cursor stands in on a terminal's stderr; without text it goes."""
    line = plain(text).replace("\n", " ").replace("\t", " ")
    sys.stderr.write(_ERASE + line[: shutil.get_terminal_size().columns - 1])
    sys.stderr.flush()


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
