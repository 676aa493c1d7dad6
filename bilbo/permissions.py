"""What a person needs to be allowed in AWS, as an IAM policy. Pure.

`ACTIONS` is the one table: what bilbo, Terraform's provider and Packer call in each step, and how
far AWS lets a policy narrow it. A test runs a cluster's life under these policies alone, on a
stand-in that enforces them. How an action can be narrowed is from AWS's Service Authorization
Reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bilbo.model import CLUSTER_TAG, IMAGE_TAG, OWNER_TAG, ClusterSpec

PLAN, APPLY, DESTROY, IMAGE, BUCKET = "plan", "apply", "destroy", "image", "state-bucket"
STEPS = (PLAN, APPLY, DESTROY, IMAGE, BUCKET)
_ALL = (PLAN, APPLY, DESTROY)
_CHANGE = (APPLY, DESTROY)

# How an action is narrowed, see `_statements`.
ANYWHERE = "anywhere"
IN_REGION = "in the region"
ON_CLUSTER = "to what has the cluster's tags"
MAKING = "to requests that give the cluster's tags"
LAUNCHING = "for instances, to requests that give the cluster's tags"
MODIFYING = "for instances, to what has the cluster's tags"
MAKING_GROUP = "for security groups, to requests that give the cluster's tags"
TAGGING = "to requests that give the cluster's tag, and to what has it"
ON_IMAGE = "to what has the image's tags"
PASSING = "to EC2"
PROFILES = "to instance profiles"
LINKED_ROLE = "to Auto Scaling's own role"
STATES, STATE, LOCK = "to the bucket", "to the states", "to the locks"
BUCKETS = "to a bucket"

# What of a profile makes an action necessary.
WORKERS, SINGLE, GROUP, SHARED, PROFILE = (
    "workers",
    "a notebook or head",
    "the generated security group",
    "a shared state",
    "an instance profile",
)


@dataclass(frozen=True)
class Action:
    """An action as a policy names it, the steps that call it, and how far it can be narrowed.

    `needs` is what of a profile makes it necessary; empty means every profile. Without an
    `optional` one, bilbo passes over a check.
    """

    name: str
    steps: tuple[str, ...]
    narrowed: str = IN_REGION
    needs: str = ""
    optional: bool = False


ACTIONS = (
    # Every step asks whose credentials it has; no policy can forbid it.
    Action("sts:GetCallerIdentity", (*_ALL, IMAGE, BUCKET), ANYWHERE),
    # Looking. AWS narrows most of it to the region alone.
    Action("autoscaling:DescribeAutoScalingGroups", _ALL, needs=WORKERS),
    Action("autoscaling:DescribeScalingActivities", (APPLY,), needs=WORKERS),
    Action("ec2:DescribeImages", (PLAN, APPLY)),
    Action("ec2:DescribeInstanceAttribute", _ALL, needs=SINGLE),
    Action("ec2:DescribeInstanceCreditSpecifications", _ALL, needs=SINGLE),
    Action("ec2:DescribeInstanceTypeOfferings", _ALL),
    Action("ec2:DescribeInstanceTypes", _ALL),
    Action("ec2:DescribeInstances", _ALL),
    Action("ec2:DescribeKeyPairs", (APPLY,)),
    Action("ec2:DescribeLaunchTemplateVersions", _ALL, needs=WORKERS),
    Action("ec2:DescribeLaunchTemplates", _ALL),
    Action("ec2:DescribeNetworkInterfaces", (DESTROY,), needs=GROUP),
    Action("ec2:DescribeSecurityGroups", _ALL),
    Action("ec2:DescribeSpotPriceHistory", (PLAN, APPLY), optional=True),
    Action("ec2:DescribeSubnets", _ALL),
    Action("ec2:DescribeTags", _ALL),
    Action("ec2:DescribeVolumes", _ALL),
    Action("ec2:DescribeVpcs", _ALL, needs=SINGLE),
    Action("ec2:GetEbsDefaultKmsKeyId", (APPLY,), needs=WORKERS, optional=True),
    Action("ec2:GetInstanceUefiData", _ALL),
    Action("iam:GetInstanceProfile", (APPLY,), PROFILES, PROFILE, optional=True),
    Action("pricing:GetProducts", (PLAN, APPLY), ANYWHERE, optional=True),
    Action("servicequotas:GetServiceQuota", (PLAN, APPLY), optional=True),
    # Making.
    Action("autoscaling:CreateAutoScalingGroup", (APPLY,), MAKING, WORKERS),
    Action("ec2:CreateLaunchTemplate", (APPLY,), MAKING, WORKERS),
    Action("ec2:CreateSecurityGroup", (APPLY,), MAKING_GROUP, GROUP),
    Action("ec2:CreateTags", (APPLY,), TAGGING),
    Action("ec2:RunInstances", (APPLY,), LAUNCHING),
    Action("iam:CreateServiceLinkedRole", (APPLY,), LINKED_ROLE, WORKERS),
    Action("iam:PassRole", (APPLY,), PASSING, PROFILE),
    # Changing.
    Action("autoscaling:ResumeProcesses", (APPLY,), ON_CLUSTER, WORKERS),
    Action("autoscaling:SetInstanceHealth", (APPLY,), ON_CLUSTER, WORKERS),
    Action("autoscaling:SetInstanceProtection", (APPLY,), ON_CLUSTER, WORKERS),
    Action("autoscaling:SuspendProcesses", (APPLY,), ON_CLUSTER, WORKERS),
    Action("autoscaling:TerminateInstanceInAutoScalingGroup", (APPLY,), ON_CLUSTER, WORKERS),
    Action("autoscaling:UpdateAutoScalingGroup", (APPLY,), ON_CLUSTER, WORKERS),
    Action("ec2:AuthorizeSecurityGroupEgress", (APPLY,), ON_CLUSTER, GROUP),
    Action("ec2:AuthorizeSecurityGroupIngress", (APPLY,), ON_CLUSTER, GROUP),
    Action("ec2:CreateLaunchTemplateVersion", (APPLY,), ON_CLUSTER, WORKERS),
    Action("ec2:DeleteTags", (APPLY,), ON_CLUSTER),
    Action("ec2:ModifyInstanceAttribute", _CHANGE, MODIFYING, SINGLE),
    Action("ec2:ModifyLaunchTemplate", (APPLY,), ON_CLUSTER, WORKERS),
    Action("ec2:RevokeSecurityGroupEgress", (APPLY,), ON_CLUSTER, GROUP),
    Action("ec2:RevokeSecurityGroupIngress", (APPLY,), ON_CLUSTER, GROUP),
    Action("ec2:StartInstances", (APPLY,), ON_CLUSTER, SINGLE),
    Action("ec2:StopInstances", (APPLY,), ON_CLUSTER, SINGLE),
    # Ending; a change may replace.
    Action("autoscaling:DeleteAutoScalingGroup", _CHANGE, ON_CLUSTER, WORKERS),
    Action("ec2:DeleteLaunchTemplate", _CHANGE, ON_CLUSTER, WORKERS),
    Action("ec2:DeleteSecurityGroup", _CHANGE, ON_CLUSTER, GROUP),
    Action("ec2:DeleteVolume", (DESTROY,), ON_CLUSTER),  # what a killed Terraform left behind
    Action("ec2:TerminateInstances", _CHANGE, ON_CLUSTER, SINGLE),
    # A shared state. A lock is an object too, and a plan writes one.
    Action("s3:ListBucket", _ALL, STATES, SHARED),
    Action("s3:GetObject", _ALL, STATE, SHARED),
    Action("s3:PutObject", _CHANGE, STATE, SHARED),
    Action("s3:GetObject", _ALL, LOCK, SHARED),
    Action("s3:PutObject", _ALL, LOCK, SHARED),
    Action("s3:DeleteObject", _ALL, LOCK, SHARED),
    # An image.
    Action("ec2:AuthorizeSecurityGroupIngress", (IMAGE,)),
    Action("ec2:CreateImage", (IMAGE,)),
    Action("ec2:CreateKeyPair", (IMAGE,)),
    Action("ec2:CreateSecurityGroup", (IMAGE,)),
    Action("ec2:CreateTags", (IMAGE,)),
    Action("ec2:DeleteKeyPair", (IMAGE,)),
    Action("ec2:DeleteSecurityGroup", (IMAGE,)),
    Action("ec2:DescribeImages", (IMAGE,)),
    Action("ec2:DescribeInstances", (IMAGE,)),
    Action("ec2:DescribeKeyPairs", (IMAGE,)),
    Action("ec2:DescribeRegions", (IMAGE,)),
    Action("ec2:DescribeSecurityGroups", (IMAGE,)),
    Action("ec2:DescribeVolumes", (IMAGE,)),
    Action("ec2:ModifyImageAttribute", (IMAGE,)),
    Action("ec2:RunInstances", (IMAGE,)),
    Action("ec2:StopInstances", (IMAGE,), ON_IMAGE),
    Action("ec2:TerminateInstances", (IMAGE,), ON_IMAGE),
    # The bucket for shared states.
    Action("s3:CreateBucket", (BUCKET,), BUCKETS),
    Action("s3:GetAccelerateConfiguration", (BUCKET,), BUCKETS),
    Action("s3:GetBucketAcl", (BUCKET,), BUCKETS),
    Action("s3:GetBucketCORS", (BUCKET,), BUCKETS),
    Action("s3:GetBucketLogging", (BUCKET,), BUCKETS),
    Action("s3:GetBucketObjectLockConfiguration", (BUCKET,), BUCKETS),
    Action("s3:GetBucketPolicy", (BUCKET,), BUCKETS),
    Action("s3:GetBucketPublicAccessBlock", (BUCKET,), BUCKETS),
    Action("s3:GetBucketRequestPayment", (BUCKET,), BUCKETS),
    Action("s3:GetBucketTagging", (BUCKET,), BUCKETS),
    Action("s3:GetBucketVersioning", (BUCKET,), BUCKETS),
    Action("s3:GetBucketWebsite", (BUCKET,), BUCKETS),
    Action("s3:GetEncryptionConfiguration", (BUCKET,), BUCKETS),
    Action("s3:GetLifecycleConfiguration", (BUCKET,), BUCKETS),
    Action("s3:GetReplicationConfiguration", (BUCKET,), BUCKETS),
    Action("s3:ListBucket", (BUCKET,), BUCKETS),
    Action("s3:PutBucketPolicy", (BUCKET,), BUCKETS),
    Action("s3:PutBucketPublicAccessBlock", (BUCKET,), BUCKETS),
    Action("s3:PutBucketTagging", (BUCKET,), BUCKETS),
    Action("s3:PutBucketVersioning", (BUCKET,), BUCKETS),
    Action("s3:PutEncryptionConfiguration", (BUCKET,), BUCKETS),
)  # fmt: skip


def needed(spec: ClusterSpec, step: str | None = None) -> list[Action]:
    """The rows that a profile's steps need; of all steps if `step` is None."""
    there = {
        "": True,
        WORKERS: bool(spec.workers),
        SINGLE: bool(spec.notebook or spec.head),
        GROUP: spec.needs_security_group,
        SHARED: spec.state is not None,
        PROFILE: any(group.machine.iam_instance_profile for group in spec.groups()),
    }
    return [
        each
        for each in ACTIONS
        if there[each.needs] and (step in each.steps if step else _of_profile(spec, each))
    ]


def _of_profile(spec: ClusterSpec, action: Action) -> bool:
    """Whether a step of the profile's own needs an action."""
    built = any(group.machine.image for group in spec.groups())
    own = {*_ALL, *([IMAGE] if built else []), *([BUCKET] if spec.state else [])}
    return bool(own & {*action.steps})


def policy(spec: ClusterSpec, step: str | None = None) -> dict[str, Any]:
    """The IAM policy for a step of a profile, or for all of them: `{"Version", "Statement"}`.

    Narrowed by region and tags where AWS allows it, by the owner if `spec` has one.
    """
    rows = needed(spec, step)
    statements = []
    for narrowed in dict.fromkeys(each.narrowed for each in rows):
        names = sorted({each.name for each in rows if each.narrowed == narrowed})
        for where in _statements(spec, narrowed):
            statements.append({"Effect": "Allow", "Action": names, **where})
    return {"Version": "2012-10-17", "Statement": statements}


def _statements(spec: ClusterSpec, narrowed: str) -> Iterator[dict[str, Any]]:
    """The resources and conditions of what is narrowed so."""
    where = _equals({"aws:RequestedRegion": spec.region})
    match narrowed:
        case "anywhere":
            yield {"Resource": "*"}
        case "in the region":
            yield {"Resource": "*", **where}
        case _ if narrowed in (STATES, STATE, LOCK, BUCKETS):
            yield {"Resource": _objects(spec, narrowed)}
        case _ if narrowed in (PASSING, LINKED_ROLE, PROFILES):
            yield _role(spec, narrowed)
        case _:
            yield from _tagged(spec, narrowed)


def _tagged(spec: ClusterSpec, narrowed: str) -> Iterator[dict[str, Any]]:
    tags = {CLUSTER_TAG: spec.name, **({OWNER_TAG: spec.owner} if spec.owner else {})}
    region = {"aws:RequestedRegion": spec.region}
    has = _equals({**region, **{f"aws:ResourceTag/{key}": tags[key] for key in tags}})
    gives = _equals({**region, **{f"aws:RequestTag/{key}": tags[key] for key in tags}})
    if narrowed == ON_CLUSTER:
        yield {"Resource": "*", **has}
    elif narrowed == MAKING:
        yield {"Resource": "*", **gives}
    elif narrowed == TAGGING:
        yield {"Resource": "*", **gives}
        yield {"Resource": "*", **has}
    elif narrowed == ON_IMAGE:
        yield {
            "Resource": "*",
            "Condition": {
                "StringEquals": region,
                "StringLike": {f"aws:ResourceTag/{IMAGE_TAG}": "*"},
            },
        }
    else:
        # What a request makes carries the tags that it gives; what it uses does not.
        kind, used = {
            LAUNCHING: ("instance", _USED_BY_LAUNCHES),
            MODIFYING: ("instance", ("security-group", "volume")),
            MAKING_GROUP: ("security-group", ("vpc",)),
        }[narrowed]
        yield {"Resource": _ec2(spec, kind), **(has if narrowed == MODIFYING else gives)}
        yield {"Resource": [_ec2(spec, each) for each in used], **_equals(region)}


_USED_BY_LAUNCHES = (
    "image", "key-pair", "launch-template", "network-interface", "security-group", "snapshot",
    "subnet", "volume",
)  # fmt: skip


def _equals(values: Mapping[str, str]) -> dict[str, Any]:
    return {"Condition": {"StringEquals": dict(values)}}


def _partition(region: str) -> str:
    """AWS's partition of a region: regions of China and of the US government have their own."""
    prefixes = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    return next((found for start, found in prefixes.items() if region.startswith(start)), "aws")


def _ec2(spec: ClusterSpec, kind: str) -> str:
    return f"arn:{_partition(spec.region)}:ec2:{spec.region}:*:{kind}/*"


def _role(spec: ClusterSpec, narrowed: str) -> dict[str, Any]:
    iam = f"arn:{_partition(spec.region)}:iam::*:role"
    if narrowed == PROFILES:
        return {"Resource": f"{iam.removesuffix('role')}instance-profile/*"}
    if narrowed == PASSING:
        # A profile names the instance profile, not the role in it. EC2 is ec2.amazonaws.com.cn in
        # China, hence the asterisk, as in AWS's own AutoScalingServiceRolePolicy.
        to_ec2 = {"iam:PassedToService": "ec2.amazonaws.com*"}
        return {"Resource": f"{iam}/*", "Condition": {"StringLike": to_ec2}}
    service = "autoscaling.amazonaws.com"
    return {
        "Resource": f"{iam}/aws-service-role/{service}/AWSServiceRoleForAutoScaling",
        **_equals({"iam:AWSServiceName": service}),
    }


def _objects(spec: ClusterSpec, narrowed: str) -> str:
    bucket = spec.state.bucket if spec.state else "*"
    whole = f"arn:{_partition(spec.region)}:s3:::{bucket}"
    if narrowed in (STATES, BUCKETS) or spec.state is None:
        return whole
    key = spec.state.key(spec.name)
    return f"{whole}/{ {STATE: key, LOCK: f'{key}.tflock'}[narrowed] }"
