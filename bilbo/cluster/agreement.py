"""Asks before anything that runs is stopped or destroyed."""

from __future__ import annotations

from collections.abc import Iterator

from bilbo import addresses
from bilbo.cluster.work import Work
from bilbo.errors import BilboError
from bilbo.model import ClusterSpec
from bilbo.present.report import changes
from bilbo.record import Record
from bilbo.terraform import Outcome


def agree(
    spec: ClusterSpec,
    planned: Outcome,
    before: Record,
    work: Work,
    *,
    yes: bool,
    scaling: bool = False,
) -> None:
    """Shows the planned changes of a running cluster, and asks if they end something.

    When `scaling`, the person has given the counts, so no question is asked about workers that
    leave. Raises BilboError without consent; nothing has changed then.
    """
    if planned.changes and any(True for _ in before.inventory.nodes()):
        work.progress.say(changes(planned))
    losses = [*_losses(spec, planned, before)]
    if not scaling:
        losses += _leavers(spec, planned, before)
    if not losses or yes:
        return
    if not work.progress.confirm(f"{'; '.join(losses)}. Continue?"):
        raise BilboError("nothing changed")


def keep_all(spec: ClusterSpec, planned: Outcome) -> None:
    """Raises BilboError if the plan destroys or replaces anything; nothing has changed then."""
    if planned.destructive:
        raise BilboError(
            f"cluster {spec.name!r} would lose what it has; nothing changed",
            details=tuple(changes(planned).splitlines()),
            hint="Somebody has changed it in AWS. `bilbo plan` with its profile shows the plan, "
            "and `bilbo create` carries it out.",
        )


def _losses(spec: ClusterSpec, planned: Outcome, before: Record) -> Iterator[str]:
    if planned.destructive:
        yield f"{len(planned.destructive)} resource(s) will be destroyed or replaced"
    touched = {change.address for change in planned.changes if change.action == "update"}
    types = {node.group: node.ec2type for node in before.inventory.nodes()}
    for group in (spec.notebook, spec.head):
        # EC2 changes the type only of a stopped instance, so what runs on it ends.
        if (
            group
            and types.get(group.name, group.machine.ec2type) != group.machine.ec2type
            and any(addresses.within(each, group.role, group.name) for each in touched)
        ):
            yield f"the {group.role} will be stopped and started as {group.machine.ec2type}"


def _leavers(spec: ClusterSpec, planned: Outcome, before: Record) -> Iterator[str]:
    touched = any(change.action == "update" for change in planned.changes)
    present = [node.group for node in before.inventory.workers]
    for group in spec.workers:
        leaving = present.count(group.name) - group.count
        if leaving > 0 and touched:
            yield f"{leaving} worker(s) will leave"
