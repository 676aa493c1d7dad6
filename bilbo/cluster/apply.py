"""Terraform's part of `create` and `scale`: what runs afterwards, and what is missing and why.

The crash contract: *when the record is written*. After a `kill -9`

| killed | the record says | `create` | `destroy` |
|---|---|---|---|
| before Terraform applies: checks, `init`, plan | what it said before | starts over | as before |
| while Terraform applies (it goes on) | `creating` | waits, completes | waits, destroys all |
| Terraform too, before its state was written | `creating` | imports by tag | destroys by tag |
| while services start | `starting` | starts what does not run | destroys all |
| once every host has a result | `ready`, `partial`, `failed` | repairs, if needed | destroys all |
| while Terraform destroys (it goes on) | `destroying` | waits, starts over | waits, continues |
| while a cluster is paused, until all are stopped | `pausing` | brings it back | destroys all |
| once all are stopped | `paused` | brings it back | destroys all |
| while a cluster is resumed | as by `create` | completes | destroys all |

So the record is saved as `creating` right before anything is created, changed or ended, which
includes retiring workers; as `starting`, with its inventory, once Terraform has ended; and with the
outcome once every host has a result. If Terraform is refused before AWS did anything, the earlier
record is restored. `pause` completes what it was killed at, and `resume` does what `create` does.
What AWS holds is in Terraform's state or carries the cluster's tag: the record
is never the only place.
`tests/test_crash_contract.py` kills at each row, `tests/test_pause.py` at those of a pause.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilbo import addresses, aws
from bilbo import record as states
from bilbo.cluster.agreement import agree, keep_all
from bilbo.cluster.credentials_watch import CredentialsWatch
from bilbo.cluster.launches import (
    activities_so_far,
    await_workers,
    close,
    groups_anew,
    groups_now,
    launching,
    settle,
    tidy,
    too_few,
)
from bilbo.cluster.launching import check_images, preflight, public_keys
from bilbo.cluster.leaving import dismiss, leaving
from bilbo.cluster.orphans import adopt
from bilbo.cluster.planning import PLAN_FILE, write_rendered
from bilbo.cluster.reviewed import Reviewed
from bilbo.cluster.starting import tell
from bilbo.cluster.volumes import check_volumes
from bilbo.cluster.work import Work
from bilbo.errors import AwsError, BilboError
from bilbo.inventory import inventory, missing, stopped
from bilbo.model import ClusterSpec, Inventory
from bilbo.record import Record
from bilbo.terraform import NAME_TAKEN, Outcome, PlannedChange, Terraform, hint_for

# How long AWS may omit addresses after the instances exist.
_ADDRESS_SECONDS = 60


@dataclass(frozen=True)
class Undertaking:
    """What to make of a cluster, and what was agreed to beforehand.

    `before` is the record of an existing cluster, and `record` is saved once something is created
    or changed. `yes` agrees to ending machines, `force` to losing the results of workers that
    leave. With `scaling`, only counts change. Without `look`, everything else is assumed to be as
    in `before`. `head_is_dead` says whether the engine's head is known not to run; it is asked only
    if workers leave. `asleep` are the machines to start before anything else is done: while they
    cannot be had, workers would be billed in vain. With `keep`, nothing may be destroyed or
    replaced, whatever the person agrees to. `tell_costs` says what the change costs, right before
    it begins.
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
    head_is_dead: Callable[[], bool] = lambda: False
    asleep: Callable[[], Collection[str]] = tuple
    keep: bool = False
    tell_costs: Callable[[], None] = lambda: None

    @property
    def runs(self) -> bool:
        """Whether the cluster has machines."""
        return self.before is not None and any(True for _ in self.before.inventory.nodes())


@dataclass(frozen=True)
class Applied:
    """Terraform's part: what runs, and the error if something is missing."""

    inventory: Inventory
    changed: bool
    error: BilboError | None = None


# All three raise TerraformError, AwsError and KeyboardInterrupt, and leave the record as the
# module's table says.


def apply_new(task: Undertaking) -> Applied:
    """Creates a cluster that has no record."""
    keys = public_keys(task.spec, task.work)
    _prepare(task, lambda: _preflight(task, keys))
    _begin(task)
    return _carry_out(task, None)


def apply_changes(task: Undertaking) -> Applied:
    """Changes a recorded cluster to its specification: plans first, and asks if something ends.

    Raises BilboError without consent, RemoteError if leaving workers cannot be retired.
    """
    keys = public_keys(task.spec, task.work)
    _prepare(task)
    planned = _planned(task)
    groups = groups_now(task.spec, task.work)
    close(task.spec, task.work, groups)
    short = too_few(task.spec, groups)
    asleep = task.asleep()
    if not planned.changes and planned.exit_code == 0 and not short and not asleep:
        outputs = task.terraform.outputs()
        # A start that failed is no change to Terraform: its state tells of the stopped machine.
        if _stopped(task, outputs):
            return Applied(_complete(task, outputs, None), changed=True)
        return Applied(inventory(task.spec, outputs), changed=False)
    assert task.before
    if task.look:
        _preflight(task, keys, planned.changes)
        if any(each.resource_type == "aws_instance" for each in planned.changes):
            check_volumes(task.spec, task.work, task.terraform.state(), planned.changes)
    else:
        check_images(task.spec, task.work, task.before.inventory, planned.changes)
    if task.keep:
        keep_all(task.spec, planned)
    task.tell_costs()
    agree(task.spec, planned, task.before, task.work, yes=task.yes, scaling=task.scaling)
    if not planned.changes and not short and not asleep:  # outputs alone
        return _carry_out(task, _plan_file(task), changed=False)
    _begin(task)
    _wake(task, asleep)
    opened = _tidied(task, planned.changes)
    if any(each.resource_type == "aws_autoscaling_group" for each in planned.changes):
        _let_leave(task)
    return _carry_out(task, _plan_file(task) if planned.changes else None, opened)


def apply_reviewed(task: Undertaking, reviewed: Reviewed) -> Applied:
    """Applies exactly that plan. Raises ReviewError if it is out of date, RemoteError if leaving
    workers cannot be retired."""
    task.work.progress.status("Preparing Terraform and checking AWS")
    _preflight(task, public_keys(task.spec, task.work))
    changes = reviewed.still_true(task.spec, task.work, task.terraform)
    reviewed.place(task.spec, task.terraform)
    task.terraform.init()
    _begin(task)
    _wake(task, task.asleep())
    opened = _tidied(task, changes)
    if task.before:
        _let_leave(task)
    return _carry_out(task, _plan_file(task), opened)


def raise_on_demand(task: Undertaking, short: Collection[str]) -> Applied:
    """Applies `task.spec`, in which the groups `short` run more on demand, and then has AWS launch
    what they lack: by then it buys as the new files say."""
    write_rendered(task.spec, task.terraform)
    with launching(task.spec, task.work):
        outcome = task.terraform.apply(CredentialsWatch(task.work))
    return _carry_out(task, None, short) if outcome.ok else _salvage(task, outcome)


# -- steps ---------------------------------------------------------------------------------


def _prepare(task: Undertaking, look: Callable[[], None] = lambda: None) -> None:
    """Does everything before Terraform's own work, and what is to `look` at while `init` runs."""
    task.work.progress.status("Preparing Terraform and checking AWS")
    write_rendered(task.spec, task.terraform)
    with ThreadPoolExecutor(1) as pool:
        initialised = pool.submit(task.terraform.init)
        look()
        initialised.result()
    if task.before and task.before.status not in (states.READY, states.PAUSED):
        adopt(task.spec, task.work, task.terraform)
        _keep(task.terraform)


def _preflight(
    task: Undertaking, keys: Mapping[str, bytes], changes: Collection[PlannedChange] = ()
) -> None:
    there = task.before.inventory if task.before else Inventory()
    # If an earlier attempt created nothing, another cluster may have taken the name since.
    nothing_yet = task.before is not None and not task.runs
    new = task.before is None or (nothing_yet and task.spec.owner is not None)
    preflight(task.spec, task.work, keys, there, changes, new=new)


def _begin(task: Undertaking) -> None:
    """Reports and records that something will be created, changed or ended."""
    if task.runs:
        task.work.progress.say(f"Change cluster '{task.spec.name}'.")
    else:
        tell(task.spec, task.work, "Create")
        task.tell_costs()
    task.work.store.save(task.record)


def _wake(task: Undertaking, asleep: Collection[str]) -> None:
    """Starts machines that are stopped. If AWS has no room for all, those that it did start are
    stopped again, and the earlier record is restored."""
    if not asleep:
        return
    work = task.work
    work.progress.say(f"Start stopped instances: {', '.join(asleep)}")
    try:
        aws.start_instances(work.target, asleep)
    except AwsError as error:
        error.hint = hint_for("\n".join(error.details)) or error.hint
        try:
            aws.stop_instances(work.target, asleep)
        except AwsError as another:
            work.progress.say(f"{another}\nWhat was started runs, and is billed.")
        else:
            _forget_try(task)
        raise


def _stopped(task: Undertaking, outputs: Mapping[str, Any]) -> list[str]:
    """Returns the single instances that do not run, though they should."""
    return [] if task.spec.paused is not None else stopped(task.spec, outputs)


def _tidied(task: Undertaking, changes: Collection[PlannedChange]) -> list[str]:
    """Returns the groups that must launch, without those that are replaced. If AWS refuses, the
    earlier record is restored."""
    try:
        short = tidy(task.spec, task.work) if task.before else []
    except AwsError:
        _forget_try(task)
        raise
    anew = groups_anew(task.spec, changes)
    return [name for name in short if name not in anew]


def _carry_out(
    task: Undertaking,
    plan_file: Path | None,
    opened: Collection[str] = (),
    *,
    changed: bool = True,
) -> Applied:
    """Applies the plan while AWS launches; without a plan, the groups `opened` only grow."""
    spec, work, lack = task.spec, task.work, None
    only_grow = plan_file is None and bool(opened)
    known = activities_so_far(work, opened)
    with launching(spec, work, opened):
        if only_grow:
            lack = await_workers(spec, work, known)
        outcome = _refreshed(task) if only_grow else task.terraform.apply(
            CredentialsWatch(work), plan_file=plan_file
        )  # fmt: skip
        if outcome.ok and not only_grow and opened:
            lack = await_workers(spec, work, known)
    if outcome.refused:
        _forget_try(task)
        raise task.terraform.error(outcome, f"cluster {spec.name!r} is unchanged")
    if not outcome.ok:
        lost = _take_what_is_ours(task, outcome)
        if lost and plan_file is None:
            return _carry_out(task, None, opened)
        return _salvage(task, outcome, lost=lost)
    if lack:
        settle(spec, work)
        outcome = _refreshed(task)
    return Applied(_complete(task, outcome.outputs, lack), changed, lack)


def _let_leave(task: Undertaking) -> None:
    """Retires the workers that Terraform is about to end. If that fails, the earlier record is
    restored, with a status that makes `create` restart what was stopped."""
    before, who = task.before, None
    assert before
    try:
        who = leaving(task.spec, task.work)
        # A cluster that failed has no scheduler, and nothing to lose.
        force = task.force or before.status == states.FAILED
        dead = bool(who.groups) and task.head_is_dead()
        dismiss(task.spec, task.work, before.inventory, who, force=force, dead=dead)
    except BilboError:
        touched = who and who.groups and before.status == states.READY
        task.work.store.save(before.changed(status=states.PARTIAL) if touched else before)
        raise


def _forget_try(task: Undertaking) -> None:
    """Restores the record, because nothing was done."""
    if task.before:
        task.work.store.save(task.before)
    elif task.spec.state:
        task.work.store.forget(task.spec.name)


def _keep(terraform: Terraform) -> None:
    """Untaints what did not come up well, because replacing it would end what runs."""
    for address in addresses.tainted(terraform.state()):
        terraform.untaint(address)


def _plan_file(task: Undertaking) -> Path:
    return task.terraform.cluster_folder / PLAN_FILE


def _planned(task: Undertaking) -> Outcome:
    name, tell_event = task.spec.name, task.work.progress.terraform
    planned = task.terraform.plan(_plan_file(task), tell_event, refresh=task.look)
    if not planned.ok:
        raise task.terraform.error(planned, f"terraform plan failed for cluster {name!r}")
    return planned


def _refreshed(task: Undertaking) -> Outcome:
    """Updates the state to what AWS has."""
    return task.terraform.apply(task.work.progress.terraform, refresh_only=True)


def _take_what_is_ours(task: Undertaking, failed: Outcome) -> bool:
    """Whether a name was taken by the cluster itself, whose resource is now in the state.

    If AWS's answer is lost, the provider asks again, and finds the name taken: CreateSecurityGroup
    and CreateAutoScalingGroup know no client token that would tell.
    """
    taken = any(sign in each.detail + each.summary for each in failed.errors for sign in NAME_TAKEN)
    return taken and not task.terraform.unwritten and bool(
        adopt(task.spec, task.work, task.terraform)
    )  # fmt: skip


def _salvage(task: Undertaking, failed: Outcome, *, lost: bool = False) -> Applied:
    """Keeps what AWS did create: a group that is short of machines must not be replaced. `lost` is
    what `_take_what_is_ours` returned."""
    name, store = task.spec.name, task.work.store
    error = task.terraform.error(failed, f"Terraform could not create all of cluster {name!r}")
    if lost:
        error.lasts, error.hint = False, "That was the cluster's own: AWS's answer was lost."
    store.save(store.load(name).changed(status=states.FAILED))
    partial = task.terraform.unwritten or task.terraform.cut_off
    if partial or not task.terraform.state().get("resources"):
        raise error
    _keep(task.terraform)
    with contextlib.suppress(AwsError):
        settle(task.spec, task.work)
    refreshed = _refreshed(task)
    found = inventory(task.spec, refreshed.outputs)
    if not refreshed.ok or not any(True for _ in found.nodes()):
        raise error
    return Applied(found, changed=True, error=error)


def _complete(task: Undertaking, outputs: Mapping[str, Any], lack: BilboError | None) -> Inventory:
    """Returns the complete inventory: starts instances that were stopped by hand, and asks AWS
    again until it gives every address, unless workers are known to `lack`.
    """
    spec = task.spec
    asleep = _stopped(task, outputs)
    if more := [each for each in asleep if each not in task.asleep()]:
        task.work.progress.say(f"Start stopped instances: {', '.join(more)}")
        aws.start_instances(task.work.target, more)
    found = inventory(spec, outputs)
    deadline = time.monotonic() + _ADDRESS_SECONDS
    while (asleep or (missing(spec, found) and not lack)) and time.monotonic() < deadline:
        outputs = _refreshed(task).outputs or task.terraform.outputs()
        asleep = _stopped(task, outputs)
        found = inventory(spec, outputs)
    return found
