"""What AWS and Terraform say when they refuse, and what a person can do about it."""

from __future__ import annotations

import re

_NO_CAPACITY = (
    "AWS has no machine of that type free there now: try later, another ec2type, "
    "or a subnet in another zone."
)
_QUOTA = "The account's quota is used up: ask for more in Service Quotas, or use fewer machines."

# How Terraform begins what it says when another process holds the state.
LOCKED = "Error acquiring the state lock"
# And when the state has moved since it planned.
STALE = "Saved plan is stale"

# The first sign that stands in the message gives the hint.
_HINTS = (
    ("InsufficientInstanceCapacity", _NO_CAPACITY),
    ("do not have sufficient", _NO_CAPACITY),
    ("VcpuLimitExceeded", _QUOTA),
    ("InstanceLimitExceeded", _QUOTA),
    (
        "InvalidAMI",
        "Check the profile's ami: it must exist in this region and be shared with this account.",
    ),
    ("InvalidKeyPair", "Check the profile's keyname: the key pair must exist in this region."),
    (
        "InvalidGroup",
        "Check the profile's security_group: it must exist in this region, in the subnet's VPC.",
    ),
    ("InvalidSubnet", "Check the profile's subnet: it must exist in this region."),
    ("no matching EC2 Subnet", "The region has no default VPC: name a subnet in the profile."),
    ("ExpiredToken", "The AWS credentials have expired: log in again (for SSO: aws sso login)."),
    ("RequestExpired", "The AWS credentials have expired, or this machine's clock is wrong."),
    (
        "No valid credential sources",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
    ),
    ("AuthFailure", "AWS does not accept these credentials: check them, and the region."),
    (STALE, "Somebody else has changed the cluster meanwhile: run the command again."),
    (LOCKED, "Another Terraform works on this cluster: wait for it."),
    (
        "Failed to query available provider packages",
        "Terraform cannot reach its registry: check the network, or put a provider mirror "
        "in one of Terraform's plugin folders.",
    ),
    (
        "connection refused",
        "AWS's endpoint does not answer: check the network (for the stand-in: bilbo local start).",
    ),
)
_REFUSED = re.compile(r"UnauthorizedOperation|AccessDenied|not authorized to perform")
_ACTION = re.compile(r"not authorized to perform: ([\w-]+:\w+)")
_OPERATION = re.compile(r"operation error ([\w ]+): (\w+)")


def _permission(message: str) -> str:
    """The permission that a refusal is about: AWS names it, or else it is the operation's."""
    if named := _ACTION.search(message):
        return named[1]
    if operation := _OPERATION.search(message):
        return f"{operation[1].replace(' ', '').lower()}:{operation[2]}"
    return "that the message names"


def lock_hint(message: str, cluster: str) -> str:
    """Who holds the state since when, and what to do; empty where the message tells no lock."""
    if LOCKED not in message:
        return ""
    told = dict(re.findall(r"^\W*(ID|Operation|Who|Created): +(.+?)$", message, re.MULTILINE))
    if "ID" not in told:
        return ""
    doing = told.get("Operation", "").removeprefix("OperationType").lower()
    return (
        f"{told.get('Who', 'Somebody')} has held it since {told.get('Created', '?')} ({doing}): "
        f"wait for the end. {unlock_hint(cluster, told['ID'])}"
    )


_LOCK_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def unlock_hint(cluster: str, lock_id: str) -> str:
    """How to take a lock away. An id that is none of Terraform's is shown, and stands in no
    command to be copied: whoever writes the bucket has written it."""
    if _LOCK_ID.fullmatch(lock_id):
        return f"Only if that process is certainly gone: bilbo unlock {cluster} {lock_id}"
    return f"The lock's id is not one of Terraform's: {lock_id[:80]!r}. Look at who writes there."


def hint_for(message: str) -> str:
    """What to do about a message of AWS's or Terraform's; empty where nothing is known."""
    if _REFUSED.search(message):
        return (
            f"The AWS user lacks the permission {_permission(message)}: "
            "ask who manages the account."
        )
    return next((hint for sign, hint in _HINTS if sign in message), "")
