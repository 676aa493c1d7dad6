"""What a cluster is known to be beside its HCL: by this machine's record, and by the shared state,
which goes before it where team-mates have changed the cluster since."""

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
    """What the record and, where `spec` shares it, the state tell of the cluster.

    Raises RecordError for a state that bilbo has not written, AwsError.
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
    """Raises BilboError where new machines would come to be otherwise than a team-mate has made
    those there are."""
    unlike = hostside.unlike(spec, told_digests(_outputs(spec, work)))
    if unlike:
        raise BilboError(
            f"new machines would differ from those that cluster {spec.name!r} has",
            details=tuple(
                f"this machine knows other {key} than it was made with: {', '.join(groups)}"
                for key, groups in unlike.items()
            ),
            hint=f"Run `bilbo create` of the team's profile with -n {spec.name} first.",
        )


def _outputs(spec: ClusterSpec, work: Work) -> dict[str, Any]:
    """The outputs of the cluster's shared state; none where there is no such state."""
    if spec.state is None:
        return {}
    found = aws.shared_state(work.target, spec.state, spec.name)
    return outputs_of(admitted(found, spec.state.address())) if found.get("resources") else {}


def _recorded(record: Record, work: Work) -> ClusterSpec:
    spec = building.build(record.profile, record.name, record.region)
    return with_ssh_port(spec, work.target.ssh_port)


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
        checking.check_profile(document)
        return building.build(document, name, region)
    except ProfileError as error:
        raise RecordError(
            "the profile in the shared state is not one that bilbo has written",
            details=error.details,
        ) from error
