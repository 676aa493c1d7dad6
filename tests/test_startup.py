"""Commands that only look import little: bilbo answers at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from bilbo_cli import Bilbo

from bilbo.cli import _COMMANDS, bilbo
from bilbo.record import Record, Store, now

# What makes a start slow, each a tenth of a second and more.
SLOW = {
    "asyncio",
    "asyncssh",
    "boto3",
    "botocore",
    "cryptography",
    "filelock",
    "jinja2",
    "jsonschema",
    "moto",
    "psutil",
    "python_terraform",
    "rich",
}
ALWAYS = {
    "bilbo",
    "bilbo.cli",
    "bilbo.cli.context",
    "bilbo.cli.output",
    "bilbo.errors",
    "bilbo.text",
}
INSPECT = {
    "bilbo.cli.commands",
    "bilbo.cli.commands.inspect",
    "bilbo.cli.pages",
    "bilbo.cli.params",
    "bilbo.cli.reaching",
}
RECORDS = {"bilbo.record", "bilbo.files", "bilbo.model"}


def imported(tmp_path: Path, *words: str) -> set[str]:
    """The modules that a command imports; the tool's own start is left out."""
    program = (
        "import sys; from bilbo.cli import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print('\\nMODULES', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=Bilbo(tmp_path).environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["version"], {"bilbo.cli.commands", "bilbo.cli.commands.about"}),
        (["--help"], set()),
        (["clusters"], {*INSPECT, *RECORDS}),
        (["desc", "one"], {*INSPECT, *RECORDS}),
    ],
)
def test_what_is_imported(words: list[str], own: set[str], tmp_path: Path) -> None:
    """`version`, `--help`, `clusters` and `desc` import nothing that is slow, and of bilbo only
    what they need."""
    store = Store(tmp_path)
    store.prepare()
    store.save(Record("one", "ready", "us-east-1", "dask", now(), {}, ""))
    found = imported(tmp_path, *words)
    assert not found & SLOW
    ours = {name for name in found if name.split(".")[0] == "bilbo"}
    if not own & RECORDS:
        assert ours == ALWAYS | own
    else:
        allowed = {
            "bilbo.present",
            "bilbo.present.report",
            "bilbo.versions",
            "bilbo.profile",
            "bilbo.profile.naming",
        }
        allowed |= {"bilbo.profile.naming", "bilbo.profile.places", "bilbo.engines"}
        allowed |= {"bilbo.lifetime", "bilbo.present.ending", "bilbo.present.times", "bilbo.status"}
        unasked = ours - ALWAYS - own - allowed
        assert not {each for each in unasked if not each.startswith("bilbo.engines.")}


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    """The short help that is listed without an import is the command's own."""
    command = bilbo.get_command(click.Context(bilbo), name)
    assert command is not None
    assert command.short_help == _COMMANDS[name][1]
