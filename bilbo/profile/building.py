"""Builds a `ClusterSpec` from a checked profile: merges the common instance into each role."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bilbo.engines import ENGINES, Engine
from bilbo.errors import ProfileError
from bilbo.lifetime import lifetime
from bilbo.model import (
    FALLBACK,
    HEADS,
    NOTEBOOK,
    NOTEBOOK_PORT,
    SPOT,
    WORKER,
    ClusterSpec,
    Machine,
    NodeGroup,
    SharedState,
)
from bilbo.profile.checking import mistakes
from bilbo.profile.places import KeyPath, Places, dotted

# The keys of a group that are not settings of an engine.
_NO_SETTINGS = ("name", "instance", "count", "resources", "spot", "types")
CONFIG = "config"  # the engine's configuration on every machine
REQUIRED = ("ami", "ec2type", "keyname", "ssh_user", "ssh_private_key")


@dataclass(frozen=True)
class _Wanted:
    """A group of machines that the profile asks for: `part` is the profile's value at `path`,
    `ports` are the ones that people reach."""

    path: KeyPath
    role: str
    name: str
    instance_name: str
    part: Mapping[str, Any]
    ports: Mapping[int, str] = field(default_factory=dict)


def build(
    document: Mapping[str, Any],
    name: str,
    region_default: str | None = None,
    places: Places | None = None,
) -> ClusterSpec:
    """The cluster `name` that the checked `document` asks for.

    `region_default` is for a profile without a region. Raises ProfileError if no region is known,
    or with every key that a role still lacks after merging.
    """
    places = places or Places()
    wanted, engine = _wanted(document, name)
    common = document.get("instance", {})
    merged = [_merge(common, each.part.get("instance", {})) for each in wanted]
    _check_complete(wanted, merged, places)
    _check_tags(wanted, merged, places)
    _check_types(wanted, merged, places)
    region = _region(document, region_default, places)
    pairs = zip(wanted, merged, strict=True)
    config = document[engine].get(CONFIG) if engine else None
    groups = {each.path: _group(each, instance, config) for each, instance in pairs}
    return ClusterSpec(
        name=name,
        region=region,
        engine=engine,
        notebook=next((group for group in groups.values() if group.role == NOTEBOOK), None),
        head=next((group for group in groups.values() if group.role in HEADS), None),
        workers=tuple(group for group in groups.values() if group.role == WORKER),
        cidrs=tuple(document.get("access", {}).get("cidrs", ())),
        public=document.get("access", {}).get("public", False),
        state=_state(document, region),
        lifetime=lifetime(document.get("lifetime")),
        account=document.get("account"),
        description=document.get("description", ""),
        webbrowser=document.get("webbrowser"),
        profile=document,
        budget=document.get("budget", {}).get("usd_per_hour"),
    )


def _wanted(document: Mapping[str, Any], name: str) -> tuple[list[_Wanted], str | None]:
    """The groups that the profile asks for, and its engine."""
    wanted = []
    if "notebook" in document:
        part = document["notebook"]
        ports = {NOTEBOOK_PORT: "JupyterLab"}
        wanted.append(_Wanted(("notebook",), NOTEBOOK, NOTEBOOK, f"{name}-notebook", part, ports))
    engine = next((key for key in ENGINES if key in document), None)
    if engine:
        wanted += _engine(ENGINES[engine], document[engine], name)
    return wanted, engine


def _engine(engine: Engine, part: Mapping[str, Any], name: str) -> list[_Wanted]:
    """The head and the worker groups, whether the profile names them or not."""
    role, prefix = engine.head_role, f"{name}-{engine.name}"
    own = part.get(role, {})
    head = _Wanted((engine.name, role), role, role, f"{prefix}-{role}", own, engine.ports)
    groups = part.get(WORKER, {})
    return [head, *_worker_groups((engine.name, WORKER), groups, f"{prefix}-worker")]


def _worker_groups(path: KeyPath, part: Any, instance_name: str) -> list[_Wanted]:
    """The one group of an object, or each group of a list.

    A listed group named `worker` is the same as the group of an object, so that a profile can add
    groups beside running workers.
    """
    if isinstance(part, Mapping):
        return [_Wanted(path, WORKER, WORKER, instance_name, part)]
    names = [group["name"] for group in part]
    return [
        _Wanted(
            (*path, index),
            WORKER,
            name,
            instance_name if name == WORKER else f"{instance_name}-{name}",
            part[index],
        )
        for index, name in enumerate(names)
    ]


def _merge(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The common instance overridden by a role's own keys; tags and `env` are merged one by one.

    A role's own `ami` replaces the common `image`, and the other way round. Terraform normalises
    every string to NFC. Tags, the only free text that passes through it, are normalised here, or
    they would never equal what comes back.
    """
    tags = {**common.get("tags", {}), **own.get("tags", {})}
    replaced = {"ami", "image"} if {"ami", "image"} & own.keys() else set()
    kept = {key: common[key] for key in common.keys() - replaced}
    env = {**common.get("env", {}), **own.get("env", {})}
    return {**kept, **own, "env": env, "tags": {_nfc(key): _nfc(tags[key]) for key in tags}}


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _check_complete(wanted: list[_Wanted], merged: list[dict[str, Any]], places: Places) -> None:
    found: dict[KeyPath, str] = {}
    for each, instance in zip(wanted, merged, strict=True):
        there = instance.keys() | ({"ami"} if "image" in instance else set())
        missing = [key for key in REQUIRED if key not in there]
        if missing:
            own = dotted((*each.path, "instance"))
            found[each.path] = (
                f"the {each.role} has no {_listed(missing)}; set it in instance or {own}"
            )
    if found:
        raise mistakes(found, places)


# AWS: "Maximum number of tags per resource: 50" (Amazon EC2 user guide, "Tag your resources").
_MOST_TAGS = 50
# bilbo's own: Name, the cluster and its owner on everything; role and group on machines.
_OWN_TAGS, _OWN_TAGS_OF_MACHINES = 3, 5


def _check_tags(wanted: list[_Wanted], merged: list[dict[str, Any]], places: Places) -> None:
    """Counts tags where they end up: on machines after merging, and all together on the generated
    security group."""
    found: dict[KeyPath, str] = {}
    for each, instance in zip(wanted, merged, strict=True):
        room = _MOST_TAGS - _OWN_TAGS_OF_MACHINES
        if len(instance["tags"]) > room:
            place = (*each.path, "instance", "tags")
            found[place] = (
                f"the {each.role} has {len(instance['tags'])} tags with the common ones; "
                f"AWS allows {room} beside bilbo's {_OWN_TAGS_OF_MACHINES}"
            )
    union = {key for instance in merged for key in instance["tags"]}
    generated = any(not instance.get("security_group") for instance in merged)
    room = _MOST_TAGS - _OWN_TAGS
    if not found and generated and len(union) > room:
        found[("instance", "tags")] = (
            f"the generated security group gets the tags of all roles, {len(union)} different "
            f"ones; AWS allows {room} beside bilbo's {_OWN_TAGS}"
        )
    if found:
        raise mistakes(found, places)


# The instance families with AWS's own processors (Graviton), by their names: a `g` follows the
# generation. Source: the EC2 user guide, "Amazon EC2 instance type naming conventions".
_ARM = re.compile(r"(a1|[a-z]+[0-9]+g[a-z]*)\.")


def _check_types(wanted: list[_Wanted], merged: list[dict[str, Any]], places: Places) -> None:
    """Types of one group run one AMI, which is for one architecture."""
    found: dict[KeyPath, str] = {}
    for each, instance in zip(wanted, merged, strict=True):
        own = instance["ec2type"]
        for index, other in enumerate(each.part.get("types", ())):
            if bool(_ARM.match(own)) != bool(_ARM.match(other)):
                path: KeyPath = (*each.path, "types", index)
                found[path] = (
                    f"{other} runs {_architecture(other)}, but {own} {_architecture(own)}: one AMI "
                    "cannot start on both"
                )
    if found:
        raise mistakes(found, places)


def _architecture(ec2type: str) -> str:
    return "arm64" if _ARM.match(ec2type) else "x86_64"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _group(wanted: _Wanted, instance: dict[str, Any], config: Any) -> NodeGroup:
    part = wanted.part
    of_engine = {CONFIG: config} if config else {}
    return NodeGroup(
        role=wanted.role,
        name=wanted.name,
        instance_name=wanted.instance_name,
        machine=_machine(instance),
        count=int(part.get("count", 1)),
        resources=dict(part.get("resources", {})),
        settings={**{key: part[key] for key in part if key not in _NO_SETTINGS}, **of_engine},
        ports=wanted.ports,
        spot={True: SPOT, FALLBACK: FALLBACK}.get(part.get("spot", False), ""),
        types=tuple(part.get("types", ())),
    )


def _machine(instance: dict[str, Any]) -> Machine:
    return Machine(
        **{
            **instance,
            "ami": instance.get("ami", ""),
            "packages": tuple(instance.get("packages", ())),
            "ssh_port": int(instance.get("ssh_port", 22)),
            "vol_size": _whole(instance.get("vol_size")),
            "init_cmd": tuple(instance.get("init_cmd", ())),
        }
    )


def _whole(value: float | None) -> int | None:
    """JSON Schema calls 4.0 an integer too."""
    return None if value is None else int(value)


def _state(document: Mapping[str, Any], region: str) -> SharedState | None:
    """Where the state is shared; in the cluster's region unless the profile names another."""
    part = document.get("state")
    if part is None:
        return None
    return SharedState(part["bucket"], part.get("region", region), part.get("prefix", "bilbo"))


def _region(document: Mapping[str, Any], default: str | None, places: Places) -> str:
    region: str | None = document.get("region", default)
    if not region:
        raise ProfileError(
            "no AWS region is set",
            where=places.where,
            hint='Add "region" to the profile or set AWS_DEFAULT_REGION.',
        )
    return region
