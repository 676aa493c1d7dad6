"""The Terraform modules by themselves: their own tests, with a mocked provider."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bilbo.terraform.environment import binary, environment

TERRAFORM = Path(__file__).parent.parent / "templates" / "terraform"
MODULES = [*sorted((TERRAFORM / "modules").iterdir()), TERRAFORM / "state_bucket"]


@pytest.mark.standin  # their `run` blocks apply, though with a mocked provider
@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module(module: Path, tmp_path: Path) -> None:
    """`terraform test` of the module passes; a module without tests fails here."""
    folder = tmp_path / module.name
    shutil.copytree(module, folder)
    assert list((folder / "tests").glob("*.tftest.hcl"))
    settings = environment(os.environ, {}, tmp_path)
    for command in ("init", "test"):
        done = subprocess.run(
            [binary(settings), command, "-no-color"],
            cwd=folder, env=settings, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
