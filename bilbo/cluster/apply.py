"""Terraform's part of `create` and `scale`: what runs afterwards, and what kept it from being all.

The crash contract: *when the record is written*. After a `kill -9`

| killed | the record says | `create` | `destroy` |
|---|---|---|---|
| before Terraform applies: checks, `init`, plan | what it said before | begins anew | as before |
| while Terraform applies (it goes on) | `creating` | waits, completes | waits, destroys all |
| Terraform too, before its state was written | `creating` | takes by tag | destroys by tag |
| while services start | `starting` | starts what does not run | destroys all |
| once all hosts are judged | `ready`, `partial`, `failed` | mends, or does nothing | destroys all |
| while Terraform destroys (it goes on) | `destroying` | waits, makes anew | waits, goes on |

So the record is saved as `creating` right before anything is made, changed or ended, workers that
are retired included; with its inventory as `starting` once Terraform has ended; and with the
outcome once all hosts are judged. A refusal before AWS did anything takes `creating` back. What AWS
holds is in Terraform's state or carries the cluster's tag: the record is never the only place.
`tests/test_crash_contract.py` kills at each row.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bilbo import addresses, aws
from bilbo import record as states
from bilbo.cluster.agreement import agree
from bilbo.cluster.leaving import dismiss, leaving
from bilbo.cluster.orphans import adopt
from bilbo.cluster.planning import PLAN_FILE, write_rendered
from bilbo.cluster.reviewed import Reviewed
from bilbo.cluster.starting import tell
from bilbo.cluster.work import Work, interrupted
from bilbo.errors import BilboError
from bilbo.inventory import inventory, missing, stopped
from bilbo.model import ClusterSpec, Inventory
from bilbo.profile.naming import expand_key_path
from bilbo.record import Record
from bilbo.terraform import Outcome, Terraform

# How long addresses may be missing from AWS's answers after the instances are there.
_ADDRESS_SECONDS = 60


@dataclass(frozen=True)
class Undertaking:
    """What is to be made of a cluster, and what was agreed to beforehand.

    `before` is the record of a cluster that exists already, and `record` what is saved once
    something is made or changed. `yes` agrees to what ends machines, `force` to losing what workers
    hold that leave. `scaling` says that nothing but counts is asked for. Without `look` all else is
    taken to be as in `before`.
    """

    spec: ClusterSpec
    work: Work
    terraform: Terraform
    record: Record
    before: Record | None
    yes: bool = False
    force: bool = False
    scaling: bool = False
    look: bool = True

    @property
    def runs(self) -> bool:
        """Whether there are machines already."""
        return self.before is not None and any(True for _ in self.before.inventory.nodes())


@dataclass(frozen=True)
class Applied:
    """Terraform's part: what runs, and the error that kept it from being all."""

    inventory: Inventory
    changed: bool
    error: BilboError | None = None


# All three raise TerraformError, AwsError and Interrupted, and end with the record as the module's
# table says.


def apply_new(task: Undertaking) -> Applied:
    """Makes a cluster of which nothing is recorded."""
    _prepare(task)
    _begin(task)
    return _carry_out(task, None)


def apply_changes(task: Undertaking) -> Applied:
    """Makes a recorded cluster be as specified: planned first, and agreed to where something ends.

    Raises BilboError where nobody agrees, RemoteError where workers that leave cannot be retired.
    """
    _prepare(task)
    planned = _planned(task)
    if not planned.changes and planned.exit_code == 0:
        return Applied(inventory(task.spec, task.terraform.outputs()), changed=False)
    assert task.before
    agree(task.spec, planned, task.before, task.work, yes=task.yes, scaling=task.scaling)
    if not planned.changes:  # outputs alone
        return _carry_out(task, _plan_file(task), changed=False)
    _begin(task)
    if any(each.resource_type == "aws_autoscaling_group" for each in planned.changes):
        _let_leave(task)
    return _carry_out(task, _plan_file(task))


def apply_reviewed(task: Undertaking, reviewed: Reviewed) -> Applied:
    """Applies that plan and no other. Raises ReviewError where it is not true any more, and
    RemoteError where workers that leave cannot be retired."""
    task.work.progress.status("Preparing Terraform, and looking at AWS")
    _preflight(task)
    reviewed.still_true(task.spec, task.work, task.terraform)
    reviewed.place(task.spec, task.terraform)
    task.terraform.init()
    _begin(task)
    if task.before:
        _let_leave(task)
    return _carry_out(task, _plan_file(task))


# -- steps ---------------------------------------------------------------------------------


def _prepare(task: Undertaking) -> None:
    """Everything that goes before Terraform's own work; the looking while `init` runs."""
    task.work.progress.status("Preparing Terraform, and looking at AWS")
    write_rendered(task.spec, task.terraform)
    with ThreadPoolExecutor(1) as pool:
        initialised = pool.submit(task.terraform.init)
        if task.look:
            _preflight(task)
        initialised.result()
    if task.before and task.before.status != states.READY:
        adopt(task.spec, task.work, task.terraform)
        _keep(task.terraform)


def _preflight(task: Undertaking) -> None:
    # A try that made nothing may have lost the name to another meanwhile.
    nothing_yet = task.before is not None and not task.runs
    aws.preflight(
        task.spec,
        task.work.target,
        lambda path: expand_key_path(path, task.work.store.home),
        new=task.before is None or (nothing_yet and task.spec.owner is not None),
    )


def _begin(task: Undertaking) -> None:
    """Says and records that something will be made, changed or ended."""
    if task.runs:
        task.work.progress.say(f"Change cluster '{task.spec.name}'.")
    else:
        tell(task.spec, task.work, "Create")
    task.work.store.save(task.record)


def _carry_out(task: Undertaking, plan_file: Path | None, *, changed: bool = True) -> Applied:
    outcome = task.terraform.apply(task.work.progress.terraform, plan_file=plan_file)
    if outcome.interrupted:
        raise interrupted(task.spec.name)
    if outcome.refused:
        _forget_try(task)
        raise task.terraform.error(outcome, f"cluster {task.spec.name!r} was not changed")
    if not outcome.ok:
        return _salvage(task, outcome)
    return Applied(_complete(task, outcome), changed)


def _let_leave(task: Undertaking) -> None:
    """Retires the workers that Terraform is about to end. The record is the one of before where
    they cannot be, with a status that has `create` start again what was stopped."""
    before, who = task.before, None
    assert before
    try:
        who = leaving(task.spec, task.work)
        # A cluster that failed has no scheduler, and nothing to lose.
        force = task.force or before.status == states.FAILED
        dismiss(task.spec, task.work, before.inventory.head, who, force=force)
    except BilboError:
        touched = who and who.groups and before.status == states.READY
        task.work.store.save(before.changed(status=states.PARTIAL) if touched else before)
        raise


def _forget_try(task: Undertaking) -> None:
    """Leaves the record as it was: nothing was done."""
    if task.before:
        task.work.store.save(task.before)
    elif task.spec.state:
        task.work.store.forget(task.spec.name)


def _keep(terraform: Terraform) -> None:
    """Has Terraform go on with what did not come up well: replacing it would end what runs."""
    for address in addresses.tainted(terraform.state()):
        terraform.untaint(address)


def _plan_file(task: Undertaking) -> Path:
    return task.terraform.cluster_folder / PLAN_FILE


def _planned(task: Undertaking) -> Outcome:
    name, tell_event = task.spec.name, task.work.progress.terraform
    planned = task.terraform.plan(_plan_file(task), tell_event, refresh=task.look)
    if planned.interrupted:
        raise interrupted(name)
    if not planned.ok:
        raise task.terraform.error(planned, f"terraform plan failed for cluster {name!r}")
    return planned


def _refreshed(task: Undertaking) -> Outcome:
    """The state as AWS is now. Raises Interrupted."""
    outcome = task.terraform.apply(task.work.progress.terraform, refresh_only=True)
    if outcome.interrupted:
        raise interrupted(task.spec.name)
    return outcome


def _salvage(task: Undertaking, failed: Outcome) -> Applied:
    """Keeps what AWS did make: a group that is short of machines must not be replaced."""
    name, store = task.spec.name, task.work.store
    error = task.terraform.error(failed, f"Terraform could not make all of cluster {name!r}")
    store.save(store.load(name).changed(status=states.FAILED))
    if not task.terraform.state().get("resources"):
        raise error
    _keep(task.terraform)
    refreshed = _refreshed(task)
    found = inventory(task.spec, refreshed.outputs)
    if not refreshed.ok or not any(True for _ in found.nodes()):
        raise error
    return Applied(found, changed=True, error=error)


def _complete(task: Undertaking, applied: Outcome) -> Inventory:
    """The inventory once it is whole: what was stopped by hand is started, and AWS is asked
    again while it does not yet give every address.
    """
    spec, outputs = task.spec, applied.outputs
    asleep = stopped(spec, outputs)
    if asleep:
        task.work.progress.say(f"Start what was stopped by hand: {', '.join(asleep)}")
        aws.start_instances(task.work.target, asleep)
    found = inventory(spec, outputs)
    deadline = time.monotonic() + _ADDRESS_SECONDS
    while (asleep or missing(spec, found)) and time.monotonic() < deadline:
        outputs = _refreshed(task).outputs or task.terraform.outputs()
        asleep = stopped(spec, outputs)
        found = inventory(spec, outputs)
    return found
