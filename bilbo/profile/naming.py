"""Names and paths that a person gives: profiles, clusters, private keys."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bilbo.errors import ProfileError, UsageError
from bilbo.profile.places import nearest, shown

SUFFIX = ".json"

MAX_CLUSTER_NAME = 40
"""Leaves room in the names of AWS resources for `-dask-scheduler`, or for `-dask-worker-` and a
group's name of 20 characters."""

_CLUSTER_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", "com", "lpt"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)
}


def names(home: Path) -> list[str]:
    """The file names of the profiles in `home`/profiles, sorted."""
    try:
        found = [path.name for path in (home / "profiles").iterdir() if path.suffix == SUFFIX]
    except OSError:
        return []
    return sorted(name for name in found if (home / "profiles" / name).is_file())


def find(name: str, home: Path) -> Path:
    """The file of the profile `name`.

    Looks for a bare name such as `test.json` in `home`/profiles, then in the current folder; a name
    with a separator is a path. Raises ProfileError with the nearest names.
    """
    if any(separator in name for separator in (os.sep, os.altsep) if separator):
        # os.path, because pathlib raises for NUL, overlong names and unknown users
        path = os.path.expanduser(name)  # noqa: PTH111
        if os.path.exists(path):  # noqa: PTH110
            return Path(path)
        raise ProfileError("there is no such file", where=shown(name, 500))
    for folder in (home / "profiles", Path()):
        if name and os.path.isfile(folder / name):  # noqa: PTH113
            return folder / name
    raise ProfileError(
        f"there is no profile {shown(name) or 'without a name'}",
        where=str(home / "profiles"),
        hint=_what_to_do(name, names(home)),
    )


def _what_to_do(name: str, known: list[str]) -> str:
    if name + SUFFIX in known:
        return f"Include the file's extension: {name}{SUFFIX}"
    near = nearest(name, known)
    if near:
        return f"Did you mean {near}?"
    if known:
        return f"There are: {', '.join(known[:20])}"
    return "Save a profile there, or give the path to one."


def expand_key_path(path: str, home: Path) -> Path:
    """The file that a profile's `ssh_private_key` refers to.

    `~/.bilbo/` is bilbo's own folder wherever BILBO_HOME put it (`home`), so that a profile
    for the stand-in AWS works in every home. Any other `~` is the user's home folder.
    Environment variables are not expanded.
    """
    for prefix in ("~/.bilbo/", "~\\.bilbo\\"):
        if path.startswith(prefix):
            return home / path[len(prefix) :]
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib raises for an unknown user


def cluster_name(path: Path) -> str:
    """The name of a cluster made from the profile `path` without a name of its own."""
    return path.name.removesuffix(SUFFIX)


def check_cluster_name(name: str) -> None:
    """Raises UsageError unless `name` suits folders, tags and names of AWS resources."""
    problem = _problem(name)
    if problem:
        raise UsageError(
            f"the cluster's name {problem}",
            where=f"'{shown(name, 40)}'",
            hint="Choose a name of letters, digits, - and _ with -n, such as -n my-cluster.",
        )


def _problem(name: str) -> str | None:
    if not name:
        return "is empty"
    if len(name) > MAX_CLUSTER_NAME:
        return f"has {len(name)} characters; at most {MAX_CLUSTER_NAME} are allowed"
    if name.lower() in _WINDOWS_DEVICES:
        return "is the name of a device on Windows"
    if name.lower().startswith("sg-"):
        return "begins with sg-, which AWS reserves for security group ids"
    if not _CLUSTER_NAME.fullmatch(name):
        return "must begin with a letter, have only letters, digits, - and _, and not end in - or _"
    return None
