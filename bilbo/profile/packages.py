"""`packages`: replaces the path of a requirements file by its lines.

The profile is then complete wherever it is stored, so no line may contain a password.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bilbo.profile.checking import mistakes
from bilbo.profile.places import KeyPath, Places, shown

MAX_BYTES = 1 << 20
# The user before the @ of a URL, and the query parameters whose names say that they are secret.
_USER = re.compile(r"([a-z][a-z0-9+.-]*):/{2,}([^/?#\s]*)@", re.IGNORECASE)
_QUERY = re.compile(
    r"[?&](?:sig|key|auth|[^=&#\s]*(?:token|secret|passw|signature|credential|api_?key)[^=&#\s]*)"
    r"=([^&#\s]+)",
    re.IGNORECASE,
)
# As pip expands variables of the environment.
_FROM_ENVIRONMENT = re.compile(r"(?:\$\{[A-Z0-9_]+\})+")
# Lines that refer to further files, which are not on the host.
_ELSEWHERE = re.compile(r"\s*(-r|-c|-e|--requirement|--constraint|--editable)\b|\s*\.{1,2}/")


def with_packages(document: Mapping[str, Any], folder: Path, places: Places) -> dict[str, Any]:
    """The checked profile `document` with every requirements file read.

    Paths are relative to the profile's `folder`; `~` is the user's home. Raises ProfileError for
    files that cannot be read, and for lines that refer to files of this machine.
    """
    result: dict[str, Any] = copy.deepcopy(dict(document))
    found: dict[KeyPath, str] = {}
    for instance_path, instance in _instances(result):
        packages = instance.get("packages")
        if packages is None:
            continue
        path = (*instance_path, "packages")
        try:
            lines = _lines(packages, folder)
        except (OSError, RuntimeError, UnicodeDecodeError, ValueError) as error:
            found[path] = f"{shown(str(packages))} cannot be read: {_why(error)}"
            continue
        found |= _mistakes(path, lines)
        instance["packages"] = lines
    if found:
        raise mistakes(found, places)
    return result


def _instances(part: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Every `instance` with its path: the common one and those of the roles."""
    if isinstance(part, list):
        for index, item in enumerate(part):
            yield from _instances(item, (*path, index))
    elif isinstance(part, dict):
        for key, value in part.items():
            if key == "instance":
                yield (*path, key), value
            elif key != "config":  # the engine's, whose keys are its own
                yield from _instances(value, (*path, key))


def _lines(packages: str | list[str], folder: Path) -> list[str]:
    """The lines, or those of the file `packages` without empty lines and comments."""
    if not isinstance(packages, str):
        return packages
    with (folder / Path(packages).expanduser()).open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError("it is larger than 1 MiB")
    lines = data.decode("utf-8-sig").splitlines()
    return [line.rstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return getattr(error, "strerror", None) or str(error)


def _mistakes(path: KeyPath, lines: list[str]) -> dict[KeyPath, str]:
    return _elsewhere(path, lines) | {
        (*path, number): "its URL contains a password or token; write ${NAME} instead and set "
        "NAME on the host, or use the host's ~/.netrc"
        for number, line in _whole(lines)
        if _has_secret(line)
    }


def _whole(lines: list[str]) -> Iterator[tuple[int, str]]:
    """The lines as pip reads them, joined at backslashes, each with the number of its first."""
    begin, text = 0, ""
    for number, line in enumerate(lines):
        begin, text = (begin, text) if text else (number, "")
        if line.endswith("\\") and number + 1 < len(lines):
            text += line[:-1]
            continue
        yield begin, text + line
        text = ""


def _has_secret(line: str) -> bool:
    """Whether a URL in the line contains a password or token. A login for ssh is neither."""
    for scheme, named in _USER.findall(line):
        user, colon, password = named.partition(":")
        secret = password if colon else user
        if not secret or (not colon and scheme.lower().endswith("ssh")):
            continue
        if not _FROM_ENVIRONMENT.fullmatch(secret):
            return True
    return any(not _FROM_ENVIRONMENT.fullmatch(value) for value in _QUERY.findall(line))


def _elsewhere(path: KeyPath, lines: list[str]) -> dict[KeyPath, str]:
    return {
        (
            *path,
            number,
        ): f"{shown(line)} refers to a file that is not on the host; list its requirements here"
        for number, line in enumerate(lines)
        if _ELSEWHERE.match(line)
    }
