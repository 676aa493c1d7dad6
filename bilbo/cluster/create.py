"""`create`: from a specification to running services, in one short function."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from functools import cache, partial
from typing import Any

from bilbo import record as states
from bilbo.cluster.apply import Applied, Undertaking, apply_changes, apply_new, apply_reviewed
from bilbo.cluster.bookkeeping import note_machines
from bilbo.cluster.budget import check_budget
from bilbo.cluster.epitaph import say_why
from bilbo.cluster.fallback import with_fallback
from bilbo.cluster.host_settings import known
from bilbo.cluster.look import looked, mend
from bilbo.cluster.ownership import owned, right_account
from bilbo.cluster.purchases import purchase_notes, with_purchases
from bilbo.cluster.resting import asleep, booted
from bilbo.cluster.reviewed import Reviewed, allowed
from bilbo.cluster.root_devices import with_root_devices
from bilbo.cluster.settling import same_place, settle
from bilbo.cluster.shared_state import found_before, say_unlike
from bilbo.cluster.starting import Created, conclude, start, tell, with_nodes, with_token
from bilbo.cluster.unwritten import finish, write_unwritten
from bilbo.cluster.work import Work, interruptible
from bilbo.hostside import Known, compare
from bilbo.lifetime import lifetime
from bilbo.model import ClusterSpec
from bilbo.reality import Reality
from bilbo.record import Record, now
from bilbo.terraform import Terraform


def create(
    spec: ClusterSpec,
    work: Work,
    *,
    yes: bool = False,
    force: bool = False,
    my_ip: bool = False,
    reviewed: Reviewed | None = None,
) -> Created:
    """Creates, completes or changes the cluster of `spec`; with `reviewed`, by exactly that plan.

    `yes` agrees to ending machines, `force` to losing the results of workers that leave. Raises
    PartlyDone if part of the cluster works, RemoteError if none does, TerraformError, AwsError,
    RecordError and Interrupted. The record is written before anything is created.
    """
    what = f"what exists of cluster {spec.name!r} is in its Terraform state"
    hint = f"To continue, run the same `bilbo create`; to remove it: bilbo destroy {spec.name}"
    with work.store.lock(spec.name, "create"), interruptible(what, hint, work.terraform(spec.name)):
        allowed(spec)
        if reviewed:
            reviewed.suits(spec, work)
        mine = work.store.known(spec.name)
        write_unwritten(spec.name, work)
        before, state = found_before(spec, work, mine)
        if before is None and not any(True for _ in spec.groups()):
            return Created(None, changed=False)
        same_place(before, work)
        right_account(spec, before, work)
        terraform = work.terraform(spec.name)
        finish(spec.name, work)
        spec = _settled(spec, work, before, state, reviewed, my_ip=my_ip)
        there = known(spec, work, mine)
        say_unlike(spec, there.digests, work)
        record = _begin(spec, work, before, terraform)
        looking = cache(partial(looked, before, work))
        if not reviewed:  # the look stores host keys, and a refused plan leaves all as it was
            looking()
        task = Undertaking(
            spec, work, terraform, record, before, yes, force,
            head_is_dead=lambda: looking().result().head_is_dead,
            asleep=lambda: asleep(before, looking().result()),
            tell_costs=check_budget(spec, work, before),
        )  # fmt: skip
        applied = _apply(task, reviewed)
        spec, applied = with_fallback(task, applied)
        seen = looking().result()
        if seen.well and not applied.changed and _finished(before, spec, there, applied):
            return Created(before, changed=False)
        record = with_token(record, before, applied.inventory, work)
        return _started(spec, work, before, record, applied, seen, asleep(before, seen))


def _settled(
    spec: ClusterSpec,
    work: Work,
    before: Record | None,
    state: Mapping[str, Any],
    reviewed: Reviewed | None,
    *,
    my_ip: bool,
) -> ClusterSpec:
    """Returns the specification with all that is in no profile: as `reviewed`, if it was. Raises
    ReviewError if that renders to something else."""
    manifest = reviewed.bundle.manifest if reviewed else None
    amis, owner = (manifest.amis, manifest.owner) if manifest else (None, None)
    spec = settle(spec, work, before, my_ip, newest=True, amis=amis)
    spec = owned(spec, work, before, state, planned=owner)
    # The preflight of a new cluster says what is wrong with AMIs, among all else that is wrong.
    spec = with_root_devices(spec, work, state, must_exist=bool(before or reviewed))
    spec = with_purchases(spec, state)
    for note in purchase_notes(spec, state):
        work.progress.say(note)
    if reviewed:
        reviewed.is_rendered(spec)
    return spec


def _started(
    spec: ClusterSpec,
    work: Work,
    before: Record | None,
    record: Record,
    applied: Applied,
    seen: Reality,
    woken: Collection[str],
) -> Created:
    """Starts what does not run on the machines that there are, and says how that ended."""
    rest, record = record.rest, work.store.save(with_nodes(record, spec, applied.inventory))
    note_machines(before, record, work)
    tell(spec, work, "Start")
    fresh = [*mend(seen, work), *booted(before, seen, record.inventory, woken)]
    results = start(spec, work, record, fresh=fresh)
    say_why(spec.name, rest, record.inventory, work)
    return Created(conclude(spec, work, record, results, applied.error))


def _apply(task: Undertaking, reviewed: Reviewed | None) -> Applied:
    if reviewed:
        return apply_reviewed(task, reviewed)
    return apply_changes(task) if task.before else apply_new(task)


def _begin(spec: ClusterSpec, work: Work, before: Record | None, terraform: Terraform) -> Record:
    """Returns the record of a cluster whose creation or change begins; its inventory is kept."""
    base = before or Record(
        name=spec.name,
        status=states.CREATING,
        region=spec.region,
        type=spec.engine,
        created_time=now(),
        profile=spec.profile,
        terraform_dir=str(terraform.folder),
        endpoint_url=work.target.endpoint_url,
    )
    if _ends_anew(base, spec):
        base = base.changed(ready_time=None, ends=None)
    return base.changed(
        status=states.CREATING,
        type=spec.engine,
        profile=spec.profile,
        profile_name=spec.profile_name,
        cidrs=spec.cidrs,
        account=spec.account,
        owner=spec.owner,
        token=base.token or secrets.token_hex(24),
    )


def _ends_anew(record: Record, spec: ClusterSpec) -> bool:
    """Whether the time of a cluster begins again: it has another lifetime, or no machines."""
    changed = lifetime(record.profile.get("lifetime")) != spec.lifetime
    return changed or not any(True for _ in record.inventory.nodes())


def _finished(before: Record | None, spec: ClusterSpec, there: Known, applied: Applied) -> bool:
    """Whether the cluster is as specified, including what only hosts know, such as packages."""
    return (
        before is not None
        and not any(each.changed for each in compare(spec, there))
        and before.status == states.READY
        and before.profile == spec.profile
        and before.inventory == applied.inventory
    )
