"""Spot instances of the stand-in: how a group buys, their shortage, and how AWS takes them back.

moto's own spot instances are requests that Terraform would replace at each plan. A group's are
instances like any others that say `InstanceLifecycle: spot`, which is all that AWS shows of them.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from moto.core.utils import utcnow
from moto.ec2.models.instances import Instance, StateReason
from moto.ec2.utils import filter_dict_attribute_mapping

from bilbo.local.replacements import note, put

if TYPE_CHECKING:
    from bilbo.local.hooks import World

ALIVE = ("pending", "running")
LIFECYCLE = "spot"
# Source: the messages of Auto Scaling's activities, as in
# https://github.com/buildkite/elastic-ci-stack-for-aws/issues/851
SHORTAGE = (
    "Could not launch Spot Instances. UnfulfillableCapacity - Unable to fulfill capacity due to "
    "your request configuration. Please adjust your request and try again."
)
TAKEN = "Server.SpotInstanceTermination"


def install() -> None:
    """Have EC2 tell which instances are spot, and list only those if it is asked to."""
    put(Instance, "instance_lifecycle", property(lambda self: self.lifecycle))
    note("moto.ec2.utils", "filter_dict_attribute_mapping")
    filter_dict_attribute_mapping["instance-lifecycle"] = "lifecycle"


# -- what a group buys ---------------------------------------------------------------------


@dataclass(frozen=True)
class BoughtMachines:
    """So many machines of one type, on demand or `spot`."""

    ec2type: str
    count: int
    spot: bool


def purchases(group: Any, count: int) -> list[BoughtMachines]:
    """How a group buys `count` more machines, on demand first. As its mixed instances policy says:
    https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_InstancesDistribution.html

    AWS chooses among the types of spot instances by capacity and price, here each comes in turn;
    on demand it is the first.
    """
    policy = group.mixed_instances_policy or {}
    overrides = (policy.get("LaunchTemplate") or {}).get("Overrides") or []
    types = [each["InstanceType"] for each in overrides if each.get("InstanceType")]
    types = types or [group.instance_type]
    there = [state.instance for state in group.active_instances()]
    spot = [each for each in there if each.lifecycle == LIFECYCLE]
    wanted = _on_demand(policy.get("InstancesDistribution") or {}, len(there) + count)
    here = min(count, max(0, wanted - (len(there) - len(spot))))
    turns = Counter(types[(len(spot) + n) % len(types)] for n in range(count - here))
    bought = [BoughtMachines(types[0], here, spot=False)] if here else []
    return bought + [BoughtMachines(ec2type, n, spot=True) for ec2type, n in turns.items()]


def _on_demand(distribution: Mapping[str, Any], size: int) -> int:
    """How many machines of a group of that size run on demand."""
    base = int(distribution.get("OnDemandBaseCapacity") or 0)
    percentage = distribution.get("OnDemandPercentageAboveBaseCapacity")
    above = max(0, size - base) * (100 if percentage is None else int(percentage)) / 100
    return min(size, base) + math.ceil(above)


def room(world: World, instances: Iterable[Any]) -> int:
    """How many more spot instances may be launched before a fault's shortage."""
    if world.faults.spot_capacity is None:
        return 1_000_000
    run = sum(each.lifecycle == LIFECYCLE and each.state in ALIVE for each in instances)
    left: int = world.faults.spot_capacity - run
    return max(0, left)


# -- how AWS takes one back ----------------------------------------------------------------


def give_notice(instance: Any, seconds: float) -> None:
    """Announce in the instance's metadata that AWS will take it in so many seconds."""
    instance.bilbo_taken_at = time.monotonic() + seconds
    instance.bilbo_notice = utcnow() + timedelta(seconds=seconds)


def notice(instance: Any) -> dict[str, str] | None:
    """The notice, as the instance's metadata show it; None before there is one.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    """
    when = getattr(instance, "bilbo_notice", None)
    return {"action": "terminate", "time": f"{when:%Y-%m-%dT%H:%M:%SZ}"} if when else None


def take_due(instances: Iterable[Any]) -> None:
    """Take the instances whose time has come."""
    for each in instances:
        due = getattr(each, "bilbo_taken_at", None)
        if due is not None and time.monotonic() >= due and each.state != "terminated":
            each.terminate()
            each._reason = TAKEN
            each.state_reason = StateReason(f"{TAKEN}: Spot instance termination", TAKEN)
