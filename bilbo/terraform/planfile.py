"""Reads Terraform's saved plan without Terraform: a zip of its configuration and state.

Source of the format: Terraform's internal/plans/planfile and internal/configs/configload.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bilbo.shape import anything, either, having, listed, mapped, maybe, shallow, string, whole

LOCK_FILE = ".terraform.lock.hcl"
PROVIDERS = frozenset(
    {
        "registry.terraform.io/hashicorp/aws",
        "registry.opentofu.org/hashicorp/aws",
        "terraform.io/builtin/terraform",
    }
)

_CONFIG = "tfconfig/"
_OTHERS = ("tfplan", "tfstate", "tfstate-prev", LOCK_FILE)
_MAX_BYTES = 256 * 2**20
_PROVIDER = re.compile(r'provider\["([^"]+)"\]')
_LOCKED = re.compile(r'provider "([^"]+)" \{')
# Every line of a lock file as Terraform writes it. Source: internal/depsfile/locks_file.go.
_LOCK_LINE = re.compile(
    r"""\s*(\#[^\n]*)?|provider\ "[\w./-]+"\ \{|\s+version\s+=\ "[\w.+-]+"
    |\s+constraints\s+=\ "[\w.+<>=!~,\ -]+"|\s+hashes\ =\ \[|\s+"\w+:[\w+/=-]+",|\s*\]|\}""",
    re.VERBOSE | re.ASCII,
)
_CHANGES = listed(
    having(
        {
            "address": string,
            "mode": string,
            "type": string,
            "change": having(
                {"actions": listed(string)},
                before=maybe(mapped(anything)),
                after=maybe(mapped(anything)),
                replace_paths=listed(listed(either(string, whole))),
            ),
        },
        action_reason=string,
    )
)
_SHOWN = having(
    {},
    resource_changes=_CHANGES,
    resource_drift=_CHANGES,
    output_changes=mapped(having({"actions": listed(string)})),
)


@dataclass(frozen=True)
class PlanFile:
    """A saved plan: `configuration` is `{path: text}` as in the root module, `lock` the lock file,
    `providers` the provider addresses in its states."""

    configuration: Mapping[str, str]
    lock: str
    providers: frozenset[str]


def read(data: bytes) -> PlanFile:
    """The content of a saved plan. Raises ValueError for anything else in or around it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_BYTES:
                raise ValueError("it is larger than any plan")
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise ValueError("it contains a file twice")
            members = {name: archive.read(name) for name in names}
        texts = {name: members[name].decode() for name in members if name != "tfplan"}
        return PlanFile(_configuration(texts), texts.get(LOCK_FILE, ""), _providers(texts))
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error


def _configuration(texts: Mapping[str, str]) -> dict[str, str]:
    """The files by their path in the root module's folder. A module that is called twice is stored
    twice, and must be the same both times."""
    manifest = f"{_CONFIG}modules.json"
    folders = {each["Key"]: each["Dir"] for each in json.loads(texts[manifest])}
    found: dict[str, str] = {}
    for name, text in texts.items():
        if name in (*_OTHERS, manifest):
            continue
        key, slash, file = name.removeprefix(f"{_CONFIG}m-").partition("/")
        if not name.startswith(f"{_CONFIG}m-") or not slash or key not in folders:
            raise ValueError(f"it contains {name[:80]!r}")
        path = file if folders[key] == "." else f"{folders[key]}/{file}"
        if found.setdefault(path, text) != text:
            raise ValueError(f"it contains two different versions of {path[:80]!r}")
    return found


def _providers(texts: Mapping[str, str]) -> frozenset[str]:
    return frozenset(
        provider
        for name in ("tfstate", "tfstate-prev")
        for provider in state_providers(json.loads(texts[name]))
    )


def state_providers(state: Mapping[str, object]) -> set[str]:
    """The provider addresses of a state's resources. Raises ValueError for anything but a state."""
    resources = state.get("resources") or [] if isinstance(state, dict) else None
    if not isinstance(resources, list):
        raise ValueError("its resources are not a list")
    found = set()
    for resource in resources:
        named = str(resource.get("provider")) if isinstance(resource, dict) else ""
        found |= {*_PROVIDER.findall(named)} or {named[:100] or "a nameless provider"}
    return found


def locked_providers(lock: str) -> set[str]:
    """The provider addresses in a lock file. Raises ValueError for a line that Terraform would not
    write: HCL has other ways to say the same, and bilbo would miss them."""
    found = set()
    for line in lock.split("\n"):
        if not _LOCK_LINE.fullmatch(line):
            raise ValueError(f"its lock file contains {line[:80]!r}")
        found |= set(_LOCKED.findall(line))
    return found


def plan_misfit(document: Any) -> str:
    """Why this is not the output of `terraform show -json PLAN`; empty if it is."""
    return shallow(document) or _SHOWN(document)
