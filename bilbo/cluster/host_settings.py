"""What is known of a cluster besides its HCL: from this machine's record, and from the shared
state, which takes precedence because team-mates may have changed the cluster since."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from bilbo import aws, hostside
from bilbo.cluster.settling import with_ssh_port
from bilbo.cluster.shared_state import admitted, outputs_of, told_digests
from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.errors import BilboError, ProfileError, RecordError
from bilbo.hostside import Known
from bilbo.model import WORKER, ClusterSpec
from bilbo.profile import building, checking
from bilbo.record import Record


def known(spec: ClusterSpec, work: Work, record: Record | None) -> Known:
    """Returns what the record and any shared state say about the cluster.

    Raises RecordError for a state that bilbo did not write, AwsError.
    """
    mine = _recorded(record, work) if record else None
    outputs = _outputs(spec, work)
    if "profile" not in outputs:
        return Known(hostside.values(mine)) if mine else Known()
    theirs = told_spec(outputs["profile"], spec.name, spec.region)
    theirs = with_ssh_port(theirs, work.target.ssh_port)
    private = (*hostside.HASHED, *hostside.OWN)
    told = {
        place: value for place, value in hostside.values(theirs).items() if place[1] not in private
    }
    found = Known(told, told_digests(outputs), shared=True)
    return hostside.remembered(found, mine) if mine else found


def must_be_alike(spec: ClusterSpec, work: Work) -> None:
    """Raises BilboError if new machines would differ from those that a team-mate created."""
    unlike = hostside.unlike(spec, told_digests(_outputs(spec, work)))
    if unlike:
        raise BilboError(
            f"new machines would differ from those of cluster {spec.name!r}",
            details=tuple(
                f"this machine's {key} differs from what the cluster was created with: "
                f"{', '.join(groups)}"
                for key, groups in unlike.items()
            ),
            hint=f"First run `bilbo create` with the team's profile and -n {spec.name}.",
        )


def _outputs(spec: ClusterSpec, work: Work) -> dict[str, Any]:
    """Returns the outputs of the cluster's shared state; empty if there is no such state."""
    if spec.state is None:
        return {}
    found = aws.shared_state(work.target, spec.state, spec.name)
    return outputs_of(admitted(found, spec.state.address())) if found.get("resources") else {}


def _recorded(record: Record, work: Work) -> ClusterSpec:
    spec = building.build(record.profile, record.name, record.region)
    return with_ssh_port(spec, work.target.ssh_port)


# How deeply a profile may nest; deeper nesting crashes the programs that walk it.
_LEVELS = 32
# The keys taken from a shared state, by their place: whoever can write the bucket must not control
# a team-mate's machine. All other keys are dropped.
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
    "spot",
    "types",
]
_OF_LIFETIME = ["ttl", "idle", "then", "unreached", "follow"]
_OF_PROFILE = [
    *("description", "region", "account", "access", "lifetime", "budget", "instance", "notebook"),
    *ENGINES,
]


def taken(shared: Any) -> dict[str, Any]:
    """Returns the profile in a state's outputs, with only the keys that a state may set. Raises
    RecordError if it is not a profile."""
    if not isinstance(shared, dict) or _is_deep(shared):
        raise RecordError("bilbo did not write the profile in the shared state")
    document = _only(shared, _OF_PROFILE)
    for key, kept in (("instance", _OF_INSTANCE), ("lifetime", _OF_LIFETIME)):
        if document.get(key) is not None:
            document[key] = _only(document[key], kept)
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
    """Whether a value nests deeper than any profile."""
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
    """Returns a copy of `part` with only these keys; `{}` if it is not an object."""
    if not isinstance(part, dict):
        return {}
    kept: dict[str, Any] = json.loads(json.dumps({k: part[k] for k in part if k in keys}))
    return kept


def told_spec(profile: Any, name: str, region: str) -> ClusterSpec:
    """Returns the specification from a shared `profile`. Raises RecordError if it is invalid."""
    document = taken(profile)
    document.setdefault("instance", {})["ssh_private_key"] = "~/nobodys"
    try:
        checking.check_profile(document)
        return building.build(document, name, region)
    except ProfileError as error:
        raise RecordError(
            "bilbo did not write the profile in the shared state",
            details=error.details,
        ) from error
