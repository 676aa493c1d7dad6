"""The profile that a shared state tells: taken by a list of keys, and built from them."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from bilbo import profile as profiles
from bilbo.engines import ENGINES
from bilbo.errors import ProfileError, RecordError
from bilbo.model import WORKER, ClusterSpec

# How deep a profile may be; what is deeper ends the programs that walk it.
_LEVELS = 32


# What is taken from a shared state, by where it stands: whoever writes the bucket commands nobody's
# machine. A key that is not listed here is not taken, whatever it is.
_OF_INSTANCE = [
    "ami",
    "image",
    "ec2type",
    "keyname",
    "ssh_user",
    "security_group",
    "ssh_port",
    "vol_size",
    "tags",
    "subnet",
    "iam_instance_profile",
]


_OF_GROUP = [
    "name",
    "instance",
    "count",
    "resources",
    "nproc",
    "nthread",
    "num_cpus",
    "num_gpus",
    "object_store_memory",
]


_OF_PROFILE = ("description", "region", "account", "access", "instance", "notebook", *ENGINES)


def taken(shared: Any) -> dict[str, Any]:
    """The profile in a state's outputs, without anything that a state has no say in. Raises
    RecordError for what is no profile."""
    if not isinstance(shared, dict) or _is_deep(shared):
        raise RecordError("the profile in the shared state is not one that bilbo has written")
    document = _only(shared, _OF_PROFILE)
    for key in document.keys() & {"instance"}:
        document[key] = _only(document[key], _OF_INSTANCE)
    for key in document.keys() & {"notebook"}:
        document[key] = _group(document[key])
    for key in document.keys() & ENGINES.keys():
        parts = _only(document[key], (ENGINES[key].head_role, WORKER))
        document[key] = {
            role: [_group(each) for each in part] if isinstance(part, list) else _group(part)
            for role, part in parts.items()
        }
    return document


def _is_deep(value: Any) -> bool:
    """Whether there is more in a value than in any profile, level by level."""
    level = [value]
    for _ in range(_LEVELS):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [item for each in inner for item in each if isinstance(item, dict | list)]
    return bool(level)


def _group(part: Any) -> dict[str, Any]:
    kept = _only(part, _OF_GROUP)
    if "instance" in kept:
        kept["instance"] = _only(kept["instance"], _OF_INSTANCE)
    return kept


def _only(part: Any, keys: Collection[str]) -> dict[str, Any]:
    """A copy of `part` with those keys alone; nothing of what is no object."""
    if not isinstance(part, dict):
        return {}
    kept: dict[str, Any] = json.loads(json.dumps({k: part[k] for k in part if k in keys}))
    return kept


def told_spec(profile: Any, name: str, region: str) -> ClusterSpec:
    """The cluster as a shared `profile` tells it. Raises RecordError where it is none."""
    document = taken(profile)
    document.setdefault("instance", {})["ssh_private_key"] = "~/nobodys"
    try:
        profiles.check_profile(document)
        return profiles.build(document, name, region)
    except ProfileError as error:
        raise RecordError(
            "the profile in the shared state is not one that bilbo has written",
            details=error.details,
        ) from error
