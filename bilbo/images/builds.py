"""Builds that have begun: what a bilbo that was killed leaves for the next one to conclude.

Packer goes on without bilbo, as Terraform does. `images/builds/ID.json` says how to find its
process, its log, and with it what it has made.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bilbo.files import private_write
from bilbo.images.packer_output import built, parse

# Packer's own names of a key pair and a security group, and its words for the name of an AMI.
_OWN_NAME = re.compile(r"packer_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_AMI_NAME = re.compile(r"Creating AMI (\S+) from instance")
_KEPT_LOGS = 5


@dataclass(frozen=True)
class Build:
    """A build whose end no bilbo has recorded. `began` is ISO 8601 with zone; `bilbo` and `packer`
    are a process's number and start time, 0 where it is not known."""

    id: str
    name: str
    region: str
    endpoint_url: str | None
    began: str
    log: str
    bilbo: tuple[int, float]
    packer: tuple[int, float] = (0, 0.0)

    @property
    def runs(self) -> bool:
        """Whether its Packer runs."""
        return _runs(*self.packer)


def begin(home: Path, name: str, region: str, endpoint_url: str | None, began: str) -> Build:
    """Records that a build begins, and removes old logs. Raises OSError."""
    mine = os.getpid()
    logs = home / "logs"
    found = f"{re.sub('[^0-9]', '', began[:19])}-{mine}"
    build = Build(found, name, region, endpoint_url, began, str(logs / f"packer-{found}.log"),
                  (mine, _start_time(mine)))  # fmt: skip
    private_write(_path(home, build), json.dumps(asdict(build)))
    in_use = {each.log for each in unconcluded(home)}
    for old in sorted(logs.glob("packer-*.log"))[:-_KEPT_LOGS]:
        if str(old) not in in_use:
            old.unlink(missing_ok=True)
    return build


def started(home: Path, build: Build, packer: int) -> None:
    """Records which process is the build's Packer. Raises OSError."""
    known = replace(build, packer=(packer, _start_time(packer)))
    private_write(_path(home, build), json.dumps(asdict(known)))


def conclude(home: Path, build: Build) -> None:
    """Forgets a build."""
    _path(home, build).unlink(missing_ok=True)


def abandoned(home: Path) -> list[Build]:
    """The builds whose bilbo no longer runs, the oldest first."""
    return [each for each in unconcluded(home) if not _runs(*each.bilbo)]


def image_of(build: Build) -> tuple[str, str] | None:
    """The region and the AMI that it has made, by its log; None if it has made none."""
    return built(event for line in _lines(build) if (event := parse(line)))


def named_in(build: Build) -> tuple[list[str], list[str]]:
    """The names that its Packer gave to what it made, by its log: to key pairs and security groups,
    and to AMIs."""
    text = "\n".join(_lines(build))
    return sorted(set(_OWN_NAME.findall(text))), sorted(set(_AMI_NAME.findall(text)))


def _lines(build: Build) -> list[str]:
    try:
        return Path(build.log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _path(home: Path, build: Build) -> Path:
    return home / "images" / "builds" / f"{build.id}.json"


def unconcluded(home: Path) -> list[Build]:
    """The builds that have begun and whose end is not recorded, the oldest first."""
    found = (_read(path) for path in sorted((home / "images" / "builds").glob("*.json")))
    return [build for build in found if build]


def _read(path: Path) -> Build | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        (bilbo, since), (packer, its) = values["bilbo"], values["packer"]
        ours = {"id": path.stem, "bilbo": (int(bilbo), float(since))}
        return Build(**{**values, **ours, "packer": (int(packer), float(its))})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _start_time(pid: int) -> float:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def _runs(pid: int, since: float) -> bool:
    import psutil

    try:
        found = psutil.Process(pid) if pid else None
        ended = psutil.STATUS_ZOMBIE
        return bool(found and found.create_time() == since and found.status() != ended)
    except psutil.NoSuchProcess:
        return False
