"""On demand what spot cannot give, for the groups that ask for it (`"spot": "fallback"`).

Auto Scaling goes on trying spot instances and never launches on demand instead. So bilbo raises the
group's on-demand base by what is missing, in a second apply. It stays raised, in Terraform's state,
so that the next plan has nothing to do: see `purchases`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bilbo import aws
from bilbo.cluster.apply import Applied, Undertaking, raise_on_demand
from bilbo.cluster.launches import groups_now
from bilbo.model import FALLBACK, ClusterSpec, Inventory, NodeGroup
from bilbo.terraform import NO_SPOT


def with_fallback(task: Undertaking, applied: Applied) -> tuple[ClusterSpec, Applied]:
    """Returns the specification and what runs, once the groups that are short of spot instances
    have the rest on demand. Raises as `apply_changes` does."""
    wanted = [group for group in task.spec.workers if group.spot == FALLBACK]
    if applied.error is None or not wanted:
        return task.spec, applied
    raised = {each.name: each for each in _raised(task, wanted, applied.inventory)}
    if not raised:
        return task.spec, applied
    for each in raised.values():
        task.work.progress.say(
            f"Spot has no capacity for all {each.count} worker(s) of group '{each.name}': "
            f"{each.on_demand} run(s) on demand."
        )
    workers = tuple(raised.get(each.name, each) for each in task.spec.workers)
    spec = replace(task.spec, workers=workers)
    names = [each.instance_name for each in raised.values()]
    return spec, raise_on_demand(replace(task, spec=spec), names)


def _raised(task: Undertaking, wanted: list[NodeGroup], there: Inventory) -> Iterator[NodeGroup]:
    """Yields the groups that spot has left short, each with the on-demand base that fills it."""
    running = {each.name: each.running for each in groups_now(task.spec, task.work)}
    for group in wanted:
        if running.get(group.instance_name, group.count) < group.count and _lacks_spot(task, group):
            spot = sum(node.spot for node in there.workers if node.group == group.name)
            yield replace(group, on_demand=group.count - min(spot, group.count))


def _lacks_spot(task: Undertaking, group: NodeGroup) -> bool:
    """Whether the group's last launch failed for want of spot instances."""
    done = aws.activities(task.work.target, group.instance_name)
    failed = [each for each in done if each["StatusCode"] == "Failed"]
    return bool(failed) and any(sign in failed[0].get("StatusMessage", "") for sign in NO_SPOT)
