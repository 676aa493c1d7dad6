"""States that a team shares: who holds one, what it tells of a cluster, and moving there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bilbo import aws, hostside
from bilbo import record as states
from bilbo.cluster.ownership import account_in, ids, kept_in, owner_in, stored
from bilbo.cluster.work import Work
from bilbo.errors import RecordError
from bilbo.inventory import inventory
from bilbo.model import ClusterSpec, SharedState
from bilbo.record import Record, now
from bilbo.terraform import PROVIDERS, Terraform, state_providers, unlock_hint

_SHA256 = re.compile(r"[0-9a-f]{64}")


def outputs_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """`{name: value}` of a state as Terraform stores it."""
    return {name: output["value"] for name, output in state.get("outputs", {}).items()}


def told_digests(outputs: Mapping[str, Any]) -> dict[str, dict[str, str]] | None:
    """The hashes of `init_cmd` and `packages` in a state's outputs, by group and key; None where
    there are none, as in states of before. Raises RecordError."""
    told = outputs.get("host_side")
    if told is None:
        return None
    good = isinstance(told, dict) and all(
        isinstance(group, dict)
        and all(isinstance(each, str) and _SHA256.fullmatch(each) for each in group.values())
        for group in told.values()
    )
    if not good:
        raise RecordError("the hashes in the shared state are not ones that bilbo has written")
    return {name: dict(group) for name, group in told.items()}


def say_unlike(spec: ClusterSpec, told: Mapping[str, Mapping[str, str]] | None, work: Work) -> None:
    """Says which `init_cmd` and `packages` of `spec` are not those that the cluster was made with;
    `told` are a state's hashes."""
    ours = hostside.digests(spec)
    for key, groups in hostside.unlike(spec, told).items():
        where = ", ".join(groups)
        if any(key in ours[group] for group in groups):
            are = "are not those" if key == "packages" else "is not the one"
            text = f"The profile's {key} {are} that the cluster was made with ({where})."
        else:
            text = f"The cluster was made with {key} that no shared state holds ({where})."
            text += "\nThe team's profile has it: give that."
        work.progress.say(text)


def admitted(state: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The state itself, if no provider but AWS's has a part in it.

    Terraform installs and runs whatever provider a state names. Raises RecordError.
    """
    try:
        foreign = sorted(state_providers(state) - PROVIDERS)
    except ValueError as error:
        raise RecordError(f"this is not a state of Terraform's: {error}", where=where) from error
    if foreign:
        raise RecordError(
            f"the state names a provider that bilbo does not use: {', '.join(foreign)}",
            where=where,
            hint="Somebody has written it by other means. Ask who can write there; the bucket "
            "keeps every version.",
        )
    return state


def initialised(terraform: Terraform, work: Work, name: str) -> None:
    """Runs `terraform init` once the state that it will work on is `admitted`."""
    if state := kept_in(terraform):
        admitted(aws.shared_state(work.target, state, name), state.address())
    terraform.init()


def unlocked(state: SharedState, cluster: str, work: Work) -> None:
    """Raises RecordError where a process, here or elsewhere, holds the shared state."""
    lock = aws.state_lock(work.target, state, cluster)
    if lock is None:
        return
    raise RecordError(
        f"{lock.who} works on cluster {cluster!r} ({lock.operation or 'unknown'}, since "
        f"{lock.created} UTC)",
        where=f"{state.address()}/{cluster}.tfstate.tflock",
        hint=f"Wait for it to end. {unlock_hint(cluster, lock.id)}",
    )


def take_lock_away(record: Record, lock_id: str, work: Work) -> None:
    """Takes away the lock of that id, and no other. Raises RecordError, TerraformError."""
    terraform = work.terraform(record.name)
    where = kept_in(terraform)
    if where is None:
        raise RecordError(
            f"the state of cluster {record.name!r} is on this machine, where a lock ends with its "
            "process"
        )
    lock = aws.state_lock(work.target, where, record.name)
    if lock is None:
        raise RecordError(f"nobody holds the state of cluster {record.name!r}")
    if lock.id != lock_id:
        raise RecordError(
            f"the state of cluster {record.name!r} is held by {lock.who} since {lock.created} UTC "
            f"under another id: {lock.id}"
        )
    initialised(terraform, work, record.name)
    terraform.unlock(lock_id)


def found_before(
    spec: ClusterSpec, work: Work, before: Record | None
) -> tuple[Record | None, Mapping[str, Any]]:
    """The cluster as this home remembers it, or as the shared state tells of it; and its state.

    No record here does not mean that there is no cluster: a team-mate may have made it. Raises
    RecordError when the state is held, or belongs to another cluster than this home's.
    """
    terraform = work.terraform(spec.name)
    _stays_or_comes(spec, terraform)
    if spec.state is None:
        return before, stored(work.target, terraform, spec.name, None)
    unlocked(spec.state, spec.name, work)
    shared = admitted(aws.shared_state(work.target, spec.state, spec.name), spec.state.address())
    if before is not None:
        _same_cluster(spec, terraform, shared)
    if not shared.get("resources"):
        return before, stored(work.target, terraform, spec.name, None)
    return before or recorded(spec, work, shared), shared


def recorded(spec: ClusterSpec, work: Work, state: Mapping[str, Any]) -> Record:
    """The record of a cluster that somebody else made, from its state. It has no token yet."""
    return Record(
        name=spec.name,
        status=states.PARTIAL,
        region=spec.region,
        type=spec.engine,
        created_time=now(),
        profile=spec.profile,
        profile_name=spec.profile_name,
        terraform_dir=str(work.terraform(spec.name).folder),
        endpoint_url=work.target.endpoint_url,
        inventory=inventory(spec, outputs_of(state)),
        cidrs=spec.cidrs,
        account=account_in(state),
        owner=owner_in(state),
    )


def not_moving(spec: ClusterSpec, terraform: Terraform) -> None:
    """Raises RecordError where the profile keeps the state elsewhere than it is: a plan must not
    move it."""
    if terraform.keeps_state() and terraform.backend() != _wanted(spec):
        there = spec.state.address() if spec.state else "on this machine"
        raise RecordError(
            f"the state of cluster {spec.name!r} is not yet where the profile keeps it: {there}",
            hint="Move it first: `bilbo create` of the profile with no other change does that, "
            "and nothing else.",
        )


def _wanted(spec: ClusterSpec) -> dict[str, str]:
    return spec.state.backend(spec.name) if spec.state else {}


def _stays_or_comes(spec: ClusterSpec, terraform: Terraform) -> None:
    """Raises RecordError where a shared state would be left: a team-mate may go on with it."""
    there = terraform.backend()
    if there and terraform.keeps_state() and there != _wanted(spec):
        raise RecordError(
            f"the state of cluster {spec.name!r} is shared at s3://{there['bucket']}/{there['key']}",
            hint="Put that back into the profile's `state`; bilbo moves states into a bucket, and "
            "never out of one.",
        )


def _same_cluster(spec: ClusterSpec, terraform: Terraform, shared: Mapping[str, Any]) -> None:
    """Moving a state must not write over another cluster's, nor over a newer one."""
    if not shared.get("resources") or terraform.backend() == _wanted(spec):
        return
    local = terraform.state()  # a move that was cut off has left the same in both
    if local.get("resources") and ids(local) != ids(shared):
        raise RecordError(
            f"there are two clusters {spec.name!r}: one of this machine's own, one in the shared "
            "state",
            hint="Choose another name with -n, or first destroy the one of this machine with the "
            "profile that it was made from.",
        )
