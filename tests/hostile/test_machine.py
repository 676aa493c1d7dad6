"""This machine: another user's files, and programs that are not what they are called."""

from __future__ import annotations

import logging
import stat
import sys
from pathlib import Path

import pytest

from bilbo.cli.logfile import _Lines, _Private
from bilbo.cluster.compatibility import local_software
from bilbo.errors import TerraformError
from bilbo.terraform import Terraform
from bilbo.terraform.environment import trusted


def test_a_mirror_that_others_can_write(tmp_path: Path) -> None:
    """A provider that another user could plant is not run with the AWS keys in view."""
    mirror = tmp_path / "mirror"
    provider = mirror / "registry.terraform.io" / "hashicorp" / "aws"
    provider.mkdir(parents=True)
    for path in (tmp_path, mirror):
        assert not trusted(tmp_path / "missing")
        path.chmod(0o777)
        assert not trusted(provider)
        path.chmod(0o755)


def test_modules_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check --python` imports nothing from where it is run."""
    (tmp_path / "json.py").write_text("raise SystemExit('planted')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert local_software(sys.executable, ["click"]).packages["click"]


@pytest.mark.parametrize(
    "script",
    [
        "echo garbage",
        "true",
        'echo \'{"type": "version"}\'',
        'echo \'{"type": "change_summary", "changes": {"operation": "plan"}}\'',
        "echo '{\"type\": 3}'; echo null; echo []",
    ],
)
def test_a_terraform_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """What does not speak as Terraform does is never taken at its exit code 0."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "terraform").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (tools / "terraform").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    terraform = Terraform(tmp_path / "cluster", {}, tmp_path)
    terraform.write({"main.tf": ""})
    with pytest.raises(TerraformError, match="as Terraform does") as caught:
        terraform.plan(tmp_path / "plan")
    assert str(tools / "terraform") in str(caught.value)
    if "garbage" in script:
        assert "garbage" in str(caught.value)
        for read in (terraform.versions, terraform.outputs):
            with pytest.raises(TerraformError, match="as Terraform does"):
                read()


def test_the_log_is_private_and_has_no_forged_lines(tmp_path: Path) -> None:
    """Files stay 0600 when the log turns over; a quoted message cannot look like another."""
    handler = _Private(tmp_path / "bilbo.log", maxBytes=100, backupCount=2, encoding="utf-8")
    handler.setFormatter(_Lines("%(levelname)s %(message)s"))
    for number in range(20):
        record = logging.LogRecord(
            "bilbo", logging.INFO, "", 0, "%s", (f"{number}\nERROR forged\x1b[2J",), None
        )
        handler.emit(record)
    handler.close()
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not any(line.startswith("ERROR") for line in lines)
        assert "\x1b" not in path.read_text(encoding="utf-8")
