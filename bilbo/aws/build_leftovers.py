"""What builds have made, and what a Packer that was killed has left behind. Reads only."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from typing import Any

from bilbo.aws.session import asking, client
from bilbo.held import Built, Resource
from bilbo.model import IMAGE_TAG, Target

_ALIVE = ["pending", "running", "stopping", "stopped"]


def built(target: Target) -> list[Built]:
    """Everything in the target's region with an image's tag: machines of builds, their key pairs
    and security groups, and images. Four calls. Raises AwsError.

    Packer tags them with its `run_tags`; older ones tag the machine alone.
    """
    with asking(f"cannot list what builds have made in {target.region}"):
        ec2 = client(target, "ec2")
        by_tag = {"Name": "tag-key", "Values": [IMAGE_TAG]}
        alive = {"Name": "instance-state-name", "Values": _ALIVE}
        machines = ec2.describe_instances(Filters=[by_tag, alive])["Reservations"]
        pairs = ec2.describe_key_pairs(Filters=[by_tag])["KeyPairs"]
        groups = ec2.describe_security_groups(Filters=[by_tag])["SecurityGroups"]
        amis = ec2.describe_images(Owners=["self"], Filters=[by_tag])["Images"]
    return [
        *(_built(target, "aws_instance", each) for one in machines for each in one["Instances"]),
        *(_built(target, "aws_key_pair", each) for each in pairs),
        *(_built(target, "aws_security_group", each) for each in groups),
        *(_built(target, "aws_ami", each) for each in amis),
    ]


# By kind: what it is called by, and the commands that remove it, in order.
_REMOVAL = {
    "aws_instance": (
        "InstanceId",
        ("terminate-instances --instance-ids {}", "wait instance-terminated --instance-ids {}"),
    ),
    "aws_key_pair": ("KeyName", ("delete-key-pair --key-name {}",)),
    "aws_security_group": ("GroupId", ("delete-security-group --group-id {}",)),
    "aws_ami": ("ImageId", ("deregister-image --image-id {}",)),
}


def _built(target: Target, kind: str, found: Any) -> Built:
    tags = {each["Key"]: each["Value"] for each in found.get("Tags", [])}
    key, removal = _REMOVAL[kind]
    state = found.get("State", "")
    since = found.get("LaunchTime") or found.get("CreateTime") or found.get("CreationDate") or ""
    # An image's snapshots stay, and are billed, until they are deleted.
    disks = [each.get("Ebs", {}) for each in found.get("BlockDeviceMappings", ())]
    snapshots = [each["SnapshotId"] for each in disks if "SnapshotId" in each]
    commands = [
        *(each.format(shlex.quote(found[key])) for each in removal),
        *(f"delete-snapshot --snapshot-id {each}" for each in snapshots),
    ]
    return Built(
        target.region,
        tags.get(IMAGE_TAG, ""),
        Resource(
            kind,
            found[key],
            state if isinstance(state, str) else state["Name"],
            since=since if isinstance(since, str) else since.isoformat(),
            ec2type=found.get("InstanceType", ""),
        ),
        tuple(_command(target, each) for each in commands),
    )


def _command(target: Target, words: str) -> str:
    place = f" --endpoint-url {target.endpoint_url}" if target.endpoint_url else ""
    return f"aws ec2 {words} --region {target.region}{place}"


def left_of_build(target: Target, own: Collection[str], amis: Collection[str]) -> list[str]:
    """The commands of AWS's CLI that remove what there is, in the order in which they succeed.

    `own` are names of key pairs and security groups, `amis` those of AMIs. Four calls at most.
    Raises AwsError.
    """
    with asking("cannot look for what a build has left"):
        ec2 = client(target, "ec2")
        found = []
        if own:
            by_key = [{"Name": "key-name", "Values": sorted(own)}]
            alive = {"Name": "instance-state-name",
                     "Values": _ALIVE}  # fmt: skip
            ids = [
                instance["InstanceId"]
                for one in ec2.describe_instances(Filters=[*by_key, alive])["Reservations"]
                for instance in one["Instances"]
            ]
            groups = ec2.describe_security_groups(
                Filters=[{"Name": "group-name", "Values": sorted(own)}]
            )["SecurityGroups"]
            keys = ec2.describe_key_pairs(Filters=by_key)["KeyPairs"]
            found += [f"terminate-instances --instance-ids {each}" for each in ids]
            found += [f"wait instance-terminated --instance-ids {each}" for each in ids]
            found += [f"delete-key-pair --key-name {each['KeyName']}" for each in keys]
            found += [f"delete-security-group --group-id {each['GroupId']}" for each in groups]
        if amis:
            by_name = [{"Name": "name", "Values": sorted(amis)}]
            images = ec2.describe_images(Owners=["self"], Filters=by_name)["Images"]
            found += [f"deregister-image --image-id {each['ImageId']}" for each in images]
    return [_command(target, each) for each in found]
