"""Finds a program on PATH, and never in the current folder.

A repository or a download is a folder of other people's files, and `terraform` in it is not
Terraform. Windows looks into the current folder first; everywhere an empty or relative entry of
PATH means it, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_WINDOWS_SUFFIXES = ".COM;.EXE;.BAT;.CMD"


def folders(environment: Mapping[str, str]) -> list[str]:
    """The entries of PATH that mean the same folder wherever they are read."""
    path = environment.get("PATH", os.defpath)
    return [each for each in path.split(os.pathsep) if Path(each).is_absolute()]


def find(name: str, environment: Mapping[str, str]) -> str | None:
    """The path of the program `name`; None where PATH has none."""
    suffixes = [""]
    if os.name == "nt":
        suffixes = environment.get("PATHEXT", _WINDOWS_SUFFIXES).split(";")
    for folder in folders(environment):
        for suffix in suffixes:
            path = Path(folder) / f"{name}{suffix}"
            if path.is_file() and os.access(path, os.X_OK):
                return str(path)
    return None
