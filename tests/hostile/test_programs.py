"""Programs come from PATH alone, and bilbo's home is nobody else's."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from bilbo_cli import INSTANCE, Bilbo

from bilbo.errors import PackerError, TerraformError
from bilbo.images.packer import binary as packer
from bilbo.programs import find
from bilbo.record import Record, Store, now
from bilbo.terraform.environment import binary as terraform


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder full of programs, as a repository may be, that mark that they ran."""
    folder = tmp_path / "repository"
    for place in (folder, folder / "bin"):
        place.mkdir()
        for name in ("terraform", "tofu", "packer", "ssh", "firefox", "xdg-open", "www-browser"):
            program = place / name
            program.write_text(f"#!/bin/sh\ntouch '{tmp_path / 'ran'}'\n", encoding="utf-8")
            program.chmod(0o755)
    monkeypatch.chdir(folder)
    return folder


PATHS = ["", ".", "./bin", "bin", ":", ".:", ":/nowhere", "/nowhere:.", "../repository"]


@pytest.mark.parametrize("path", PATHS)
def test_no_program_of_the_current_folder(planted: Path, path: str) -> None:
    """An empty or relative entry of PATH is passed over, for every program that bilbo starts."""
    for name in ("terraform", "ssh", "firefox"):
        assert find(name, {"PATH": path}) is None
    with pytest.raises(TerraformError, match="neither terraform nor tofu"):
        terraform({"PATH": path})
    with pytest.raises(PackerError, match="not on PATH"):
        packer({"PATH": path})
    assert find("terraform", {"PATH": f"{path}:{planted}"}) == str(planted / "terraform")


def test_what_is_no_program(tmp_path: Path) -> None:
    """A folder, and a file that may not be run, are passed over."""
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "ssh").mkdir()
    (tmp_path / "two" / "ssh").touch(mode=0o644)
    (tmp_path / "three" / "ssh").touch(mode=0o755)
    path = os.pathsep.join(str(tmp_path / name) for name in ("one", "two", "three"))
    assert find("ssh", {"PATH": path}) == str(tmp_path / "three" / "ssh")


@pytest.mark.parametrize("browser", [None, "firefox", "./firefox", "bin/firefox"])
def test_no_browser_of_the_current_folder(
    tmp_path: Path, planted: Path, browser: str | None
) -> None:
    """Neither the profile's browser nor the system's is looked for there."""
    home = tmp_path / "home"
    store = Store(home)
    store.prepare()
    profile = {"webbrowser": browser} if browser else {}
    url = "http://127.0.0.1:9/"
    record = Record("one", "ready", "x", "dask", now(), profile, "", notebook_url=url)
    store.save(record)
    path = f".:bin::{Path(sys.executable).parent}"
    said = Bilbo(home)("notebook", "one", code=1, PATH=path, DISPLAY=":1", BROWSER="").stderr
    assert "cannot open the browser" in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o770, 0o1777])
def test_a_home_that_is_there_already(tmp_path: Path, mode: int) -> None:
    """It keeps its mode; where others can look into it, each command says so, and those that need
    no home do not."""
    home = tmp_path / "it's"
    home.mkdir()
    home.chmod(mode)
    bilbo = Bilbo(home)
    for words in (["version"], ["--help"], ["desc", "--help"], ["completion", "bash"], []):
        assert bilbo(*words).stderr == ""
    said = bilbo("clusters").stderr
    assert said.count("\n") == (mode != 0o700)
    if mode != 0o700:
        assert f"other users of this machine can access {home} (mode {mode:o})" in said
    assert stat.S_IMODE(home.stat().st_mode) == mode


@pytest.mark.standin
def test_what_lies_in_an_open_home(tmp_path: Path) -> None:
    """What a plan leaves in a home that others can look into, they cannot read: every folder that
    bilbo makes is closed, and every file in one that was there already."""
    home = tmp_path / "home"
    there = [home, home / "clusters", home / "logs", home / "clusters" / "quiet"]
    there += [there[-1] / "terraform", home / "images"]
    for folder in there:
        folder.mkdir()
        folder.chmod(0o755)
    bilbo = Bilbo(home)
    profile = bilbo.profile("quiet", {"instance": INSTANCE, "notebook": {}})
    kept = home / "profiles"
    bilbo("--local", "plan", profile)
    try:
        open_ones = []
        for top, folders, files in os.walk(home):
            if Path(top) in (kept, home / "local"):
                folders.clear()
                continue
            for name in folders:
                path = Path(top) / name
                if path not in (*there, kept) and path.stat().st_mode & 0o077:
                    open_ones.append(path)
            folders[:] = [name for name in folders if (Path(top) / name) in there]
            open_ones += [
                Path(top) / name
                for name in files
                if name != ".terraform.lock.hcl"  # Terraform's own choice: it is meant for a review
                and (Path(top) / name).stat().st_mode & 0o077
            ]
        assert not open_ones
    finally:
        bilbo("local", "stop")


def test_the_log_holds_no_output_of_others(tmp_path: Path) -> None:
    """What an error says is logged, what it quotes of another program is not."""
    import logging

    from bilbo.cli.console import Console
    from bilbo.cli.logfile import _Lines
    from bilbo.errors import QUOTE, PartlyDone

    path = tmp_path / "log"
    handler = logging.FileHandler(path)
    handler.setFormatter(_Lines("%(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    error = PartlyDone("it works in part", details=("a host failed", f"{QUOTE}hunter2"), hint="Go.")
    with pytest.raises(PartlyDone), Console(logger):
        raise error
    text = path.read_text(encoding="utf-8")
    assert "it works in part" in text
    assert "a host failed" in text
    assert "hunter2" not in text
    assert "hunter2" in str(error)
