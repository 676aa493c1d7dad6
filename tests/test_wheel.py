"""The wheel, installed elsewhere without the checkout, is whole."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from bilbo_cli import INSTANCE, Bilbo

PROJECT = Path(__file__).parent.parent


def test_the_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    """Templates and schemas are inside: a profile is checked and rendered from the wheel alone."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=PROJECT, capture_output=True, check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("bilbo-*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    bilbo = Bilbo(tmp_path / "home")
    profile = bilbo.profile("test", {"instance": INSTANCE, "notebook": {}})
    code = (
        "import pathlib, sys, bilbo\n"
        "from bilbo import render\nfrom bilbo.profile import loading\n"
        "assert bilbo.__file__.startswith(sys.argv[1]), bilbo.__file__\n"
        "spec = loading.load(sys.argv[3], pathlib.Path(sys.argv[2]), region='us-east-1')\n"
        "import dataclasses\n"
        "spec = dataclasses.replace(spec, cidrs=('192.0.2.1/32',))\n"
        "print(sorted(render.render(spec)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(site), str(bilbo.home), profile],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "modules/node/main.tf" in done.stdout
