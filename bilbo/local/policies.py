"""Has moto check who may do what: its own evaluation of IAM policies, for the stand-in's one user.

moto evaluates actions, and resources of S3 alone; a condition it cannot evaluate it takes for a
refusal (`moto/iam/access_control.py`). So it gets each policy without its conditions, and with
every resource where it is not S3's: `as_checked`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from moto.ec2.exceptions import EC2ClientError
from moto.iam.access_control import IAMPolicy, IAMRequest, PermissionResult, S3IAMRequest

from bilbo.local.replacements import replace

# The names in policies of what is asked for beside a bucket: list_amazons3.html in the Service
# Authorization Reference. moto checks some of them as ListBucket and CreateBucket.
_SETTINGS = {
    "accelerate": "AccelerateConfiguration",
    "acl": "BucketAcl",
    "cors": "BucketCORS",
    "encryption": "EncryptionConfiguration",
    "lifecycle": "LifecycleConfiguration",
    "location": "BucketLocation",
    "logging": "BucketLogging",
    "object-lock": "BucketObjectLockConfiguration",
    "policy": "BucketPolicy",
    "publicAccessBlock": "BucketPublicAccessBlock",
    "replication": "ReplicationConfiguration",
    "requestPayment": "BucketRequestPayment",
    "tagging": "BucketTagging",
    "versioning": "BucketVersioning",
    "website": "BucketWebsite",
}
# Requests that have no permission of their own.
_PERMITTED_BY = {"HeadBucket": "ListBucket", "HeadObject": "GetObject"}

USER = "local"
_NAME = "bilbo"


def install() -> None:
    """Mend moto's IAM, for the life of this process."""

    @replace(IAMRequest, "_raise_access_denied")
    def denied(original: Any, self: Any) -> None:
        if self._service == "ec2":
            raise EC2ClientError("UnauthorizedOperation", refusal_words(self._action))
        original(self)

    @replace(S3IAMRequest, "__init__")
    def init(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        path, _, query = self._path.partition("?")
        asked = s3_action(self._method, path, parse_qs(query, keep_blank_values=True))
        self._action = f"s3:{_PERMITTED_BY.get(asked, asked)}"


def s3_action(method: str, path: str, query: Mapping[str, Any]) -> str:
    """The name of an S3 request, which is that of its permission but for `Head…`."""
    method = method.title()
    bucket, _, key = path.strip("/").partition("/")
    if key:
        return f"{'Put' if method == 'Post' else method}Object"
    setting = next((_SETTINGS[name] for name in query if name in _SETTINGS), "")
    if setting:
        return f"{method}{setting}"
    if not bucket:
        return "ListAllMyBuckets"
    return {"Get": "ListBucket", "Put": "CreateBucket", "Post": "DeleteObject"}.get(
        method, f"{method}Bucket"
    )


def refusal_words(action: str) -> str:
    """What EC2 says to who may not do `action`."""
    return f"You are not authorized to perform this operation. {denial(action)}"


def denial(action: str) -> str:
    """What every service says to who may not do `action`."""
    return (
        f"User: arn:aws:iam::123456789012:user/{USER} is not authorized to perform: {action} on "
        f"resource: * because no identity-based policy allows the {action} action"
    )


def as_checked(policy: str) -> dict[str, Any]:
    """The part of a policy, a JSON text, that moto can evaluate."""
    found: dict[str, Any] = json.loads(policy)
    statements = found["Statement"]
    kept = []
    for each in [statements] if isinstance(statements, dict) else statements:
        statement = {key: value for key, value in each.items() if key not in ("Condition", "Sid")}
        resources = statement.get("Resource", "*")
        named = [resources] if isinstance(resources, str) else resources
        if not all(":s3:::" in resource for resource in named):
            statement["Resource"] = "*"
        kept.append(statement)
    return {**found, "Statement": kept}


def enforce(policy: str, access_key: str, secret_key: str) -> None:
    """From now on the stand-in's user may do what `policy` allows, all if it is empty.

    moto counts requests that it lets pass before it begins to check
    (`settings.INITIAL_NO_AUTH_ACTION_COUNT`).
    """
    from moto import settings
    from moto.core.authorization import ActionAuthenticatorMixin

    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0 if policy else float("inf")
    ActionAuthenticatorMixin.request_count = 0
    if not policy:
        return
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.iam.models import iam_backends

    backend = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
    if USER not in backend.users:
        backend.create_user("us-east-1", USER)
        key = backend.create_access_key(USER)
        key.access_key_id, key.secret_access_key = access_key, secret_key
    backend.put_user_policy(USER, _NAME, json.dumps(as_checked(policy)))


def allows(policy: str, action: str) -> bool:
    """Whether a policy allows an action that moto does not know to be one: everything if empty."""
    if not policy:
        return True
    checked = IAMPolicy(json.dumps(as_checked(policy)))
    found: bool = checked.is_action_permitted(action) == PermissionResult.PERMITTED
    return found
