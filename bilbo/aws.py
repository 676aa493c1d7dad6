"""Looks at AWS through boto3. Never creates anything: that is Terraform's."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bilbo.errors import AwsError
from bilbo.model import CLUSTER_TAG, ROLE_TAG, Target

CHECK_IP_URL = "https://checkip.amazonaws.com"
_CHECK_IP_SECONDS = 10

_GONE = ("terminated", "shutting-down")


@dataclass(frozen=True)
class Resource:
    """Something in AWS that carries a cluster's tag. `kind` is Terraform's resource type."""

    kind: str
    id: str
    name: str = ""
    state: str = ""
    role: str = ""


def caller_cidr(url: str = CHECK_IP_URL) -> str:
    """The caller's own public address as a /32 (or /128), asked of AWS's check-ip service.

    Raises AwsError when the service does not answer with an address.
    """
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=_CHECK_IP_SECONDS) as answer:
            address = ipaddress.ip_address(answer.read(100).decode().strip())
    except (URLError, OSError, ValueError) as error:
        raise AwsError(
            f"your public address cannot be found out: {getattr(error, 'reason', error)}",
            where=url,
            hint='Name it in the profile: "access": {"cidrs": ["YOUR.ADDRESS/32"]}',
        ) from error
    return str(ipaddress.ip_network(address))


def client(target: Target, service: str) -> Any:
    """A boto3 client for the target's region and endpoint."""
    import boto3
    from botocore.config import Config

    environment = target.environment
    session: Any = boto3.Session(
        aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
        region_name=target.region,
    )
    return session.client(
        service,
        endpoint_url=target.endpoint_url,
        config=Config(connect_timeout=10, read_timeout=30, retries={"max_attempts": 4}),
    )


def tagged(target: Target, cluster: str) -> list[Resource]:
    """All that carries the cluster's tag and still exists. Five calls, each paged.

    Raises AwsError when AWS refuses or does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return list(_tagged(target, cluster))
    except (BotoCoreError, ClientError) as error:
        raise refusal(error, f"AWS cannot be asked what cluster {cluster!r} holds") from error


def instance_types(target: Target, names: list[str]) -> dict[str, list[int]]:
    """`{name: [logical CPUs, threads per core, memory in bytes]}` of instance types.

    Raises AwsError when AWS refuses, does not answer, or knows one of them not.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = client(target, "ec2").describe_instance_types(InstanceTypes=names)
    except (BotoCoreError, ClientError) as error:
        raise refusal(error, "AWS cannot be asked about instance types") from error
    return {
        found["InstanceType"]: [
            found["VCpuInfo"]["DefaultVCpus"],
            found["VCpuInfo"].get("DefaultThreadsPerCore", 1),
            found["MemoryInfo"]["SizeInMiB"] * 2**20,
        ]
        for found in answer["InstanceTypes"]
    }


def _tagged(target: Target, cluster: str) -> Iterator[Resource]:
    ec2 = client(target, "ec2")
    by_tag = [{"Name": f"tag:{CLUSTER_TAG}", "Values": [cluster]}]
    for page in ec2.get_paginator("describe_instances").paginate(Filters=by_tag):
        for reservation in page["Reservations"]:
            for instance in reservation["Instances"]:
                if instance["State"]["Name"] not in _GONE:
                    yield _instance(instance)
    for page in ec2.get_paginator("describe_security_groups").paginate(Filters=by_tag):
        for group in page["SecurityGroups"]:
            yield Resource("aws_security_group", group["GroupId"], group["GroupName"])
    for page in ec2.get_paginator("describe_launch_templates").paginate(Filters=by_tag):
        for template in page["LaunchTemplates"]:
            yield Resource(
                "aws_launch_template", template["LaunchTemplateId"], template["LaunchTemplateName"]
            )
    for page in ec2.get_paginator("describe_volumes").paginate(Filters=by_tag):
        for volume in page["Volumes"]:
            # An attached volume goes with its instance, which is listed already.
            if volume["State"] == "available":
                yield Resource("aws_ebs_volume", volume["VolumeId"], state=volume["State"])
    autoscaling = client(target, "autoscaling")
    pages = autoscaling.get_paginator("describe_auto_scaling_groups").paginate(Filters=by_tag)
    for page in pages:
        for group in page["AutoScalingGroups"]:
            name = group["AutoScalingGroupName"]
            yield Resource("aws_autoscaling_group", name, name, group.get("Status", ""))


def _instance(instance: dict[str, Any]) -> Resource:
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    return Resource(
        "aws_instance",
        instance["InstanceId"],
        tags.get("Name", ""),
        instance["State"]["Name"],
        tags.get(ROLE_TAG, ""),
    )


def refusal(error: Exception, what: str) -> AwsError:
    """A botocore error in a person's words."""
    from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

    if isinstance(error, NoCredentialsError):
        hint = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
    elif isinstance(error, EndpointConnectionError):
        hint = "Check the network (for the stand-in: bilbo local start)."
    elif isinstance(error, ClientError) and "Expired" in error.response["Error"]["Code"]:
        hint = "The AWS credentials have expired: log in again (for SSO: aws sso login)."
    else:
        hint = "Check the credentials and their permissions."
    return AwsError(what, details=(str(error),), hint=hint)
