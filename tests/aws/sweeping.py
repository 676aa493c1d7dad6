"""Removes what `make aws` has made in an account: what carries its tag, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

TAG = "bilbo-aws-tests"
# A machine ends within minutes, and its security group can go a moment after it.
WITHIN = 900.0
PAUSE = 3.0


@dataclass(frozen=True)
class Swept:
    """A region of an account, and whose tests are meant: the value of `TAG`.

    `client` makes boto3's client of a service.
    """

    client: Callable[[str], Any]
    whose: str

    def left(self) -> list[str]:
        """What is there and carries the tag, such as `instance i-…`; each can cost money or keep
        something else from being deleted."""
        return [
            *(f"group {name}" for name in self._groups()),
            *(f"instance {each}" for each in self._instances()),
            *(f"{kind} {each}" for kind, each in self._others()),
        ]

    def sweep(self, within: float = WITHIN) -> list[str]:
        """Deletes what is `left` and waits until it is gone; what is still there in the end."""
        deadline = time.monotonic() + within
        while left := self.left():
            self._delete()
            if time.monotonic() > deadline:
                return left
            time.sleep(min(PAUSE, within / 10))
        return []

    def _delete(self) -> None:
        ec2, scaling = self.client("ec2"), self.client("autoscaling")
        for name in self._groups():
            _try(scaling.delete_auto_scaling_group, AutoScalingGroupName=name, ForceDelete=True)
        for each in self._instances():
            _try(ec2.terminate_instances, InstanceIds=[each])
        deletions = {
            "launch-template": lambda each: _try(ec2.delete_launch_template, LaunchTemplateId=each),
            "volume": lambda each: _try(ec2.delete_volume, VolumeId=each),
            "security-group": lambda each: _try(ec2.delete_security_group, GroupId=each),
            "key-pair": lambda each: _try(ec2.delete_key_pair, KeyName=each),
        }
        for kind, each in self._others():
            deletions[kind](each)

    @property
    def _filters(self) -> list[dict[str, Any]]:
        return [{"Name": f"tag:{TAG}", "Values": [self.whose]}]

    def _groups(self) -> list[str]:
        pages = self.client("autoscaling").get_paginator("describe_auto_scaling_groups")
        return [
            str(group["AutoScalingGroupName"])
            for page in pages.paginate()
            for group in page["AutoScalingGroups"]
            if (TAG, self.whose) in {(tag["Key"], tag["Value"]) for tag in group["Tags"]}
        ]

    def _instances(self) -> list[str]:
        pages = self.client("ec2").get_paginator("describe_instances")
        return [
            str(each["InstanceId"])
            for page in pages.paginate(Filters=self._filters)
            for reservation in page["Reservations"]
            for each in reservation["Instances"]
            if each["State"]["Name"] != "terminated"
        ]

    def _others(self) -> Iterator[tuple[str, str]]:
        """Kinds and ids (of key pairs, names), those that others hang on last."""
        ec2 = self.client("ec2")
        asked = {"Filters": self._filters}
        for each in ec2.describe_launch_templates(**asked)["LaunchTemplates"]:
            yield "launch-template", each["LaunchTemplateId"]
        for each in ec2.describe_volumes(**asked)["Volumes"]:
            yield "volume", each["VolumeId"]
        for each in ec2.describe_security_groups(**asked)["SecurityGroups"]:
            yield "security-group", each["GroupId"]
        for each in ec2.describe_key_pairs(**asked)["KeyPairs"]:
            yield "key-pair", each["KeyName"]


def _try(delete: Callable[..., Any], **arguments: Any) -> None:
    """Deletes what may be in use still, or gone already: the next look tells."""
    try:
        delete(**arguments)
    except ClientError as error:
        print(f"{delete.__name__} {arguments}: {error}")
