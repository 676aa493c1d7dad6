"""Looks at Terraform's state where a team shares it: what it holds, and who holds it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bilbo.aws.session import client, refusal
from bilbo.errors import AwsError
from bilbo.model import SharedState, Target

_NOT_THERE = ("NoSuchKey", "404", "NotFound")


@dataclass(frozen=True)
class Lock:
    """Terraform's lock of a state: `created` is a time as Terraform writes it."""

    id: str
    who: str
    operation: str
    created: str


def shared_state(target: Target, state: SharedState, cluster: str) -> dict[str, Any]:
    """The state of a cluster as Terraform stores it; `{}` where there is none.

    Raises AwsError when the bucket is not there, or may not be read.
    """
    text = _object(target, state, state.key(cluster))
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise AwsError(
            "this is not a state of Terraform's",
            where=f"{state.address()}/{cluster}.tfstate",
            hint="The bucket keeps every version: take back the last good one.",
        )
    return found


def state_lock(target: Target, state: SharedState, cluster: str) -> Lock | None:
    """Who holds the state of a cluster; None where nobody does. Raises AwsError."""
    text = _object(target, state, f"{state.key(cluster)}.tflock")
    if not text:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    said = found if isinstance(found, dict) else {}

    def text_of(key: str, otherwise: str = "") -> str:
        return value if isinstance(value := said.get(key), str) else otherwise

    return Lock(
        id=text_of("ID"),
        who=text_of("Who", "somebody"),
        operation=text_of("Operation").removeprefix("OperationType").lower(),
        created=text_of("Created")[:19].replace("T", " "),
    )


def account(target: Target) -> str | None:
    """The number of the AWS account that the credentials are of; None where it is not told."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        number: str = client(target, "sts").get_caller_identity()["Account"]
    except (BotoCoreError, ClientError):
        return None
    return number


def _object(target: Target, state: SharedState, key: str) -> str:
    from botocore.exceptions import BotoCoreError, ClientError

    what = f"the shared state s3://{state.bucket}/{key} cannot be read"
    try:
        s3 = client(target, "s3", region=state.region)
        text: str = s3.get_object(Bucket=state.bucket, Key=key)["Body"].read().decode()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _NOT_THERE:
            return ""
        if code == "NoSuchBucket":
            raise AwsError(
                f"there is no bucket {state.bucket!r} in {state.region}",
                hint=f"Make it: bilbo state-bucket create {state.bucket} --region {state.region}",
            ) from error
        raise refusal(error, what) from error
    except BotoCoreError as error:
        raise refusal(error, what) from error
    return text
