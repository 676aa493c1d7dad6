"""Terraform's part of `create`: what runs afterwards, and what kept it from being all."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bilbo import aws
from bilbo import record as states
from bilbo.cluster.agreement import agree
from bilbo.cluster.leaving import dismiss, leaving
from bilbo.cluster.orphans import adopt, tainted
from bilbo.cluster.reviewed import Reviewed
from bilbo.cluster.starting import tell
from bilbo.cluster.work import Work, interrupted
from bilbo.errors import BilboError
from bilbo.inventory import inventory, missing, stopped
from bilbo.model import ClusterSpec, Inventory
from bilbo.profile import expand_key_path
from bilbo.record import Record
from bilbo.render import render
from bilbo.terraform import Outcome, Terraform

# How long addresses may be missing from AWS's answers after the instances are there.
_ADDRESS_SECONDS = 60


@dataclass(frozen=True)
class Applied:
    """Terraform's part: what runs, and the error that kept it from being all."""

    inventory: Inventory
    changed: bool
    error: BilboError | None = None


def apply(
    spec: ClusterSpec,
    work: Work,
    terraform: Terraform,
    record: Record,
    before: Record | None,
    *,
    yes: bool,
    reviewed: Reviewed | None = None,
    force: bool,
    scaling: bool = False,
    look: bool = True,
) -> Applied:
    """Makes AWS be as `spec` says. `record` is saved right before anything is made or changed.

    `before` is the record of a cluster that exists already, whose changes are planned first,
    and agreed to (`yes`) where they end something. Raises TerraformError, AwsError, BilboError
    (not agreed) and Interrupted. With `reviewed` that plan is applied, or ReviewError raised.

    Workers that leave are retired first; `force` lets them go where that cannot be. `scaling` says
    that nothing but counts is asked for. Without `look` all else is taken to be as in `before`.
    """
    _prepare(spec, work, terraform, before, reviewed, look=look)
    plan_file: Path | None = _plan_file(terraform) if reviewed else None
    changing = resizing = True
    if before and not reviewed:
        planned = _planned(spec, work, terraform, refresh=look)
        if not planned.changes and planned.exit_code == 0:
            return Applied(inventory(spec, terraform.outputs()), changed=False)
        agree(spec, planned, before, work, yes=yes, scaling=scaling)
        plan_file = _plan_file(terraform)
        changing = bool(planned.changes)
        resizing = any(c.resource_type == "aws_autoscaling_group" for c in planned.changes)
    if changing:
        _tell(spec, work, before)
        work.store.save(record)
    if before and resizing:
        _let_leave(spec, work, before, force=force)
    outcome = terraform.apply(work.progress.terraform, plan_file=plan_file)
    if outcome.interrupted:
        raise interrupted(spec.name)
    if outcome.refused:
        _forget_try(spec, work, before)
        raise terraform.error(outcome, f"cluster {spec.name!r} was not changed")
    if not outcome.ok:
        return _salvage(spec, work, terraform, outcome)
    return Applied(_complete(spec, work, terraform, outcome), changing)


def _let_leave(spec: ClusterSpec, work: Work, before: Record, *, force: bool) -> None:
    """Retires the workers that Terraform is about to end. The record is the one of before where
    they cannot be, with a status that has `create` start again what was stopped."""
    who = None
    try:
        who = leaving(spec, work)
        force = force or before.status == states.FAILED  # no scheduler, nothing to lose
        dismiss(spec, work, before.inventory.head, who, force=force)
    except BilboError:
        touched = who and who.groups and before.status == states.READY
        work.store.save(before.changed(status=states.PARTIAL) if touched else before)
        raise


def _forget_try(spec: ClusterSpec, work: Work, before: Record | None) -> None:
    """Leaves the record as it was: nothing was done."""
    if before:
        work.store.save(before)
    elif spec.state:
        work.store.forget(spec.name)


def _tell(spec: ClusterSpec, work: Work, before: Record | None) -> None:
    if before and any(True for _ in before.inventory.nodes()):
        work.progress.say(f"Change cluster '{spec.name}'.")
    else:
        tell(spec, work, "Create")


def _prepare(
    spec: ClusterSpec,
    work: Work,
    terraform: Terraform,
    before: Record | None,
    reviewed: Reviewed | None,
    *,
    look: bool,
) -> None:
    """Everything that goes before Terraform's own work; the looking while `init` runs."""
    from concurrent.futures import ThreadPoolExecutor

    work.progress.status("Preparing Terraform, and looking at AWS")
    if reviewed:
        if look:
            _preflight(spec, work, before)
        reviewed.still_true(spec, work, terraform)
        reviewed.place(terraform)
        terraform.init()
        return
    terraform.write(render(spec))
    with ThreadPoolExecutor(1) as pool:
        initialised = pool.submit(terraform.init)
        if look:
            _preflight(spec, work, before)
        initialised.result()
    if before and before.status != states.READY:
        adopt(spec, work, terraform)
        _keep(terraform)


def _preflight(spec: ClusterSpec, work: Work, before: Record | None) -> None:
    # A try that made nothing may have lost the name to another meanwhile.
    nothing_yet = before is not None and not any(True for _ in before.inventory.nodes())
    aws.preflight(
        spec,
        work.target,
        lambda path: expand_key_path(path, work.store.home),
        new=before is None or (nothing_yet and spec.owner is not None),
    )


def _keep(terraform: Terraform) -> None:
    """Has Terraform go on with what did not come up well: replacing it would end what runs."""
    for address in tainted(terraform.state()):
        terraform.untaint(address)


def _plan_file(terraform: Terraform) -> Path:
    return terraform.cluster_folder / "plan.tfplan"


def _planned(spec: ClusterSpec, work: Work, terraform: Terraform, *, refresh: bool) -> Outcome:
    planned = terraform.plan(_plan_file(terraform), work.progress.terraform, refresh=refresh)
    if planned.interrupted:
        raise interrupted(spec.name)
    if not planned.ok:
        raise terraform.error(planned, f"terraform plan failed for cluster {spec.name!r}")
    return planned


def _salvage(spec: ClusterSpec, work: Work, terraform: Terraform, failed: Outcome) -> Applied:
    """Keeps what AWS did make: a group that is short of machines must not be replaced."""
    error = terraform.error(failed, f"Terraform could not make all of cluster {spec.name!r}")
    work.store.save(work.store.load(spec.name).changed(status=states.FAILED))
    if not terraform.state().get("resources"):
        raise error
    _keep(terraform)
    refreshed = terraform.apply(work.progress.terraform, refresh_only=True)
    if refreshed.interrupted:
        raise interrupted(spec.name)
    found = inventory(spec, refreshed.outputs)
    if not refreshed.ok or not any(True for _ in found.nodes()):
        raise error
    return Applied(found, changed=True, error=error)


def _complete(spec: ClusterSpec, work: Work, terraform: Terraform, applied: Outcome) -> Inventory:
    """The inventory once it is whole: what was stopped by hand is started, and AWS is asked
    again while it does not yet give every address.
    """
    outputs = applied.outputs
    asleep = stopped(spec, outputs)
    if asleep:
        work.progress.say(f"Start what was stopped by hand: {', '.join(asleep)}")
        aws.start_instances(work.target, asleep)
    found = inventory(spec, outputs)
    deadline = time.monotonic() + _ADDRESS_SECONDS
    while (asleep or missing(spec, found)) and time.monotonic() < deadline:
        refreshed = terraform.apply(work.progress.terraform, refresh_only=True)
        if refreshed.interrupted:
            raise interrupted(spec.name)
        outputs = refreshed.outputs or terraform.outputs()
        asleep = stopped(spec, outputs)
        found = inventory(spec, outputs)
    return found
