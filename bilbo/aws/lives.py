"""When a cluster's instances started and ended, as far as AWS still tells.

AWS shows a terminated instance for about an hour. Its `LaunchTime` is that of the last start, and
`StateTransitionReason` has the time of an end that somebody asked for, but not of one that began
inside the machine (EC2's API reference, Instance).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from bilbo.aws.session import asking, client
from bilbo.aws.stopping import ended_at
from bilbo.aws.tagged import by_tag, described, is_of
from bilbo.held import Sighting
from bilbo.model import GROUP_TAG, ROLE_TAG, Target

# How many values a filter takes (EC2's API reference, DescribeInstances).
_AT_ONCE = 200


def sightings(
    target: Target, cluster: str, owner: str | None, known: Collection[str] = ()
) -> list[Sighting]:
    """The instances of a cluster, those that have ended included. Two paged calls, or three if AWS
    shows one of the `known` ids no more by its tag; one more for each 200 machines.

    Those of another owner are left out, unless they are `known`. Raises AwsError.
    """
    with asking(f"cannot list the instances of cluster {cluster!r}"):
        ec2 = client(target, "ec2", optional=True)
        found = {each["InstanceId"]: each for each in described(ec2, by_tag(cluster))}
        if lost := sorted({*known} - found.keys()):
            by_id = [{"Name": "instance-id", "Values": lost[:_AT_ONCE]}]
            found |= {each["InstanceId"]: each for each in described(ec2, by_id)}
        own = [each for name, each in found.items() if name in known or is_of(each, owner)]
        volumes = list(_volumes(ec2, [each["InstanceId"] for each in own if _has_disks(each)]))
    return [sighting(each, volumes) for each in own]


def _has_disks(instance: Mapping[str, Any]) -> bool:
    return instance["State"]["Name"] not in ("shutting-down", "terminated")


def _volumes(ec2: Any, ids: list[str]) -> Iterator[dict[str, Any]]:
    for first in range(0, len(ids), _AT_ONCE):
        attached = {"Name": "attachment.instance-id", "Values": ids[first : first + _AT_ONCE]}
        for page in ec2.get_paginator("describe_volumes").paginate(Filters=[attached]):
            yield from page["Volumes"]


def sighting(instance: Mapping[str, Any], volumes: Collection[Mapping[str, Any]]) -> Sighting:
    """What DescribeInstances and DescribeVolumes tell of an instance. Pure."""
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    disks = [
        (each.get("VolumeType"), int(each.get("Size", 0)))
        for each in volumes
        for attached in each.get("Attachments", [])
        if attached.get("InstanceId") == instance["InstanceId"]
    ]
    launched: datetime = instance["LaunchTime"]
    runs = instance["State"]["Name"] in ("pending", "running")
    return Sighting(
        instance["InstanceId"],
        instance["State"]["Name"],
        launched.astimezone(timezone.utc).isoformat(timespec="seconds"),
        tags.get(ROLE_TAG, ""),
        tags.get(GROUP_TAG, "") or tags.get(ROLE_TAG, ""),
        instance.get("InstanceType", ""),
        "" if runs else ended_at(instance),
        (instance.get("StateReason") or {}).get("Code", "") if not runs else "",
        instance.get("InstanceLifecycle") == "spot",
        sum(size for kind, size in disks if kind == "gp3"),
        any(kind != "gp3" for kind, _ in disks),
        bool(instance.get("PublicIpAddress")) or instance["State"]["Name"] != "running",
    )
