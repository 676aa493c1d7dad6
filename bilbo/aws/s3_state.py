"""Reads Terraform's shared state and its lock from S3."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bilbo.aws.session import asking, client
from bilbo.errors import AwsError
from bilbo.model import SharedState, Target
from bilbo.tfstate import misfit

_LONGEST = 200  # characters per field of a lock
_NOT_THERE = ("NoSuchKey", "404", "NotFound")


@dataclass(frozen=True)
class Lock:
    """Terraform's lock on a state. `created` is a time as Terraform writes it."""

    id: str
    who: str
    operation: str
    created: str


def shared_state(target: Target, state: SharedState, cluster: str) -> dict[str, Any]:
    """The state of a cluster as Terraform stores it; `{}` if there is none.

    Raises AwsError if the bucket does not exist or cannot be read.
    """
    where = f"{state.address()}/{cluster}.tfstate"
    return parsed_state(_object(target, state, state.key(cluster)), where)


def parsed_state(text: str, where: str) -> dict[str, Any]:
    """The state in a text, with its structure checked. Raises AwsError for any other text."""
    try:
        found: dict[str, Any] = json.loads(text) if text else {}
        why = misfit(found)
    except (ValueError, RecursionError):
        why = "it is not JSON"
    if why:
        raise AwsError(
            f"this is not a Terraform state: {why}",
            where=where,
            hint="The bucket keeps every version: restore the last good one.",
        )
    return found


def state_lock(target: Target, state: SharedState, cluster: str) -> Lock | None:
    """The lock on a cluster's state; None if it is not locked. Raises AwsError."""
    return parsed_lock(_object(target, state, f"{state.key(cluster)}.tflock"))


def parsed_lock(text: str) -> Lock | None:
    """The lock in a text; None for an empty text. Foreign text gives empty fields; each field is at
    most one printable line."""
    if not text:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    said = found if isinstance(found, dict) else {}

    def text_of(key: str, otherwise: str = "") -> str:
        value = said.get(key)
        return value[:_LONGEST] if isinstance(value, str) and value.isprintable() else otherwise

    return Lock(
        id=text_of("ID"),
        who=text_of("Who", "somebody"),
        operation=text_of("Operation").removeprefix("OperationType").lower(),
        created=text_of("Created")[:19].replace("T", " "),
    )


def account(target: Target) -> str | None:
    """The number of the credentials' AWS account; None if AWS does not say."""
    try:
        with asking("cannot find the account of these credentials"):
            number: str = client(target, "sts").get_caller_identity()["Account"]
    except AwsError:
        return None
    return number


def _object(target: Target, state: SharedState, key: str) -> str:
    from botocore.exceptions import ClientError

    with asking(f"cannot read the shared state s3://{state.bucket}/{key}"):
        s3 = client(target, "s3", region=state.region)
        try:
            data: bytes = s3.get_object(Bucket=state.bucket, Key=key)["Body"].read()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _NOT_THERE:
                return ""
            if code == "NoSuchBucket":
                raise AwsError(
                    f"there is no bucket {state.bucket!r} in {state.region}",
                    hint=f"Create it: bilbo state-bucket create {state.bucket} "
                    f"--region {state.region}",
                ) from error
            raise
    return data.decode(errors="replace")
