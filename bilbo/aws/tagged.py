"""A cluster's resources in AWS, and AWS's data on instance types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from bilbo.aws.session import asking, client
from bilbo.held import Resource
from bilbo.model import CLUSTER_TAG, GROUP_TAG, OWNER_TAG, ROLE_TAG, Target

_GONE = ("terminated", "shutting-down")
# Source: EC2's API reference, StateReason.
_TAKEN_BACK = "Server.SpotInstanceTermination"
# Only AWS can set this tag: the Auto Scaling group that launched an instance.
_LAUNCHED_BY = "aws:autoscaling:groupName"
# When an instance started, and a volume or template, and a group of workers was made.
_SINCE = ("LaunchTime", "CreateTime", "CreatedTime")


def tagged(target: Target, cluster: str) -> list[Resource]:
    """Every existing resource with the cluster's tag. Five paged calls.

    Raises AwsError if AWS refuses or does not answer.
    """
    with asking(f"cannot list the AWS resources of cluster {cluster!r}"):
        return list(everything_tagged(target, cluster))


def tagged_by_any(target: Target) -> list[Resource]:
    """Every existing resource in the target's region with any cluster's tag. Five paged calls.

    Raises AwsError if AWS refuses or does not answer.
    """
    with asking(f"cannot list the resources in {target.region}"):
        return list(_everything(target, [{"Name": "tag-key", "Values": [CLUSTER_TAG]}]))


def regions(target: Target) -> list[str]:
    """The regions that the account may use, sorted. One call. Raises AwsError."""
    with asking("cannot list the regions"):
        found = client(target, "ec2").describe_regions()["Regions"]
    return sorted(each["RegionName"] for each in found)


def machines(target: Target, cluster: str) -> list[Resource]:
    """The existing instances with the cluster's tag. One paged call.

    Raises AwsError if AWS refuses or does not answer.
    """
    with asking(f"cannot list the instances of cluster {cluster!r}"):
        return list(_instances(client(target, "ec2"), by_tag(cluster)))


def reclaimed(target: Target, cluster: str) -> set[str]:
    """The cluster's spot instances that AWS has taken back, as long as it lists them: an hour. One
    paged call. Raises AwsError."""
    why = {"Name": "state-reason-code", "Values": [_TAKEN_BACK]}
    with asking(f"cannot list the spot instances of cluster {cluster!r}"):
        pages = client(target, "ec2").get_paginator("describe_instances")
        return {
            instance["InstanceId"]
            for page in pages.paginate(Filters=[*by_tag(cluster), why])
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        }


def instance_types(target: Target, names: list[str]) -> dict[str, list[int]]:
    """`{name: [logical CPUs, threads per core, memory in bytes, NVIDIA's GPUs]}` of instance types.

    Raises AwsError if AWS refuses, does not answer, or does not know one of them.
    """
    with asking("cannot describe the instance types"):
        answer = client(target, "ec2").describe_instance_types(InstanceTypes=names)
    return {
        found["InstanceType"]: [
            found["VCpuInfo"]["DefaultVCpus"],
            found["VCpuInfo"].get("DefaultThreadsPerCore", 1),
            found["MemoryInfo"]["SizeInMiB"] * 2**20,
            sum(
                gpu.get("Count", 0)
                for gpu in found.get("GpuInfo", {}).get("Gpus", [])
                if gpu.get("Manufacturer", "").upper() == "NVIDIA"
            ),
        ]
        for found in answer["InstanceTypes"]
    }


def holders(target: Target, security_group: str) -> list[str]:
    """What prevents a security group's deletion: network interfaces in it, each with its owner, and
    groups with a rule that names it.

    Raises AwsError.
    """

    def by(name: str) -> list[dict[str, Any]]:
        return [{"Name": name, "Values": [security_group]}]

    with asking(f"cannot list what uses {security_group}"):
        ec2 = client(target, "ec2")
        interfaces = ec2.describe_network_interfaces(Filters=by("group-id"))["NetworkInterfaces"]
        named = ec2.describe_security_groups(Filters=by("ip-permission.group-id"))
    return [
        *(_interface(found) for found in interfaces),
        *(
            f"a rule of security group {group['GroupId']}"
            for group in named["SecurityGroups"]
            if group["GroupId"] != security_group
        ),
    ]


def _interface(found: dict[str, Any]) -> str:
    owner = found.get("Attachment", {}).get("InstanceId") or found.get("Description")
    return f"network interface {found['NetworkInterfaceId']}" + (f" of {owner}" if owner else "")


def everything_tagged(target: Target, cluster: str) -> Iterator[Resource]:
    """As `tagged`, but raises boto3's own errors."""
    return _everything(target, by_tag(cluster))


def _everything(target: Target, having: list[dict[str, Any]]) -> Iterator[Resource]:
    ec2 = client(target, "ec2")
    yield from _instances(ec2, having)
    for page in ec2.get_paginator("describe_security_groups").paginate(Filters=having):
        for group in page["SecurityGroups"]:
            yield _of("aws_security_group", group["GroupId"], "", group)
    for page in ec2.get_paginator("describe_launch_templates").paginate(Filters=having):
        for template in page["LaunchTemplates"]:
            yield _of("aws_launch_template", template["LaunchTemplateId"], "", template)
    for page in ec2.get_paginator("describe_volumes").paginate(Filters=having):
        for volume in page["Volumes"]:
            # An attached volume goes with its instance, which is already listed.
            if volume["State"] == "available":
                yield _of("aws_ebs_volume", volume["VolumeId"], volume["State"], volume)
    autoscaling = client(target, "autoscaling")
    pages = autoscaling.get_paginator("describe_auto_scaling_groups").paginate(Filters=having)
    for page in pages:
        for group in page["AutoScalingGroups"]:
            name = group["AutoScalingGroupName"]
            yield _of("aws_autoscaling_group", name, group.get("Status", ""), group)


def _instances(ec2: Any, having: list[dict[str, Any]]) -> Iterator[Resource]:
    for instance in described(ec2, having):
        if instance["State"]["Name"] not in _GONE:
            yield _instance(instance)


def described(ec2: Any, filters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What EC2 tells of its instances, those that have ended included. Raises boto3's errors."""
    for page in ec2.get_paginator("describe_instances").paginate(Filters=filters):
        for reservation in page["Reservations"]:
            yield from reservation["Instances"]


def is_of(instance: Mapping[str, Any], owner: str | None) -> bool:
    """Whether an instance carries the owner; None is a cluster from before owners."""
    tags: dict[str, str] = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    return tags.get(OWNER_TAG, "") == (owner or "")


def by_tag(cluster: str) -> list[dict[str, Any]]:
    """The filter for a cluster's resources."""
    return [{"Name": f"tag:{CLUSTER_TAG}", "Values": [cluster]}]


def _of(kind: str, identifier: str, state: str, found: dict[str, Any]) -> Resource:
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}
    return Resource(
        kind,
        identifier,
        state,
        role=tags.get(ROLE_TAG, ""),
        group=tags.get(GROUP_TAG, ""),
        owner=tags.get(OWNER_TAG, ""),
        launched_by=tags.get(_LAUNCHED_BY, ""),
        cluster=tags.get(CLUSTER_TAG, ""),
        since=next((found[key].isoformat() for key in _SINCE if key in found), ""),
    )


def _instance(instance: dict[str, Any]) -> Resource:
    resource = _of("aws_instance", instance["InstanceId"], instance["State"]["Name"], instance)
    return replace(
        resource,
        public_ip=instance.get("PublicIpAddress", ""),
        ec2type=instance.get("InstanceType", ""),
    )
