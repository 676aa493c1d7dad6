"""`pause`: ends the workers, and stops notebook and head, whose disks stay."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from bilbo import aws
from bilbo import record as states
from bilbo.cluster.apply import Undertaking, apply_changes
from bilbo.cluster.bookkeeping import note_machines
from bilbo.cluster.look import look
from bilbo.cluster.ownership import owned, stored
from bilbo.cluster.purchases import with_purchases
from bilbo.cluster.resting import (
    BY_PAUSE,
    at_rest,
    awake,
    disks,
    known_amis,
    paused,
    singles,
)
from bilbo.cluster.root_devices import with_root_devices
from bilbo.cluster.settling import settle
from bilbo.cluster.starting import Created
from bilbo.cluster.taking_up import not_ending, take_up
from bilbo.cluster.work import Work, interruptible
from bilbo.errors import AwsError, BilboError
from bilbo.inventory import inventory
from bilbo.model import ClusterSpec
from bilbo.profile import building
from bilbo.record import Record, now


def pause(name: str, work: Work, *, yes: bool = False, force: bool = False) -> Created:
    """Pauses a cluster; `record` is its new one, `changed` False if it was paused already.

    Workers are retired first; with `force`, they are ended even if results are lost. `yes` agrees
    to ending what runs. An interrupted pause is completed. Raises BilboError without consent or for
    a cluster that has no machines, RemoteError if workers hold what no other can take, AwsError,
    TerraformError, RecordError and Interrupted.
    """
    what = f"part of cluster {name!r} may still run, and is billed"
    hint = f"To finish: bilbo pause {name}; to use the cluster again: bilbo resume {name}"
    with work.store.lock(name, "pause"), interruptible(what, hint, work.terraform(name)):
        before = not_ending(work.store.load(name))
        spec = building.build(before.profile, name, before.region)
        before, state = take_up(spec, before, work)
        _has_machines(before)
        if before.status == states.PAUSED and not _runs(before, work):
            return Created(before, changed=False)
        amis = known_amis(spec, before, state)
        spec = settle(
            replace(spec, profile_name=before.profile_name), work, before, False, amis=amis
        )
        spec = with_root_devices(owned(spec, work, before, state), work, state)
        spec = with_purchases(spec, state)
        _agree(spec, before, work, yes=yes)
        aws.may_stop(work.target, [node.instance_id for node in singles(before.inventory)])
        record = before.changed(
            status=states.PAUSING, account=spec.account, owner=spec.owner,
            paused_workers={group.name: group.count for group in spec.workers},
        )  # fmt: skip
        certain = before.status in (states.READY, states.PARTIAL)
        task = Undertaking(
            paused(spec), work, work.terraform(name), record, before, True, force, scaling=True,
            look=not certain, head_is_dead=lambda: _head_is_dead(before, work), keep=True,
        )  # fmt: skip
        work.progress.say(f"Pause cluster '{name}'.")
        applied = apply_changes(task)
        work.store.save(record)
        if applied.error:  # workers may run on, and need their head
            raise applied.error
        paused_record = _stopped(task)
        note_machines(before, paused_record, work)
        return Created(paused_record)


def _has_machines(before: Record) -> None:
    if before.status == states.ENDED:
        awake(before)
    if not singles(before.inventory):
        raise BilboError(
            f"cluster {before.name!r} has no notebook and no head to stop; it is unchanged",
            hint=f"To create what is missing, run `bilbo create` with its profile and -n "
            f"{before.name}; to remove it: bilbo destroy {before.name}",
        )


def _runs(before: Record, work: Work) -> bool:
    """Whether anything of a paused cluster runs all the same. Raises AwsError."""
    found = aws.endings(work.target, before.name, before.owner)
    return any(each.state in ("pending", "running") for each in found.values())


def _agree(spec: ClusterSpec, before: Record, work: Work, *, yes: bool) -> None:
    """Raises BilboError if the person does not want what ends to end."""
    count = len(before.inventory.workers)
    stop = " and ".join(node.role for node in singles(before.inventory))
    ends = f"{count} worker{'s' * (count != 1)} end, with what they hold; " if count else ""
    kept = "notebook" if spec.notebook else stop
    question = (
        f"Pause cluster {spec.name!r}? {ends}{stop} stop{'s' * (' and ' not in stop)}, with what "
        f"runs on {'them' if ' and ' in stop else 'it'}. Files on the {kept} stay."
    )
    if not (yes or work.progress.confirm(question)):
        raise BilboError("nothing changed")


def _head_is_dead(before: Record, work: Work) -> bool:
    head = before.inventory.head
    only = [head.instance_id] if head else []
    return bool(only) and look(before, work, only=only, others=False).head_is_dead


def _stopped(task: Undertaking) -> Record:
    """Stops notebook and head, has Terraform's state know of it, and returns the record that says
    so, which is saved."""
    spec, work, record = task.spec, task.work, task.record
    names = [node.instance_id for node in singles(record.inventory)]
    work.progress.say(f"Stop {' and '.join(node.role for node in singles(record.inventory))}.")
    try:
        aws.stop_instances(work.target, names)
    except AwsError as error:
        error.hint = (
            f"{error.hint}\nThe cluster's workers have ended; the rest runs, and is billed. To "
            f"finish: bilbo pause {spec.name}; to use the cluster again: bilbo resume {spec.name}"
        ).lstrip()
        raise
    outcome = task.terraform.apply(work.progress.terraform, refresh_only=True)
    if not outcome.ok:
        raise task.terraform.error(outcome, f"cluster {spec.name!r} is stopped, but not recorded")
    record = record.changed(inventory=inventory(spec, outcome.outputs))
    rest = {"since": now(), "why": BY_PAUSE}
    return work.store.save(at_rest(record, states.PAUSED, spec.paused or {}, rest))


def billed(record: Record, work: Work) -> list[int]:
    """Returns the sizes in GiB of the volumes that are billed while a cluster is paused; empty if
    its state does not tell."""
    spec = building.build(record.profile, record.name, record.region)
    state: Mapping[str, Any] = {}
    with suppress(AwsError):
        state = stored(work.target, work.terraform(record.name), record.name, spec.state)
    return disks(spec, state)
