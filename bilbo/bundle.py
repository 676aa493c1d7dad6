"""A reviewed plan in one file: Terraform's saved plan, its HCL and lock file, and a manifest.

A zip file, byte-identical for identical content. Its digest is the sha256 of the manifest, which
holds the sha256 of everything else. Mode 0600, because a saved plan holds secrets.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bilbo.errors import ReviewError
from bilbo.files import private_write

VERSION = 2
PLAN = "plan.tfplan"
HCL = "terraform/"
LOCK = f"{HCL}.terraform.lock.hcl"

_MANIFEST = "manifest.json"
_DIGEST = "manifest.sha256"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_NAME = re.compile(r"plan\.tfplan|terraform/([A-Za-z0-9_-]+/)*\.?[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_MAX_BYTES = 256 * 2**20
_AGAIN = "Make the plan again with `bilbo plan PROFILE -o FILE` and have it reviewed."


@dataclass(frozen=True)
class Manifest:
    """What a plan is based on.

    `profile` is the sha256 of the profile's document including its `overrides` (`-p`). `home` is
    the id of the bilbo home that holds a local state; it is empty if the state is shared. `amis`
    are the AMIs of images, by group, and `profile_name` is the profile's file: both were settled at
    planning, and are rendered. `versions` are those of bilbo, Terraform, its platform and the
    providers. `account` and `owner` are settled too: None if AWS does not say, or for a cluster
    from before owners. `instances` were running at planning, and `drift` (address to sha256) had
    been changed outside Terraform by then. `files` are the sha256 of the other members.
    """

    cluster: str
    region: str
    profile: str
    profile_name: str = ""
    overrides: tuple[str, ...] = ()
    amis: Mapping[str, str] = field(default_factory=dict)
    endpoint: str | None = None
    account: str | None = None
    owner: str | None = None
    home: str = ""
    lineage: str = ""
    serial: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    instances: tuple[str, ...] = ()
    drift: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found intact, with its digest."""

    manifest: Manifest
    contents: Mapping[str, bytes] = field(repr=False)
    digest: str = ""

    @property
    def hcl(self) -> dict[str, str]:
        """The files of the Terraform folder: `{relative path: text}`."""
        return {
            name.removeprefix(HCL): data.decode(errors="replace")
            for name, data in self.contents.items()
            if name.startswith(HCL)
        }


def profile_digest(document: Mapping[str, Any]) -> str:
    """Returns the sha256 of a profile's values, independent of its formatting."""
    return _sha256(json.dumps(document, sort_keys=True, ensure_ascii=True).encode())


def write(path: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> str:
    """Writes a bundle, mode 0600, and returns its digest. Raises ReviewError.

    `contents` are `PLAN` and the files below `HCL`.
    """
    document = asdict(manifest)
    document["files"] = {name: _sha256(contents[name]) for name in sorted(contents)}
    text = (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
    digest = _sha256(text)
    members = {**contents, _MANIFEST: text, _DIGEST: f"{digest}\n".encode()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o600 << 16
            entry.create_system = 3
            archive.writestr(entry, members[name], zipfile.ZIP_STORED)
    try:
        private_write(path, packed.getvalue())
    except OSError as error:
        raise ReviewError(f"cannot write the plan: {error.strerror}", where=str(path)) from error
    return digest


def read(path: Path) -> Bundle:
    """Reads the bundle in a file. Raises ReviewError if it is not one, or was changed."""
    try:
        members = _members(path)
    except OSError as error:
        raise ReviewError(f"cannot read the plan: {error.strerror}", where=str(path)) from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError) as error:
        raise _changed(path, f"it is not a complete zip file: {error}") from error
    text = members.pop(_MANIFEST, b"")
    digest = members.pop(_DIGEST, b"").decode(errors="replace").strip()
    if _sha256(text) != digest:
        raise _changed(path, "its manifest was changed")
    manifest = _manifest(text, path)
    found = {name: _sha256(data) for name, data in members.items()}
    for name in sorted(found.keys() | manifest.files.keys()):
        if found.get(name) != manifest.files.get(name):
            raise _changed(path, f"{name} was changed since the review")
    if missing := {PLAN, LOCK} - members.keys():
        raise _changed(path, f"it lacks {min(missing)}")
    return Bundle(manifest, members, digest)


def _members(path: Path) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > _MAX_BYTES:
            raise ValueError("it is larger than any plan")
        for entry in entries:
            name = entry.filename
            known = name in (_MANIFEST, _DIGEST) or _NAME.fullmatch(name)
            if not known or ".." in name or name in members:
                raise ValueError(f"it holds {name[:80]!r}")
            members[name] = archive.read(entry)
    return members


def _manifest(text: bytes, path: Path) -> Manifest:
    try:
        document = json.loads(text)
        version = document["version"] if isinstance(document, dict) else None
        if version != VERSION:
            raise ReviewError(
                f"the plan's format has version {version!r}, but this bilbo supports {VERSION}",
                where=str(path),
                hint="Apply it with the bilbo version that made it.",
            )
        return Manifest(**_values(document))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _changed(path, f"its manifest is not bilbo's: {error}") from error


def _values(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the manifest's fields: exactly the known ones, of the right types. Raises
    ValueError."""
    names = {f.name for f in fields(Manifest)}
    if document.keys() != names:
        raise ValueError(f"its fields are {sorted(document)}")
    for name in sorted(names):
        if not _TYPES.get(name, _is_text)(document[name]):
            raise ValueError(f"{name} is {str(document[name])[:80]!r}")
    return {**document, **{name: tuple(document[name]) for name in ("overrides", "instances")}}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and _is_texts(list(value.values()))


_TYPES: dict[str, Callable[[Any], bool]] = {
    "version": _is_number,
    "serial": _is_number,
    "account": _is_text_or_none,
    "owner": _is_text_or_none,
    "endpoint": _is_text_or_none,
    "overrides": _is_texts,
    "instances": _is_texts,
    "amis": _is_text_map,
    "versions": _is_text_map,
    "drift": _is_text_map,
    "files": _is_text_map,
}


def _changed(path: Path, why: str) -> ReviewError:
    return ReviewError(f"not a reviewed plan: {why}", where=str(path), hint=_AGAIN)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
