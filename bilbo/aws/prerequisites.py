"""What the account must have beside the cluster: instance profiles, a key that Auto Scaling may
use, and room in its quotas. What the AWS user may not ask is passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from bilbo.aws import quotas
from bilbo.aws.quotas import Asked
from bilbo.aws.session import client
from bilbo.errors import AwsError
from bilbo.model import ClusterSpec, NodeGroup, Target

T = TypeVar("T")

# What EC2 answers where nobody has chosen a key (GetEbsDefaultKmsKeyId).
_AWSS_OWN_KEY = "alias/aws/ebs"
# What Auto Scaling's role must be allowed with a customer-managed key. Source: the Auto Scaling
# user guide, "Required AWS KMS key policy for use with encrypted volumes".
_GRANT = (
    "Encrypt Decrypt ReEncryptFrom ReEncryptTo GenerateDataKey GenerateDataKeyWithoutPlaintext "
    "DescribeKey CreateGrant"
)


@dataclass(frozen=True)
class Answers:
    """What was asked of the account; empty where nothing was, or where nobody may ask."""

    profiles: Mapping[str, Future[bool | None]]
    key: Future[str | None] | None
    quotas: Mapping[str, Future[float | None]]
    running: Future[Mapping[str, int] | None] | None


@contextmanager
def asked(target: Target, more: Asked, made: Sequence[NodeGroup]) -> Iterator[Answers]:
    """Asks for what is needed for so many `more` machines of each group, and to make the groups
    `made`, side by side with what is done meanwhile. At most a call for each instance profile and
    each quota, one for what runs and one for the key."""
    names = sorted({p for group, _ in more if (p := group.machine.iam_instance_profile)})
    codes = quotas.codes(more)
    iam = client(target, "iam", optional=True) if names else None
    ec2 = client(target, "ec2") if codes or made else None
    room = client(target, "service-quotas", optional=True) if codes else None
    with ThreadPoolExecutor(8) as pool:
        yield Answers(
            {name: pool.submit(_passed_over, lambda n=name: _exists(iam, n)) for name in names},
            pool.submit(_passed_over, lambda: _default_key(ec2)) if made else None,
            {code: pool.submit(quotas.quota, room, "ec2", code) for code in codes},
            pool.submit(_passed_over, lambda: quotas.running(ec2)) if codes else None,
        )


def problems(answers: Answers, more: Asked, sizes: Mapping[str, int]) -> list[str]:
    """What is missing in the account; `sizes` are the vCPUs of instance types."""
    missing = [
        f"the instance profile {name!r} (iam_instance_profile) does not exist"
        for name, exists in answers.profiles.items()
        if exists.result() is False
    ]
    run = answers.running.result() if answers.running else None
    if run is None:
        return missing
    allowed = {code: each.result() for code, each in answers.quotas.items()}
    return [*missing, *quotas.vcpus(more, sizes, run, allowed)]


def notes(spec: ClusterSpec, answers: Answers) -> list[str]:
    """What a person should know of the account's settings before workers are launched."""
    key = answers.key.result() if answers.key else None
    if not key or key == _AWSS_OWN_KEY:
        return []
    partition = key.split(":")[1] if key.startswith("arn:") else "aws"
    role = (
        f"arn:{partition}:iam::{spec.account or 'ACCOUNT'}:role/aws-service-role/"
        "autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
    )
    return [
        f"The account encrypts volumes with a key of its own, {key}. Unless the key's policy lets "
        "Auto Scaling's role use it, AWS ends each worker as it starts. A grant does:\n"
        f"  aws kms create-grant --region {spec.region} --key-id {key} "
        f"--grantee-principal {role} --operations {_GRANT}"
    ]


def _passed_over(ask: Callable[[], T]) -> T | None:
    """What AWS answers; None if it does not, or not to this user."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask()
    except (BotoCoreError, ClientError, AwsError):
        return None


def _exists(iam: Any, name: str) -> bool:
    try:
        iam.get_instance_profile(InstanceProfileName=name)
    except iam.exceptions.NoSuchEntityException:
        return False
    return True


def _default_key(ec2: Any) -> str:
    return str(ec2.get_ebs_default_kms_key_id()["KmsKeyId"])
