"""Finds a program on PATH, but never in the current folder.

A cloned repository or a download may contain a malicious `terraform`. Windows searches the current
folder first; on every system an empty or relative entry of PATH also means the current folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_WINDOWS_SUFFIXES = ".COM;.EXE;.BAT;.CMD"


def folders(environment: Mapping[str, str]) -> list[str]:
    """The absolute entries of PATH."""
    path = environment.get("PATH", os.defpath)
    return [each for each in path.split(os.pathsep) if Path(each).is_absolute()]


def find(name: str, environment: Mapping[str, str]) -> str | None:
    """The path of the program `name`; None if it is not on PATH."""
    suffixes = [""]
    if os.name == "nt":
        suffixes = environment.get("PATHEXT", _WINDOWS_SUFFIXES).split(";")
    for folder in folders(environment):
        for suffix in suffixes:
            path = Path(folder) / f"{name}{suffix}"
            if path.is_file() and os.access(path, os.X_OK):
                return str(path)
    return None
