"""`scale`: changes the counts of workers while the cluster computes."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace

from bilbo import record as states
from bilbo.cluster.apply import Applied, Undertaking, apply_changes
from bilbo.cluster.host_settings import must_be_alike
from bilbo.cluster.ownership import owned, right_account, stored
from bilbo.cluster.settling import settle
from bilbo.cluster.shared_state import unlocked
from bilbo.cluster.starting import Created, conclude, start, with_nodes
from bilbo.cluster.work import Work, finish_earlier, interruptible
from bilbo.errors import BilboError, UsageError
from bilbo.model import ClusterSpec, worker_part
from bilbo.profile import building
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

    New workers are started; workers that leave are retired first (with `force`, removed even if
    that fails). Nothing else changes, and bilbo connects to no other host. An interrupted change is
    completed. Raises UsageError for unknown groups, PartlyDone, and as `create` does.
    """
    what = f"what exists of cluster {name!r} is in its Terraform state"
    hint = "To continue, run the same `bilbo scale`; to return to the profile: bilbo create"
    with work.store.lock(name, "scale"), interruptible(what, hint):
        before = work.store.load(name)
        spec = _scaled(before, counts)
        right_account(spec, before, work)
        if spec.state:
            unlocked(spec.state, name, work)
        terraform = work.terraform(name)
        finish_earlier(terraform, work)
        state = stored(work.target, terraform, name, spec.state)
        spec = owned(settle(spec, work, before, my_ip=False), work, before, state)
        must_be_alike(spec, work)
        record = before.changed(
            status=states.CREATING, profile=spec.profile, account=spec.account, owner=spec.owner
        )
        certain = before.status in _CERTAIN
        task = Undertaking(
            spec, work, terraform, record, before, yes, force, scaling=True, look=not certain
        )
        applied = apply_changes(task)
        if before.status == states.READY and _as_it_was(before, spec, applied):
            return Created(before, changed=False)
        record = work.store.save(with_nodes(record, spec, applied.inventory))
        new = _to_start(before, record) if certain else None
        results = start(spec, work, record, only=new)
        return Created(conclude(spec, work, record, results, applied.error, "bilbo scale"))


def _scaled(before: Record, counts: Mapping[str | None, int]) -> ClusterSpec:
    """Returns the record's specification with the new counts. Raises UsageError, BilboError."""
    if before.status == states.DESTROYING:
        raise BilboError(
            f"cluster {before.name!r} is being destroyed",
            hint=f"To continue: bilbo destroy {before.name}",
        )
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
