"""Auto Scaling groups as bilbo tends them: who is in them, and what AWS may do by itself.

Terraform does not manage which processes are suspended, as it does not manage protection from
scale-in.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from bilbo.aws.session import asking, client
from bilbo.model import CLUSTER_TAG, OWNER_TAG, Target

# AWS's names of the processes. Source: Auto Scaling's user guide, "Suspend and resume processes".
LAUNCH, REPLACE, REBALANCE = "Launch", "ReplaceUnhealthy", "AZRebalance"
_PENDING = ("Pending", "Warmed:Pending")
_LEAVING = ("Terminat", "Detach", "Warmed:Terminat")


@dataclass(frozen=True)
class Member:
    """An instance of a group. `state` is EC2's, empty if it was not asked or EC2 does not list it.

    AWS marks an ended or stopped instance as not `healthy` at its next health check, and never
    takes that back by itself.
    """

    id: str
    lifecycle: str
    healthy: bool
    state: str = ""

    @property
    def pending(self) -> bool:
        """Whether it is still starting."""
        return self.lifecycle.startswith(_PENDING)

    @property
    def ended(self) -> bool:
        """Whether it is gone for good. EC2 lists what has ended for an hour, and what is new a
        moment late."""
        gone = not self.state and not self.healthy and not self.pending
        return gone or self.state in ("terminated", "shutting-down")

    @property
    def stopped(self) -> bool:
        """Whether it is there, but does not run."""
        return self.state in ("stopped", "stopping")


@dataclass(frozen=True)
class WorkerGroup:
    """A group of a cluster, without the instances that are leaving it; `size` is what AWS was asked
    for."""

    name: str
    suspended: frozenset[str] = frozenset()
    members: tuple[Member, ...] = field(default=())
    size: int = 0

    @property
    def running(self) -> int:
        """How many of its instances run, or are about to."""
        return sum(not (each.ended or each.stopped) for each in self.members)

    @property
    def in_service(self) -> int:
        """How many of its instances AWS counts as running."""
        return sum(each.healthy and each.lifecycle == "InService" for each in self.members)


def worker_groups(
    target: Target, names: Collection[str], owner: str | None, cluster: str = ""
) -> list[WorkerGroup]:
    """The groups of these names that exist and have this `owner`. One paged call, and another one
    for the states of instances if a `cluster` is named. Raises AwsError."""
    if not names:
        return []
    with asking("cannot list the worker groups"):
        states = _states(target, cluster) if cluster else {}
        pages = client(target, "autoscaling").get_paginator("describe_auto_scaling_groups")
        return [
            _group(found, states)
            for page in pages.paginate(AutoScalingGroupNames=sorted(names))
            for found in page["AutoScalingGroups"]
            if _owner(found) == (owner or "")
        ]


def _owner(found: dict[str, Any]) -> str:
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}
    return str(tags.get(OWNER_TAG, ""))


def _states(target: Target, cluster: str) -> dict[str, str]:
    pages = client(target, "ec2").get_paginator("describe_instances").paginate(
        Filters=[{"Name": f"tag:{CLUSTER_TAG}", "Values": [cluster]}]
    )  # fmt: skip
    return {
        instance["InstanceId"]: instance["State"]["Name"]
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    }


def _group(found: dict[str, Any], states: dict[str, str]) -> WorkerGroup:
    members = [
        Member(
            each["InstanceId"],
            each["LifecycleState"],
            each["HealthStatus"] == "Healthy",
            states.get(each["InstanceId"], ""),
        )
        for each in found["Instances"]
        if not each["LifecycleState"].startswith(_LEAVING)
    ]
    suspended = frozenset(each["ProcessName"] for each in found.get("SuspendedProcesses", []))
    size = found["DesiredCapacity"]
    return WorkerGroup(found["AutoScalingGroupName"], suspended, tuple(members), size)


def suspend(target: Target, group: str, processes: Collection[str]) -> None:
    """Lets AWS no longer do this in a group by itself. Raises AwsError."""
    with asking(f"cannot suspend {', '.join(sorted(processes))} in the group {group}"):
        client(target, "autoscaling").suspend_processes(
            AutoScalingGroupName=group, ScalingProcesses=sorted(processes)
        )


def resume_launches(target: Target, group: str) -> None:
    """Lets AWS launch instances until the group has its size. Raises AwsError."""
    with asking(f"cannot resume {LAUNCH} in the group {group}"):
        client(target, "autoscaling").resume_processes(
            AutoScalingGroupName=group, ScalingProcesses=[LAUNCH]
        )


def set_healthy(target: Target, instance_ids: Collection[str]) -> None:
    """Takes back what a health check has found of instances that run. Raises AwsError."""
    with asking("cannot set the health of workers"):
        for name in sorted(instance_ids):
            client(target, "autoscaling").set_instance_health(
                InstanceId=name, HealthStatus="Healthy", ShouldRespectGracePeriod=False
            )


def take_out(target: Target, instance_ids: Collection[str]) -> None:
    """Takes ended instances out of their group, which keeps its size. Raises AwsError.

    DetachInstances would refuse those that are not in service.
    """
    with asking("cannot take ended workers out of their group"):
        for name in sorted(instance_ids):
            client(target, "autoscaling").terminate_instance_in_auto_scaling_group(
                InstanceId=name, ShouldDecrementDesiredCapacity=False
            )


def activities(target: Target, group: str) -> list[dict[str, Any]]:
    """A group's last activities, the newest first, as AWS describes them: `ActivityId`,
    `StatusCode`, `StatusMessage`. One call. Raises AwsError."""
    with asking(f"cannot list the activities of the group {group}"):
        answer = client(target, "autoscaling").describe_scaling_activities(
            AutoScalingGroupName=group, MaxRecords=100
        )
    return list(answer["Activities"])
