"""What a terminal gets beyond plain lines: a live region, colour, tables that fit its width.

The only module that imports rich, and imported on terminals only. rich obeys markup such as
`[red]` in strings, so it gets none: `_text` makes every text `plain` and a `Text`, which it prints
as it is. Only colours are used, so NO_COLOR leaves nothing but the text.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from bilbo.cli.bars import Bar
from bilbo.text import plain

_REFRESHES_PER_SECOND = 10
_BAR_COLUMNS = 40
# What a line tells by its form: something ends or failed, changes, or comes.
_LINES = (
    (re.compile(r"^(  - |-/\+ ).*$|^.*\bfailed(: | at \w+: ).*$|^bilbo: .*$", re.MULTILINE), "red"),
    (re.compile(r"^  ~ .*$", re.MULTILINE), "yellow"),
    (re.compile(r"^  \+ .*$", re.MULTILINE), "green"),
)
# The same for cells, by the column's heading.
_ENDS = dict.fromkeys(
    ("failed", "damaged", "destroying", "stopping", "stopped", "shutting-down", "terminated"), "red"
)
_STATES = _ENDS | dict.fromkeys(("creating", "starting", "pending", "partial"), "yellow")
_CELLS = {
    "STATUS": _STATES | {"ready": "green"},
    "STATE": _STATES | {"running": "green"},
    "BREAKS": {"yes": "red"},
}


def print_lines(text: str, stream: TextIO) -> None:
    """Prints text with its lines coloured by what they tell; nothing is wrapped."""
    _console(stream).print(_coloured(text), soft_wrap=True)


def print_table(rows: Sequence[Sequence[str]], stream: TextIO) -> None:
    """Prints a table no wider than the terminal, long cells on several lines; the first row is
    the heading."""
    console = _console(stream)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for title in rows[0]:
        table.add_column(_text(title), overflow="fold")
    for row in rows[1:]:
        pairs = zip(rows[0], row, strict=True)
        table.add_row(*(_text(cell, _CELLS.get(of, {}).get(cell, "")) for of, cell in pairs))
    console.print(table)


class Display:
    """The live region at the bottom of stderr, and the lines that stay above it."""

    def __init__(self) -> None:
        self._console = _console(sys.stderr)
        self._spinner = Spinner("line" if self._console.options.ascii_only else "dots")
        self._shown: tuple[str, Bar | None, float] = ("", None, 0.0)
        self._live: Live | None = None

    def show(self, note: str, bar: Bar | None, since: float) -> None:
        """Replaces what the region shows: what goes on, how far it is, and since when (monotonic).

        It is drawn some times a second, however often it changes.
        """
        self._shown = (note, bar, since)  # in one step: another thread draws it
        if self._live is None:
            self._live = Live(
                get_renderable=self._region,
                console=self._console,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
            # A bilbo that is stopped or killed cannot bring back a cursor that rich has hidden.
            self._console.show_cursor(True)

    def print(self, text: str) -> None:
        """A line that stays, above the region."""
        self._console.print(_coloured(text), soft_wrap=True)

    def clear(self) -> None:
        """Takes the region away until something is shown again."""
        live, self._live = self._live, None
        if live:
            live.stop()

    def _region(self) -> RenderableType:
        note, bar, since = self._shown
        frame = self._spinner.render(self._console.get_time())
        assert isinstance(frame, Text)  # as it is for a spinner without a text of its own
        seconds = f"{int(time.monotonic() - since)} s"
        if not bar:
            return _line(frame, f" {note} ({seconds})")
        width = max(1, min(_BAR_COLUMNS, self._console.width - len(bar.title) - 12))
        head = Table.grid(padding=(0, 1, 0, 0))
        head.add_row(
            frame,
            _line(bar.title),
            ProgressBar(
                total=bar.total,
                completed=bar.done,
                width=width,
                complete_style="cyan",
                finished_style="green",
                pulse_style="cyan",
            ),
            _line(seconds),
        )
        lines: list[RenderableType] = [head]
        if bar.counts or bar.failed:
            failed = f"{', ' if bar.counts else ''}{bar.failed} failed" if bar.failed else ""
            lines.append(_line("  ", bar.counts, (failed, "red")))
        if note:
            lines.append(_line("  ", note))
        return Group(*lines)


def _console(stream: TextIO) -> Console:
    # Whether it is a terminal has been judged already; nothing in the environment says otherwise.
    return Console(file=stream, force_terminal=True, markup=False, emoji=False, highlight=False)


def _text(text: str, style: str = "") -> Text:
    return Text(plain(text), style)


def _line(*parts: str | Text | tuple[str, str]) -> Text:
    """One line of the region, cut off where the terminal ends."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for part in parts:
        if isinstance(part, Text):
            line.append_text(part)
        else:
            text, style = part if isinstance(part, tuple) else (part, "")
            line.append(plain(text).replace("\n", " ").replace("\t", " "), style)
    return line


def _coloured(text: str) -> Text:
    made = _text(text)
    for pattern, style in _LINES:
        for found in pattern.finditer(made.plain):
            made.stylize(style, *found.span())
    return made
