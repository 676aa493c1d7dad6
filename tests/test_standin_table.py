"""The table of what the stand-in replaces inside moto: in the code, in the docs, and true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from bilbo.engines import ENGINES
from bilbo.local.admission import SERVED
from bilbo.local.replacements import REPLACEMENTS, Replacement
from bilbo.model import NOTEBOOK_PORT

DOCS = Path(__file__).parent.parent / "docs" / "standin.md"
HEADING = (
    "| replaced in moto | what moto does | what AWS does | source | test |\n|---|---|---|---|---|\n"
)


def row(each: Replacement) -> str:
    """A row of the docs' table."""
    source = f"[{each.source.rpartition('/')[2]}]({each.source})"
    shown = source if each.source.startswith("https://") else each.source
    return f"| `{each.target}` | {each.moto} | {each.aws} | {shown} | `{each.test}` |\n"


def test_the_docs_have_the_table() -> None:
    """docs/standin.md has each row as the code has it; BILBO_WRITE_DOCS=1 writes it."""
    text = DOCS.read_text(encoding="utf-8")
    wanted = HEADING + "".join(map(row, REPLACEMENTS))
    table = re.search(r"(?m)^\| replaced in moto .*\n(?:\|.*\n)+", text)
    assert table is not None
    if os.environ.get("BILBO_WRITE_DOCS"):
        DOCS.write_text(text.replace(table[0], wanted), encoding="utf-8")
        return
    assert table[0] == wanted


def test_what_bilbo_serves_is_known_to_the_stand_in() -> None:
    """The ports that are silent where a group does not admit them are those of every engine."""
    ports = {port for engine in ENGINES.values() for port in engine.ports}
    assert set(SERVED) == ports | {NOTEBOOK_PORT}
    text = DOCS.read_text(encoding="utf-8")
    assert all(str(port) in text for port in SERVED)


def test_each_names_a_test() -> None:
    """The tests that rows name exist."""
    tests = (Path(__file__).parent / "test_local.py").read_text(encoding="utf-8")
    for each in REPLACEMENTS:
        assert f"\ndef {each.test}(" in tests, each


def test_what_is_replaced_has_a_row_and_the_other_way_round() -> None:
    """A stand-in that has been installed has replaced what the table says, and nothing else."""
    program = (
        "from bilbo.local import groups, hooks, network, replacements\n"
        "world = hooks.World(network.Addresses(77), ('local', b''))\n"
        "hooks.install(world)\n"
        "groups.install(world)\n"
        "print(*sorted(replacements.replaced))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == sorted(each.target for each in REPLACEMENTS)
