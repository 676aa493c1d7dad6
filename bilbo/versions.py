"""Compares Python and its packages at two ends of a connection, and says what breaks.

Pickled functions need the same minor version of Python, and the same versions of the packages that
an engine names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PYTHON = "python"


@dataclass(frozen=True)
class Software:
    """The software of one place: the version of Python and of each package, None if missing."""

    where: str
    python: str
    packages: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class VersionDifference:
    """A package, or Python itself, whose version at `where` is not the `expected` one.

    None means not installed. `breaks` means that the two cannot work together.
    """

    where: str
    package: str
    version: str | None
    expected: str | None
    breaks: bool


def software(where: str, facts: Mapping[str, Any]) -> Software:
    """The software in a host's facts (`python`, `versions`)."""
    return Software(where, facts["python"], facts["versions"])


def differences(
    reference: Software, other: Software, breaking: Collection[str]
) -> list[VersionDifference]:
    """How `other` differs from `reference`: Python first, packages by name.

    Compares the packages that the reference was asked for, and those of `breaking`.
    """
    found = []
    if reference.python != other.python:
        breaks = minor(reference.python) != minor(other.python)
        found.append(VersionDifference(other.where, PYTHON, other.python, reference.python, breaks))
    for name in sorted({*reference.packages, *breaking}):
        expected, version = reference.packages.get(name), other.packages.get(name)
        if expected != version:
            found.append(VersionDifference(other.where, name, version, expected, name in breaking))
    return found


def minor(version: str) -> str:
    """`3.12` of `3.12.4`."""
    return ".".join(version.split(".")[:2])


def mend(found: Iterable[VersionDifference]) -> list[str]:
    """The pip requirements that install the expected versions."""
    return [
        f"{each.package}=={each.expected}"
        for each in found
        if each.package != PYTHON and each.expected is not None
    ]


def rows(found: Sequence[VersionDifference], reference: str) -> list[tuple[str, ...]]:
    """A table of the differences: a row per package and version, breaking ones first."""
    table: list[tuple[str, ...]] = [("PACKAGE", reference.upper(), "DIFFERS", "WHERE", "BREAKS")]
    grouped: dict[tuple[bool, bool, str, str, str], list[str]] = {}
    for each in found:
        shown = (each.expected or "not installed", each.version or "not installed")
        key = (not each.breaks, each.package != PYTHON, each.package, *shown)
        grouped.setdefault(key, []).append(each.where)
    for (harmless, _, package, expected, version), places in sorted(grouped.items()):
        table.append((package, expected, version, _few(places), "no" if harmless else "yes"))
    return table


def _few(places: Sequence[str]) -> str:
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return ", ".join(places[:3]) + more
