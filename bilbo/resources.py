"""Finds the folders of data files that ship with bilbo."""

from __future__ import annotations

from pathlib import Path

from bilbo.errors import BilboError


def folder(name: str) -> Path:
    """The folder `name` (`templates`, `schemas` or `packer`) of the installed bilbo, else of the
    checkout. Raises BilboError if neither exists, which means a broken installation."""
    package = Path(__file__).resolve().parent
    for parent in (package, package.parent):
        if (parent / name).is_dir():
            return parent / name
    raise BilboError(
        f"bilbo's installation lacks the folder {name}",
        where=str(package),
        hint="Reinstall bilbo.",
    )
