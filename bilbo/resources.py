"""Finds the folders of data files that ship with bilbo."""

from __future__ import annotations

from pathlib import Path

from bilbo.errors import BilboError


def folder(name: str) -> Path:
    """The folder `name` (`templates`, `schemas` or `packer`): inside an installed bilbo, else the
    checkout's. Raises BilboError where neither is there: a broken installation."""
    package = Path(__file__).resolve().parent
    for parent in (package, package.parent):
        if (parent / name).is_dir():
            return parent / name
    raise BilboError(
        f"bilbo's installation lacks its folder {name}",
        where=str(package),
        hint="Install bilbo again.",
    )
