"""Foreign text has one way to a terminal, and nothing that a terminal would obey takes it."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bilbo_cli import Bilbo

from bilbo.model import Inventory, Node
from bilbo.record import Record, Store, now
from bilbo.text import json_text, plain

CLI = Path(__file__).parent.parent.parent / "bilbo" / "cli"
EVIL = "\x1b]52;c;ZXZpbA==\x07\x9b2J\u202etxt\x7f"
OBEYED = ("\x1b", "\x07", "\x9b", "\u202e", "\x7f")


def node(number: int, role: str = "worker") -> Node:
    """A machine whose every text is hostile."""
    texts = [f"{EVIL}{field}" for field in range(8)]
    address, private, dns, kind, image, pair, user, key = texts
    return Node(
        role, role, f"i-{number}{EVIL}", address, private, dns, kind, image, pair, user, key
    )


@pytest.mark.parametrize("path", sorted(CLI.rglob("*.py")), ids=lambda path: path.stem)
def test_commands_print_one_way(path: Path) -> None:
    """No module of the command line prints by itself, but the two that all go through; and rich,
    which obeys markup, is in one of them alone."""
    if path.stem in ("output", "screen"):
        return
    assert not re.search(
        r"^\s*(import|from) rich\b", path.read_text(encoding="utf-8"), re.MULTILINE
    )
    for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(found, ast.Call):
            called = ast.unparse(found.func)
            assert called != "print"
            assert not called.startswith(("click.echo", "click.secho", "click.confirm"))
            assert not called.startswith(("click.prompt", "click.echo_via_pager", "pprint"))
        if isinstance(found, ast.Attribute):
            shown = ast.unparse(found)
            assert not shown.endswith((".write", ".writelines", ".buffer")) or (
                not shown.startswith(("sys.stdout", "sys.stderr"))
            ), shown
            assert shown not in ("json.dumps",) or path.stem == "team", "use print_json"


def test_json_is_for_programs_and_fit_for_a_terminal() -> None:
    """Every character arrives, other languages as they are, and none is obeyed on the way."""
    document = {"a": EVIL, EVIL: ["클러스터", "\u2028", "\ud800"]}
    text = json_text(document)
    assert text == plain(text)
    assert "클러스터" in text
    assert json.loads(text) == document


def printed(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed, with nothing in it that is obeyed."""
    text = done.stdout + done.stderr
    assert not [each for each in OBEYED if each in text], repr(text)
    return text


def test_a_record_full_of_escapes(tmp_path: Path) -> None:
    """Whatever stands in a record, the commands that show it are fit for a terminal."""
    store = Store(tmp_path)
    store.prepare()
    inventory = Inventory(head=node(1, "scheduler"), workers=(node(2), node(3)))
    record = Record(
        "evil", f"ready{EVIL}", EVIL, "dask", now(), {"webbrowser": "/bin/true"}, EVIL,
        inventory=inventory, notebook_url=f"http://a{EVIL}/", problems={"i-1": EVIL},
        addresses={"dask_dashboard_url": f"javascript:alert(1)//{EVIL}"},
    )  # fmt: skip
    store.save(record)
    (tmp_path / "profiles" / f"{EVIL}.json").write_text("{", encoding="utf-8")
    bilbo = Bilbo(tmp_path)
    for words in (
        ["desc", "evil"], ["desc", "evil", "-d"], ["clusters", "--json"], ["profiles"],
        ["profiles", "--json"], ["notebook", "evil", "-u"], ["dashboard", "evil", "-u"],
    ):  # fmt: skip
        assert "52;c;" in printed(bilbo(*words)) or words[0] == "clusters"
    for words in (["rcmd", "evil", EVIL, "--", "x"], ["ssh", "evil", EVIL], [EVIL], ["desc", EVIL]):
        assert "52;c;" in printed(bilbo(*words, code=None))
    assert json.loads(bilbo("desc", "evil", "-d").stdout)["region"] == EVIL


@pytest.mark.parametrize("page", ["notebook", "dashboard"])
def test_a_page_that_is_none(tmp_path: Path, page: str) -> None:
    """A browser is given an address of a host's, never a script or a file, whatever a record
    holds."""
    store = Store(tmp_path)
    store.prepare()
    bilbo = Bilbo(tmp_path)
    ran = tmp_path / "ran"
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\ntouch '{ran}'\n", encoding="utf-8")
    browser.chmod(0o700)
    for url in (
        "javascript:alert(1)", "file:///etc/passwd", "http://", "http://a b/", "http://a/\n",
        "http://user@evil/", "http://évil/", "--help", "https://a:b/", "http://-a/",
    ):  # fmt: skip
        profile = {"webbrowser": str(browser)}
        record = Record("one", "ready", "x", "dask", now(), profile, "", notebook_url=url)
        store.save(record.changed(addresses={"dask_dashboard_url": url}))
        assert "not a URL that bilbo opens" in bilbo(page, "one", code=1).stderr
    assert not ran.exists()


PIECES = """
from bilbo.cli.streams import HostStreams
streams = HostStreams({"i-1": 1})
for piece in DATA:
    streams.write("i-1", piece, False)
streams.end()
"""


def shown(program: str) -> str:
    """What a program shows on a terminal of its own."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen([sys.executable, "-c", program], stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the last of them has closed it
            break
        if not data:
            break
        text += data
    os.close(ours)
    assert done.wait(timeout=60) == 0, text
    return text.decode()


def test_a_command_on_hosts() -> None:
    """On a terminal escapes are written out and characters in pieces put together; a pipe gets
    every byte as it came."""
    data = [
        b"\x1b]52;c;eA==\x07",
        "클".encode()[:1],
        "클".encode()[1:],
        b"\r",
        b"\n\xc2",
        b"\x9bend",
    ]
    program = PIECES.replace("DATA", repr(data))
    assert shown(program) == "\\x1b]52;c;eA==\\x07클\r\n\\x9bend"
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert piped.stdout == b"".join(data)


LIVE = """
import logging, time
from bilbo.cli.console import Console
with Console(logging.getLogger()) as console:
    console.host("i-1", "worker", "start", EVIL)
    time.sleep(0.3)
    console.status(EVIL)
    time.sleep(0.3)
    console.say(EVIL)
    resource = {"addr": EVIL, "resource_type": "a"}
    console.terraform({"type": "apply_start", "hook": {"resource": resource, "action": "create"}})
    time.sleep(0.3)
"""


# What rich moves and colours with: no more than up, erase a line, the cursor there or not, colours.
OURS = re.compile(r"\x1b\[(1A|2K|\?25[hl]|[0-9;]*m)")


def test_the_live_region() -> None:
    """What a host or Terraform says is shown in the live region, and moves nothing but it."""
    text = shown(LIVE.replace("EVIL", repr(EVIL)))
    assert text.count("52;c;") >= 4
    text = OURS.sub("", text)
    assert not [each for each in OBEYED if each in text], repr(text)
