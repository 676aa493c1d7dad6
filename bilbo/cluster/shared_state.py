"""Shared states: who holds the lock, what the state says about a cluster, and moving to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bilbo import aws, hostside
from bilbo import record as states
from bilbo.cluster.ownership import account_in, ids, kept_in, owner_in, stored
from bilbo.cluster.resting import as_told
from bilbo.cluster.work import Work
from bilbo.errors import RecordError
from bilbo.inventory import inventory
from bilbo.model import ClusterSpec, SharedState
from bilbo.record import Record, now
from bilbo.terraform import PROVIDERS, Terraform, state_providers, unlock_hint

_SHA256 = re.compile(r"[0-9a-f]{64}")


def outputs_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a state's outputs as `{name: value}`."""
    return {name: output["value"] for name, output in state.get("outputs", {}).items()}


def told_digests(outputs: Mapping[str, Any]) -> dict[str, dict[str, str]] | None:
    """Returns the hashes of `init_cmd` and `packages` in a state's outputs, by group and key; None
    if there are none, as in older states. Raises RecordError."""
    told = outputs.get("host_side")
    if told is None:
        return None
    good = isinstance(told, dict) and all(
        isinstance(group, dict)
        and all(isinstance(each, str) and _SHA256.fullmatch(each) for each in group.values())
        for group in told.values()
    )
    if not good:
        raise RecordError("bilbo did not write the hashes in the shared state")
    return {name: dict(group) for name, group in told.items()}


def say_unlike(spec: ClusterSpec, told: Mapping[str, Mapping[str, str]] | None, work: Work) -> None:
    """Reports which `init_cmd` and `packages` of `spec` differ from what the cluster was created
    with; `told` are a state's hashes."""
    ours = hostside.digests(spec)
    for key, groups in hostside.unlike(spec, told).items():
        where = ", ".join(groups)
        if any(key in ours[group] for group in groups):
            differ = "differ" if key == "packages" else "differs"
            text = f"The profile's {key} {differ} from what the cluster was created with ({where})."
        else:
            text = f"The cluster was created with {key}, which a shared state omits ({where})."
            text += "\nUse the team's profile, which has it."
        work.progress.say(text)


def admitted(state: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Returns the state if it uses only the AWS provider. Raises RecordError otherwise.

    Terraform installs and runs any provider that a state names.
    """
    try:
        foreign = sorted(state_providers(state) - PROVIDERS)
    except ValueError as error:
        raise RecordError(f"not a Terraform state: {error}", where=where) from error
    if foreign:
        raise RecordError(
            f"the state names a provider that bilbo does not use: {', '.join(foreign)}",
            where=where,
            hint="bilbo did not write it. Find out who can write there; the bucket keeps every "
            "version.",
        )
    return state


def initialised(terraform: Terraform, work: Work, name: str) -> None:
    """Runs `terraform init`, after `admitted` has checked the state. Says so if the state is not up
    to date, because a Terraform could not write it."""
    if text := terraform.unwritten_text():
        work.progress.say(text)
    if state := kept_in(terraform):
        admitted(aws.shared_state(work.target, state, name), state.address())
    terraform.init()


def unlocked(state: SharedState, cluster: str, work: Work) -> None:
    """Raises RecordError if a process, here or elsewhere, holds the lock of the shared state."""
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
    """Removes the lock with exactly that id. Raises RecordError, TerraformError."""
    terraform = work.terraform(record.name)
    where = kept_in(terraform)
    if where is None:
        raise RecordError(
            f"the state of cluster {record.name!r} is on this machine, where a lock ends with its "
            "process; nothing to unlock"
        )
    lock = aws.state_lock(work.target, where, record.name)
    if lock is None:
        raise RecordError(f"the state of cluster {record.name!r} is not locked")
    if lock.id != lock_id:
        raise RecordError(
            f"{lock.who} has locked the state of cluster {record.name!r} since {lock.created} UTC "
            f"with another id: {lock.id}"
        )
    initialised(terraform, work, record.name)
    terraform.unlock(lock_id)


def found_before(
    spec: ClusterSpec, work: Work, before: Record | None
) -> tuple[Record | None, Mapping[str, Any]]:
    """Returns the cluster's record, from this home or from the shared state, and its state.

    A cluster without a record here may still exist: a team-mate may have created it. Raises
    RecordError if the state is locked, or belongs to another cluster than this home's.
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
    return as_told(before, shared) if before else recorded(spec, work, shared), shared


def recorded(spec: ClusterSpec, work: Work, state: Mapping[str, Any]) -> Record:
    """Returns the record of a team-mate's cluster, from its state. It has no token yet."""
    record = Record(
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
    return as_told(record, state)


def not_moving(spec: ClusterSpec, terraform: Terraform) -> None:
    """Raises RecordError if the state is not where the profile keeps it: a plan must not move
    it."""
    if terraform.keeps_state() and terraform.backend() != _wanted(spec):
        there = spec.state.address() if spec.state else "on this machine"
        raise RecordError(
            f"the state of cluster {spec.name!r} is not yet where the profile keeps it: {there}",
            hint="Move it first: `bilbo create` with no other change in the profile only moves it.",
        )


def _wanted(spec: ClusterSpec) -> dict[str, str]:
    return spec.state.backend(spec.name) if spec.state else {}


def _stays_or_comes(spec: ClusterSpec, terraform: Terraform) -> None:
    """Raises RecordError if a shared state would be abandoned: a team-mate may still use it."""
    there = terraform.backend()
    if there and terraform.keeps_state() and there != _wanted(spec):
        raise RecordError(
            f"the state of cluster {spec.name!r} is shared at s3://{there['bucket']}/{there['key']}",
            hint="Restore that `state` in the profile; bilbo moves states into a bucket, never out "
            "of one.",
        )


def _same_cluster(spec: ClusterSpec, terraform: Terraform, shared: Mapping[str, Any]) -> None:
    """Raises RecordError before a move would overwrite the state of another cluster, or a newer
    one."""
    if not shared.get("resources") or terraform.backend() == _wanted(spec):
        return
    local = terraform.state()  # an interrupted move leaves the same state in both places
    if local.get("resources") and ids(local) != ids(shared):
        raise RecordError(
            f"there are two clusters {spec.name!r}: one on this machine and one in the shared "
            "state",
            hint="Choose another name with -n, or first destroy this machine's cluster with the "
            "profile it was created from.",
        )
