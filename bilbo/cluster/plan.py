"""`plan`: what Terraform would do for a profile. Creates nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bilbo import record as states
from bilbo.cluster.budget import bill_of
from bilbo.cluster.host_settings import known
from bilbo.cluster.launches import shortages
from bilbo.cluster.launching import check_images, limits, public_keys
from bilbo.cluster.noticing import noticed
from bilbo.cluster.ownership import owned, right_account, stored
from bilbo.cluster.planning import PLAN_FILE, Planned, write_rendered
from bilbo.cluster.price_refresh import Priced
from bilbo.cluster.purchases import purchase_notes, with_purchases
from bilbo.cluster.resting import as_told, ended, is_told_paused, paused
from bilbo.cluster.root_devices import with_root_devices
from bilbo.cluster.settling import same_place, settle
from bilbo.cluster.shared_state import initialised, not_moving, recorded
from bilbo.cluster.volumes import check_volumes
from bilbo.cluster.work import Work, interruptible
from bilbo.hostside import compare
from bilbo.model import ClusterSpec, Inventory
from bilbo.present.ending import ending
from bilbo.record import Record, now

_NO_OWNER = (
    "This cluster was created before owners existed: its resources have no tag bilbo:owner, and "
    "adding it would replace every worker. Only new clusters get one."
)


# How long a change waits for prices that are asked for meanwhile; without one, nothing waits.
_PRICES_SECONDS = 3.0


def plan(
    spec: ClusterSpec,
    work: Work,
    *,
    my_ip: bool = False,
    show: bool = False,
    costs: Mapping[str, float] | None = None,
) -> Planned:
    """Validates, renders and plans. Raises RemoteError for an unusable private key,
    TerraformError, AwsError for what AWS would refuse, Interrupted, and as `settle` does.

    `show` starts the provider once more. `costs` are a person's own prices, USD per hour by
    instance type. Side effects: writes the cluster's Terraform folder, but no record.
    """
    before = work.store.known(spec.name)
    if before is None and not any(True for _ in spec.groups()):
        return Planned(spec, None)
    same_place(before, work)
    right_account(spec, before, work)
    public_keys(spec, work, needed=False)
    reads = interruptible("plan only reads, so nothing changed")
    with work.store.lock(spec.name, "plan"), reads:
        spec = settle(spec, work, before, my_ip, newest=True)
        terraform, priced = work.terraform(spec.name), Priced(spec.region, work)
        not_moving(spec, terraform)
        state = stored(work.target, terraform, spec.name, spec.state)
        spec = owned(spec, work, before, state)
        spec = with_purchases(with_root_devices(spec, work, state), state)
        for note in purchase_notes(spec, state):
            work.progress.say(note)
        if spec.owner is None:
            work.progress.say(_NO_OWNER)
        before = as_told(before, state) if before and spec.state else before
        asked, spec = spec, paused(spec) if is_told_paused(state) else spec
        files = write_rendered(spec, terraform)
        initialised(terraform, work, spec.name)
        settings = compare(spec, known(spec, work, before))
        path = terraform.cluster_folder / PLAN_FILE
        outcome = terraform.plan(path, work.progress.terraform)
        if not outcome.ok:
            raise terraform.error(outcome, f"terraform plan failed for cluster {spec.name!r}")
        check_volumes(spec, work, state, outcome.changes)
        planned = _checked(Planned(asked, outcome, settings), spec, before, work)
        there = before or _shared(spec, work, state)
        planned = _billed(planned, work, there, priced, costs or {})
        if not show:
            return planned
        shown = terraform.show(path)
        return replace(planned, files=files, saved=path.read_bytes(), shown=shown)


def _checked(planned: Planned, spec: ClusterSpec, before: Record | None, work: Work) -> Planned:
    """Returns the plan of `spec` with the workers that are missing. Raises AwsError for what AWS
    would refuse; says when the cluster ends."""
    changes = planned.outcome.changes if planned.outcome else ()
    check_images(spec, work, before.inventory if before else Inventory(), changes)
    limits(spec, work, changes)
    short = shortages(spec, work, changes)
    work.progress.say(ending(spec))
    news = bool(short or (planned.outcome and planned.outcome.exit_code))
    if _rests(planned.spec, before, work, told=spec.paused is not None, news=news):
        return replace(planned, paused=True)  # nothing is missing until it is resumed
    return replace(planned, shortages=short)


def _rests(spec: ClusterSpec, before: Record | None, work: Work, *, told: bool, news: bool) -> bool:
    """Whether the cluster is paused, which is said: its state has `told` so, or it paused itself,
    for which AWS is asked if there is any `news`. Says it, too, if the cluster has ended itself."""
    if before and news and not told:
        before = noticed(before, work)
    name = spec.name
    if before and before.status == states.ENDED and not told:
        work.progress.say(f"{ended(before)} `bilbo create` brings it back, with new machines.")
    if not told and not (before and before.status == states.PAUSED):
        return False
    count = sum(group.count for group in spec.workers)
    back = f" with {count} worker{'s' * (count != 1)}" if spec.workers else ""
    work.progress.say(
        f"Cluster {name!r} is paused, and planned so. `bilbo resume {name}`, or `bilbo create`, "
        f"brings it back{back}."
    )
    return True


def _shared(spec: ClusterSpec, work: Work, state: Mapping[str, Any]) -> Record | None:
    """Returns the record of a team-mate's cluster, which this home does not know."""
    return recorded(spec, work, state) if spec.state and state.get("resources") else None


def _billed(
    planned: Planned, work: Work, there: Record | None, priced: Priced, costs: Mapping[str, float]
) -> Planned:
    """Returns the plan with what it costs."""
    found = priced.now(_PRICES_SECONDS if planned.has_changes else 0.0)
    found = replace(found, machines={**found.machines, **costs})
    if costs and not found.date:
        found = replace(found, date=now())
    return replace(planned, bill=bill_of(planned.spec, work, there, found), prices=found)
