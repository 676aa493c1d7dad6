"""`create`: from a specification to running services, as one short function."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from bilbo import aws
from bilbo import record as states
from bilbo.cluster.adopt import adopt, tainted
from bilbo.cluster.start import conclude, start, tell, with_nodes
from bilbo.cluster.work import Work, finish_earlier, interrupted, interruptible, same_place, settle
from bilbo.errors import BilboError
from bilbo.inventory import inventory, missing
from bilbo.model import ClusterSpec, Inventory
from bilbo.profile import expand_key_path
from bilbo.record import Record, now
from bilbo.render import render
from bilbo.report import changes
from bilbo.terraform import Outcome, Terraform

# How long addresses may be missing from AWS's answers after the instances are there.
_ADDRESS_SECONDS = 60


@dataclass(frozen=True)
class Created:
    """The cluster as it is now; `record` None where the profile asks for no instance.

    `changed` False means that there was nothing to do.
    """

    record: Record | None
    changed: bool = True


@dataclass(frozen=True)
class _Applied:
    """Terraform's part: what runs, and the error that kept it from being all."""

    inventory: Inventory
    changed: bool
    error: BilboError | None = None


def create(spec: ClusterSpec, work: Work, *, yes: bool = False, my_ip: bool = False) -> Created:
    """Makes the cluster be as `spec` says, or completes it.

    Raises PartlyDone when some of it works, RemoteError when none does, TerraformError,
    AwsError, RecordError and Interrupted. The record is written before anything is made.
    """
    with work.store.lock(spec.name, "create"), interruptible(spec.name):
        before = work.store.known(spec.name)
        if before is None and not any(True for _ in spec.groups()):
            return Created(None, changed=False)
        same_place(before, work)
        terraform = work.terraform(spec.name)
        finish_earlier(terraform, work)
        spec = settle(spec, work, before, my_ip)
        record = _begin(spec, work, before, terraform)
        applied = _apply(spec, work, terraform, record, before, yes=yes)
        if not applied.changed and _finished(before, applied):
            return Created(before, changed=False)
        record = work.store.save(with_nodes(record, spec, applied.inventory))
        tell(spec, work, "Start")
        results = start(spec, work, record)
        return Created(conclude(spec, work, record, results, applied.error))


def _begin(spec: ClusterSpec, work: Work, before: Record | None, terraform: Terraform) -> Record:
    """The record of a cluster whose creation or change begins; what it has stays known."""
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
    return base.changed(
        status=states.CREATING,
        type=spec.engine,
        profile=spec.profile,
        profile_name=spec.profile_name,
        cidrs=spec.cidrs,
        token=base.token or secrets.token_hex(24),
    )


# -- Terraform's part ----------------------------------------------------------------------


def _apply(
    spec: ClusterSpec,
    work: Work,
    terraform: Terraform,
    record: Record,
    before: Record | None,
    *,
    yes: bool,
) -> _Applied:
    _prepare(spec, work, terraform, before)
    if before is None:
        tell(spec, work, "Create")
        work.store.save(record)
        outcome = terraform.apply(work.progress.terraform)
    else:
        planned = _planned(spec, work, terraform)
        if not planned.changes and planned.exit_code == 0:
            return _Applied(inventory(spec, terraform.outputs()), changed=False)
        _agree(planned, before, work, yes=yes)
        tell(spec, work, "Create")
        work.store.save(record)
        outcome = terraform.apply(work.progress.terraform, plan_file=_plan_file(terraform))
        if outcome.ok and not planned.changes:
            return _Applied(inventory(spec, outcome.outputs), changed=False)
    if outcome.interrupted:
        raise interrupted(spec.name)
    if not outcome.ok:
        return _salvage(spec, work, terraform, outcome)
    return _Applied(_complete(spec, work, terraform, outcome), changed=True)


def _prepare(spec: ClusterSpec, work: Work, terraform: Terraform, before: Record | None) -> None:
    """Everything that goes before Terraform's own work; the looking while `init` runs."""
    from concurrent.futures import ThreadPoolExecutor

    work.progress.status("Preparing Terraform, and looking at AWS")
    terraform.write(render(spec))
    with ThreadPoolExecutor(1) as pool:
        initialised = pool.submit(terraform.init)
        aws.preflight(
            spec,
            work.target,
            lambda path: expand_key_path(path, work.store.home),
            new=before is None,
        )
        initialised.result()
    if before and before.status in (states.CREATING, states.FAILED, states.DESTROYING):
        adopt(spec.name, work, terraform)


def _plan_file(terraform: Terraform) -> Path:
    return terraform.cluster_folder / "plan.tfplan"


def _planned(spec: ClusterSpec, work: Work, terraform: Terraform) -> Outcome:
    planned = terraform.plan(_plan_file(terraform), work.progress.terraform)
    if planned.interrupted:
        raise interrupted(spec.name)
    if not planned.ok:
        raise terraform.error(planned, f"terraform plan failed for cluster {spec.name!r}")
    return planned


def _agree(planned: Outcome, before: Record, work: Work, *, yes: bool) -> None:
    """Asks before anything that runs is ended. Raises BilboError when it may not be."""
    if planned.changes and any(True for _ in before.inventory.nodes()):
        work.progress.say(changes(planned))
    if not planned.destructive or yes:
        return
    question = f"{len(planned.destructive)} resource(s) would be destroyed or replaced. Go on?"
    if not work.progress.confirm(question):
        raise BilboError("nothing was changed")


def _salvage(spec: ClusterSpec, work: Work, terraform: Terraform, failed: Outcome) -> _Applied:
    """Keeps what AWS did make: a group that is short of machines must not be replaced."""
    error = terraform.error(failed, f"Terraform could not make all of cluster {spec.name!r}")
    work.store.save(work.store.load(spec.name).changed(status=states.FAILED))
    state = terraform.state()
    if not state.get("resources"):
        raise error
    for address in tainted(state):
        terraform.untaint(address)
    refreshed = terraform.apply(work.progress.terraform, refresh_only=True)
    if refreshed.interrupted:
        raise interrupted(spec.name)
    found = inventory(spec, refreshed.outputs)
    if not refreshed.ok or not any(True for _ in found.nodes()):
        raise error
    return _Applied(found, changed=True, error=error)


def _complete(spec: ClusterSpec, work: Work, terraform: Terraform, applied: Outcome) -> Inventory:
    """The inventory, looked at again while AWS does not yet give every address."""
    found = inventory(spec, applied.outputs)
    deadline = time.monotonic() + _ADDRESS_SECONDS
    while missing(spec, found) and time.monotonic() < deadline:
        refreshed = terraform.apply(work.progress.terraform, refresh_only=True)
        if refreshed.interrupted:
            raise interrupted(spec.name)
        found = inventory(spec, refreshed.outputs or terraform.outputs())
    return found


def _finished(before: Record | None, applied: _Applied) -> bool:
    return (
        before is not None
        and before.status == states.READY
        and before.inventory == applied.inventory
    )
