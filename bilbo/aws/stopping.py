"""Starting and stopping instances, which Terraform does not do, and how instances ended."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from bilbo.aws.session import asking, client
from bilbo.aws.tagged import by_tag, described, is_of
from bilbo.model import Target
from bilbo.status import Ending

# What AWS gives as the cause if the machine itself powered off. Source: API_StateReason.
_BY_ITSELF = "Client.InstanceInitiatedShutdown"
# "User initiated (2026-11-28 12:00:00 GMT)". AWS leaves it empty where the machine did it.
_AT = re.compile(r"\((\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) (?:GMT|UTC)\)")
# The waiters' patience: ten minutes, as boto3 has it, but they look more often.
_WAIT = {"Delay": 5, "MaxAttempts": 120}


def start_instances(target: Target, instance_ids: Collection[str]) -> None:
    """Starts those that are stopped, and waits until all run. Raises AwsError."""
    names = sorted(instance_ids)
    ec2 = client(target, "ec2")
    with asking(f"cannot start {', '.join(names)}"):
        states = _states(ec2, names)
        if stopping := [name for name in names if states.get(name) == "stopping"]:
            ec2.get_waiter("instance_stopped").wait(InstanceIds=stopping, WaiterConfig=_WAIT)
        if cold := [name for name in names if states.get(name) not in ("running", "pending")]:
            ec2.start_instances(InstanceIds=cold)
        ec2.get_waiter("instance_running").wait(InstanceIds=names, WaiterConfig=_WAIT)


def stop_instances(target: Target, instance_ids: Collection[str]) -> None:
    """Stops those that run, and waits until none does. Raises AwsError."""
    names = sorted(instance_ids)
    ec2 = client(target, "ec2")
    with asking(f"cannot stop {', '.join(names)}"):
        states = _states(ec2, names)
        if pending := [name for name in names if states.get(name) == "pending"]:
            ec2.get_waiter("instance_running").wait(InstanceIds=pending, WaiterConfig=_WAIT)
        if warm := [name for name in names if states.get(name) in ("running", "pending")]:
            ec2.stop_instances(InstanceIds=warm)
        if there := [name for name in names if states.get(name) not in (None, *_GONE)]:
            ec2.get_waiter("instance_stopped").wait(InstanceIds=there, WaiterConfig=_WAIT)


_GONE = ("terminated", "shutting-down")


def may_stop(target: Target, instance_ids: Collection[str]) -> None:
    """Asks AWS whether the instances may be stopped. Stops none. Raises AwsError if not."""
    from botocore.exceptions import ClientError

    with asking(f"AWS does not let you stop {', '.join(sorted(instance_ids))}"):
        try:
            client(target, "ec2").stop_instances(InstanceIds=sorted(instance_ids), DryRun=True)
        except ClientError as error:
            if error.response["Error"]["Code"] != "DryRunOperation":
                raise


def endings(target: Target, cluster: str, owner: str | None) -> dict[str, Ending]:
    """How the cluster's instances are, by id, and how they came to it; those that ended within the
    last hour included, which is as long as AWS lists them. One paged call. Raises AwsError."""
    found: dict[str, Ending] = {}
    with asking(f"cannot list the instances of cluster {cluster!r}"):
        for each in described(client(target, "ec2"), by_tag(cluster)):
            if is_of(each, owner):
                found[each["InstanceId"]] = _ending(each)
    return found


def ended_at(instance: Mapping[str, Any]) -> str:
    """When an instance stopped or was terminated, ISO 8601 in UTC; empty if AWS does not tell."""
    when = _AT.search(instance.get("StateTransitionReason") or "")
    return f"{when[1]}T{when[2]}+00:00" if when else ""


def _ending(instance: Mapping[str, Any]) -> Ending:
    return Ending(
        instance["State"]["Name"],
        instance.get("StateReason", {}).get("Code") == _BY_ITSELF,
        ended_at(instance),
    )


def _states(ec2: Any, names: list[str]) -> dict[str, str]:
    found = ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": names}])
    return {
        each["InstanceId"]: each["State"]["Name"]
        for reservation in found["Reservations"]
        for each in reservation["Instances"]
    }
