"""What a terminal shows, read from its screen: bars, colour, tables; and what a pipe gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pexpect
import pyte
import pytest
from bilbo_cli import Bilbo

from bilbo.record import Record, Store, now

HOSTS = """
import logging, sys, time
from bilbo.cli.console import Console
from bilbo.model import CONNECTED, FAILED, READY, STARTED
log = logging.Logger('quiet')
log.addHandler(logging.NullHandler())
with Console(log) as console:
    console.say("Start dask scheduler & workers.")
    console.hosts(1000)
    for milestone, count in ((CONNECTED, 1000), (STARTED, 990), (READY, 980)):
        for number in range(count):
            message = f"{milestone} " + 30 * "and so on "
            console.host(f"i-{number:017x}", "worker", "start", message, milestone)
            time.sleep(0.0003)
    for number in range(990, 1000):
        console.host(f"i-{number:017x}", "worker", "ready", "failed: why", FAILED)
    sys.stdin.readline()
"""
TERRAFORM = """
import logging, sys, time
from bilbo.cli.console import Console
def event(kind, number, action="create"):
    resource = {"addr": f"module.{number}[red]x[/red]\\x1b[2J", "resource_type": "x"}
    return {"type": kind, "hook": {"resource": resource, "action": action, "elapsed_seconds": 3}}
log = logging.Logger('quiet')
log.addHandler(logging.NullHandler())
with Console(log) as console:
    console.terraform({"type": "version"})
    time.sleep(0.3)
    changes = {"operation": "plan", "add": 8, "change": 0, "remove": 2}
    console.terraform({"type": "change_summary", "changes": changes})
    for number in range(4):
        console.terraform(event("apply_start", number))
    console.terraform(event("apply_progress", 3))
    for kind, number in (("complete", 0), ("complete", 1), ("errored", 3)):
        console.terraform(event(f"apply_{kind}", number))
    console.say("  - destroyed [red]x[/red] :smile: \\x1b]0;x\\x07")
    sys.stdin.readline()
"""

# What would say otherwise than the pseudo-terminal does; pytest-xdist's workers have a COLUMNS.
NOT_OURS = ("NO_COLOR", "TERM", "COLUMNS", "LINES")


@dataclass
class Terminal:
    """A program on a terminal, and the screen that it fills. `high` is how many lines of it were
    ever in use at once."""

    program: str
    columns: int = 80
    lines: int = 12
    environment: dict[str, str] = field(default_factory=dict)
    raw: str = ""
    high: int = 0

    def __post_init__(self) -> None:
        self.screen = pyte.HistoryScreen(self.columns, self.lines)
        self._stream = pyte.Stream(self.screen)
        kept = {key: value for key, value in os.environ.items() if key not in NOT_OURS}
        self.child = pexpect.spawn(
            sys.executable,
            ["-c", self.program],
            env={**kept, "TERM": "xterm-256color", **self.environment},
            dimensions=(self.lines, self.columns),
            encoding="utf-8",
            echo=False,
            timeout=30,
        )

    def until(self, text: str | None) -> list[str]:
        """The screen's lines in use, once it shows `text`; None waits for the program's end."""
        while text is None or not any(text in line for line in self.screen.display):
            try:
                data = self.child.read_nonblocking(65536, timeout=30)
            except pexpect.EOF:
                assert text is None, self.raw
                self.child.close()
                break
            self.raw += data
            self._stream.feed(data)
            self.high = max(self.high, len(self.used))
        return self.used

    @property
    def used(self) -> list[str]:
        """The screen's lines to the last that is not blank."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip("\n").split("\n")

    def colour(self, text: str) -> str:
        """The colour of the first character of a text on the screen."""
        (row,) = [row for row, line in enumerate(self.screen.display) if text in line]
        return self.screen.buffer[row][self.screen.display[row].index(text)].fg

    @property
    def cursor_is_there(self) -> bool:
        return not self.screen.cursor.hidden


@pytest.mark.parametrize("columns", [80, 40])
def test_a_thousand_hosts_stay_readable(columns: int) -> None:
    """A bar and two lines, none longer than the terminal, however much a thousand hosts tell; it
    goes when they are done, and the lines that were said stay."""
    terminal = Terminal(HOSTS, columns)
    said, head, counts, note = terminal.until("3e7: failed")
    assert said == "Start dask scheduler & workers."
    assert "Hosts ━━" in head and head.endswith(" s")
    whole = "  1000 connected, 990 started, 980 ready of 1000, 10 failed"
    assert counts == (whole if columns == 80 else f"{whole[: columns - 1]}…")
    assert note == "  worker i-000000000000003e7: failed: w" + ("hy" if columns == 80 else "…")
    if columns == 80:
        assert terminal.colour("10 failed") == "red"
    assert terminal.high <= 4
    assert not terminal.screen.history.top, "it has scrolled"
    terminal.child.sendline()
    assert terminal.until(None)[0] == "Start dask scheduler & workers."
    assert "connected" not in "".join(terminal.used)
    assert terminal.child.exitstatus == 0


def test_terraforms_resources() -> None:
    """Resources are counted on a bar, the last one that goes on is named, a failure is red; what
    Terraform calls a resource is shown letter for letter."""
    terminal = Terminal(TERRAFORM)
    said, head, counts, note = terminal.until("1 failed")
    assert said == "  - destroyed [red]x[/red] :smile: \\x1b]0;x\\x07"
    assert "Terraform ━━" in head
    assert counts == "  2 of 10 resources, 1 failed"
    assert note == "  Creating module.2[red]x[/red]\\x1b[2J"
    assert terminal.colour("- destroyed") == terminal.colour("1 failed") == "red"
    assert "Terraform looks at AWS" in terminal.raw
    terminal.child.sendline()
    assert "resources" not in "".join(terminal.until(None))
    assert terminal.child.exitstatus == 0


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colour(environment: dict[str, str]) -> None:
    """NO_COLOR has no colour; a terminal that cannot move its cursor gets lines, as a pipe."""
    terminal = Terminal(TERRAFORM, environment=environment)
    terminal.until("destroyed")
    terminal.child.sendline()
    terminal.until(None)
    colours = {cell.fg for row in terminal.screen.buffer.values() for cell in row.values()}
    assert colours <= {"default"}
    if "TERM" in environment:
        assert "\x1b" not in terminal.raw
        assert "  Created module.0[red]x[/red]\\x1b[2J [1/10]" in terminal.used


def test_a_pipe_gets_lines() -> None:
    """Off a terminal every step is a line, without an escape, whatever the environment asks for."""
    done = subprocess.run(
        [sys.executable, "-c", TERRAFORM],
        input="\n",
        env={**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"},
        capture_output=True,
        text=True,
        check=True,
    )
    address = "module.{}[red]x[/red]\\x1b[2J"
    assert done.stderr.splitlines() == [
        f"  still creating {address.format(3)}: 3 s",
        f"  Created {address.format(0)} [1/10]",
        f"  Created {address.format(1)} [2/10]",
        "  - destroyed [red]x[/red] :smile: \\x1b]0;x\\x07",
    ]


def test_ctrl_c_leaves_the_terminal_as_it_was() -> None:
    """The region is gone and the cursor is there after Ctrl-C, and while bilbo runs: who kills or
    stops it has a cursor, too."""
    terminal = Terminal(HOSTS)
    terminal.until("10 failed")
    assert terminal.cursor_is_there
    terminal.child.sendintr()
    text = "\n".join(terminal.until(None))
    assert terminal.cursor_is_there
    assert "KeyboardInterrupt" in text  # this program's own way to end
    assert "Hosts ━" not in text


def stored(home: Path) -> None:
    """Records with long and hostile fields."""
    store = Store(home)
    store.prepare()
    for name, status, kind in (
        ("a" * 40, "ready", "dask"),
        ("b", "failed", "[red]x[/red]\x1b[2Jy"),
    ):
        store.save(Record(name, status, "us-east-1", kind, now(), {}, ""))


def test_a_table_fits(tmp_path: Path) -> None:
    """No line is longer than the terminal, no letter is lost, and what failed is red."""
    stored(tmp_path)
    program = "import sys; sys.argv = ['bilbo', 'clusters']; from bilbo.cli import main; main()"
    terminal = Terminal(program, 60, environment={"BILBO_HOME": str(tmp_path)})
    lines = terminal.until(None)
    assert lines[0].split() == ["NAME", "STATUS", "TYPE", "NODES", "AGE", "ENDS"]
    starts = [lines[0].index(name) for name in lines[0].split()]
    columns = list(zip(starts, [*starts[1:], 60], strict=True))
    text = ["".join(line[a:b].strip() for line in lines[1:]) for a, b in columns]
    assert text[0] == "a" * 40 + "b"
    assert text[2] == "dask[red]x[/red]\\x1b[2Jy"
    assert terminal.colour("failed") == "red"
    assert terminal.colour("ready") == "green"
    piped = Bilbo(tmp_path)("clusters", FORCE_COLOR="1").stdout
    assert piped == "a" * 40 + "\nb\n"


def test_an_error_is_red(tmp_path: Path) -> None:
    """What failed is red on a terminal, and as it is in a pipe."""
    program = "import sys; sys.argv = ['bilbo', 'desc', 'x']; from bilbo.cli import main; main()"
    terminal = Terminal(program, 200, environment={"BILBO_HOME": str(tmp_path)})
    terminal.until(None)
    assert terminal.colour("bilbo: ") == "red"
    assert "\x1b" not in Bilbo(tmp_path)("desc", "x", code=1, FORCE_COLOR="1").stderr


@pytest.mark.parametrize("words", [["version"], ["--help"], ["create", "--help"]])
def test_rich_is_not_imported_for_what_is_quick(words: list[str], tmp_path: Path) -> None:
    """On a terminal, too, help and version come without rich."""
    program = (
        f"import sys; sys.argv = {json.dumps(['bilbo', *words])}\n"
        "from bilbo.cli import main\n"
        "try: main()\n"
        "finally: print('rich is', 'there' if 'rich' in sys.modules else 'away')"
    )
    terminal = Terminal(program, lines=60, environment={"BILBO_HOME": str(tmp_path)})
    assert "rich is away" in terminal.until(None)
