"""boto3's clients for a target, and its errors for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from bilbo.errors import AwsError
from bilbo.model import Target


@cache
def _session(access_key: str | None, secret_key: str | None) -> Any:
    """boto3's session; another one would load the service descriptions again."""
    import boto3

    return boto3.Session(aws_access_key_id=access_key, aws_secret_access_key=secret_key)


def client(
    target: Target, service: str, region: str | None = None, *, optional: bool = False
) -> Any:
    """A boto3 client for the target's region (or another) and endpoint. One for what is `optional`
    asks once and waits for seconds only: the service may be out of reach.

    Raises AwsError if the caller's AWS settings name a profile that does not exist.
    """
    from botocore.config import Config

    environment = target.environment
    with asking("cannot use the AWS settings of this machine"):
        session = _session(
            environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
        )
        return session.client(
            service,
            region_name=region or target.region,
            endpoint_url=target.endpoint_url,
            config=Config(
                connect_timeout=3 if optional else 10,
                read_timeout=5 if optional else 30,
                # After a first refusal an adaptive client asks no faster than AWS lets it.
                retries={"mode": "adaptive", "max_attempts": 1 if optional else 4},
            ),
        )


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Within it, botocore's errors become an AwsError with the message `what`."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise AwsError(what, details=(str(error),), hint=_hint(error)) from error


def refusal(target: Target) -> str:
    """Why AWS does not accept the credentials any more, and what to do; empty if it does, or cannot
    be asked. STS answers this without any permission (API_GetCallerIdentity)."""
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

    try:
        client(target, "sts").get_caller_identity()
    except (ConnectionError, HTTPClientError):
        return ""
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
            return ""
        return f"{error.response['Error'].get('Message', error)}. {_hint(error)}"
    except BotoCoreError as error:
        return f"{error}. {_hint(error)}"
    except AwsError as error:
        return str(error)
    return ""


def _hint(error: Exception) -> str:
    from botocore.exceptions import (
        ClientError,
        EndpointConnectionError,
        NoCredentialsError,
        ProfileNotFound,
        SSOError,
    )

    if isinstance(error, ProfileNotFound):
        return "AWS_PROFILE names it: list the profiles with aws configure list-profiles."
    if isinstance(error, SSOError):
        return "The AWS credentials have expired: log in again with aws sso login."
    if isinstance(error, NoCredentialsError):
        return "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
    if isinstance(error, EndpointConnectionError):
        return "Check the network (for the stand-in: bilbo local start)."
    if isinstance(error, ClientError) and "Expired" in error.response["Error"]["Code"]:
        return "The AWS credentials have expired: log in again (for SSO: aws sso login)."
    return "Check the credentials and their permissions."
