"""`scale`: changes the counts of workers while the cluster computes."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace

from bilbo import record as states
from bilbo.cluster.apply import Applied, Undertaking, apply_changes
from bilbo.cluster.bookkeeping import note_machines
from bilbo.cluster.budget import check_budget
from bilbo.cluster.fallback import with_fallback
from bilbo.cluster.host_settings import must_be_alike
from bilbo.cluster.launches import close
from bilbo.cluster.look import look
from bilbo.cluster.ownership import owned
from bilbo.cluster.purchases import with_purchases
from bilbo.cluster.resting import awake
from bilbo.cluster.root_devices import with_root_devices
from bilbo.cluster.settling import settle
from bilbo.cluster.starting import Created, conclude, start, with_nodes
from bilbo.cluster.taking_up import not_ending, take_up
from bilbo.cluster.work import Work, interruptible
from bilbo.errors import QUOTE, RemoteError, UsageError
from bilbo.model import ClusterSpec, worker_part
from bilbo.profile import building
from bilbo.reality import LAUNCH, RENEW, Reality, absent, joined
from bilbo.record import Record

# After an interruption nothing is certain, so everything is checked.
_CERTAIN = (states.READY, states.PARTIAL)


def scale(
    name: str,
    counts: Mapping[str | None, int],
    work: Work,
    *,
    yes: bool = False,
    force: bool = False,
) -> Created:
    """Changes the counts of worker groups; the key None means the cluster's only group.

    New workers are started, and those that the head has lost start anew; workers that leave are
    retired first (with `force`, removed even if that fails). Nothing else changes, and no other
    host is asked, unless the head does not say who has joined it. An interrupted change is
    completed. Raises as `create` does, UsageError for unknown groups, BilboError if the cluster is
    paused, RemoteError for a dead head.
    """
    what = f"what exists of cluster {name!r} is in its Terraform state"
    hint = "To continue, run the same `bilbo scale`; to return to the profile: bilbo create"
    with work.store.lock(name, "scale"), interruptible(what, hint, work.terraform(name)):
        before = awake(not_ending(work.store.load(name)))
        spec = _scaled(before, counts)
        before, state = take_up(spec, before, work)
        awake(before)
        spec = owned(settle(spec, work, before, my_ip=False), work, before, state)
        spec = with_purchases(with_root_devices(spec, work, state), state)
        must_be_alike(spec, work)
        if before.status == states.CREATING:
            close(spec, work)
        certain = before.status in _CERTAIN
        seen = _look_at_head(before, work, force=force or not certain)
        record = before.changed(
            status=states.CREATING, profile=spec.profile, account=spec.account, owner=spec.owner
        )
        task = Undertaking(
            spec, work, work.terraform(name), record, before, yes, force,
            scaling=True, look=not certain, head_is_dead=lambda: seen.head_is_dead,
            tell_costs=check_budget(spec, work, before),
        )  # fmt: skip
        lost = _lost(before, seen)
        spec, applied = with_fallback(task, apply_changes(task))
        if before.status == states.READY and lost == set() and _as_it_was(before, spec, applied):
            return Created(before, changed=False)
        record = work.store.save(with_nodes(record, spec, applied.inventory))
        note_machines(before, record, work)
        new = _to_start(before, record) | lost if certain and lost is not None else None
        results = start(spec, work, record, fresh=_renewed(lost, seen), only=new)
        return Created(conclude(spec, work, record, results, applied.error, "bilbo scale"))


def _look_at_head(before: Record, work: Work, *, force: bool) -> Reality:
    """Returns what runs on the head's machine.

    Unless `force`, raises RemoteError if the head is dead, or has to start anew and would lose all
    that it holds; records that not all is ready.
    """
    head = before.inventory.head
    if head is None:
        return Reality()
    seen = look(before, work, only=[head.instance_id], others=False)
    found = seen.head
    if found and (seen.head_is_dead or found.mend == RENEW) and not force:
        again = f"bilbo restart {before.name}"
        if found.mend == LAUNCH:
            again = f"bilbo create, with its profile and -n {before.name}"
        wrong = "; ".join(found.wrong)
        problems = {**before.problems, head.instance_id: wrong}
        work.store.save(before.changed(status=states.PARTIAL, problems=problems))
        raise RemoteError(
            f"cluster {before.name!r} keeps its count: {head.role} {head.instance_id} {wrong}",
            details=tuple(f"{QUOTE}{line}" for line in found.there.log) if found.there else (),
            hint=f"To start it and all workers anew: {again}",
        )
    return seen


def _lost(before: Record, seen: Reality) -> set[str] | None:
    """Returns the workers that the head does not list; None if it does not say."""
    if not before.inventory.head:
        return set()
    head = seen.head
    if head is None or head.status is None or head.status.members is None:
        return None
    return absent(before.inventory, before.members, head.status.members)


def _renewed(lost: set[str] | None, seen: Reality) -> list[str]:
    """Returns the lost workers that have nothing to lose; the others may still come."""
    members = seen.head.status.members if seen.head and seen.head.status else None
    return [name for name in lost or () if not joined(name, members or ())]


def _scaled(before: Record, counts: Mapping[str | None, int]) -> ClusterSpec:
    """Returns the record's specification with the new counts. Raises UsageError."""
    spec = building.build(before.profile, before.name, before.region)
    known = [group.name for group in spec.workers]
    document = json.loads(json.dumps(dict(before.profile)))
    for wanted, count in counts.items():
        group = known[0] if wanted is None and len(known) == 1 else wanted
        if group not in known or spec.engine is None:
            raise _no_such(before.name, wanted, known)
        worker_part(document, spec.engine, group)["count"] = count
    spec = building.build(document, before.name, before.region)
    return replace(spec, profile_name=before.profile_name)


def _no_such(name: str, wanted: str | None, known: Collection[str]) -> UsageError:
    if not known:
        return UsageError(f"cluster {name!r} has no workers to scale")
    listed = " ".join(f"{group}=N" for group in known)
    what = "several worker groups" if wanted is None else f"no worker group {wanted!r}"
    return UsageError(f"cluster {name!r} has {what}", hint=f"Write: bilbo scale {name} {listed}")


def _as_it_was(before: Record, spec: ClusterSpec, applied: Applied) -> bool:
    same = before.profile == spec.profile and before.inventory == applied.inventory
    return same and not applied.changed and applied.error is None


def _to_start(before: Record, record: Record) -> set[str]:
    """Returns the instances that are new, or that failed at the last attempt."""
    known = {node.instance_id for node in before.inventory.nodes()}
    there = {node.instance_id for node in record.inventory.nodes()}
    return {name for name in there if name not in known or name in before.problems}
