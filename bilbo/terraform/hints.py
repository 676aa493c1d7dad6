"""Hints for people on the errors of AWS and Terraform."""

from __future__ import annotations

import re

_NO_CAPACITY = (
    "AWS has no capacity for that instance type there now: try later, another ec2type, "
    "or a subnet in another zone."
)
_NO_SPOT = (
    "AWS has no spot instances of these types there now: try later, allow more `types`, or have "
    'what is missing run on demand with "spot": "fallback".'
)
_SPOT_QUOTA = (
    "The account's quota of spot instances is used up: request more in Service Quotas, use fewer "
    'machines, or have what is missing run on demand with "spot": "fallback".'
)
_SPOT_ROLE = (
    "The account has no role for spot instances yet: once, by whoever may, "
    "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
)
_QUOTA = "The account's quota is used up: request more in Service Quotas, or use fewer machines."
_LOGIN = "The AWS credentials have expired: log in again (for SSO: aws sso login)."
_SUBSCRIBE = (
    "The account has not accepted the terms of what it asks for: subscribe to the AMI in AWS "
    "Marketplace, or enable the region in the account's settings."
)
_VERIFYING = (
    "AWS is still verifying the account for this region, which takes minutes, at most 4 hours: "
    "run the command again then."
)
_NOT_THERE = (
    "That zone does not have this instance type: choose another ec2type, or a subnet in another "
    "zone."
)
_KEY_OF_VOLUMES = (
    "AWS ended the machine while it started. Usual cause: the volumes' KMS key does not let Auto "
    "Scaling's role (AWSServiceRoleForAutoScaling) use it: grant it in the key's policy."
)

# Terraform's message when another process holds the state.
LOCKED = "Error acquiring the state lock"
# Terraform's message when the state has changed since the plan.
STALE = "Saved plan is stale"

# In messages on a name that is in use.
NAME_TAKEN = ("AlreadyExists", "InvalidGroup.Duplicate")
_NAME_TAKEN = (
    "AWS has something of that name that is not this cluster's: choose another name with -n, or "
    "remove it if it is yours and nobody uses it."
)
_KEY_PAIR = (
    "Check the profile's keyname: the key pair must exist in this region. If it was deleted, "
    "import its public key again under that name; another keyname replaces the machines."
)

# In Auto Scaling's messages on spot instances that it cannot get: capacity, and the quota.
_OUT_OF_SPOT = ("UnfulfillableCapacity", "no Spot capacity")
_ABOVE_SPOT_QUOTA = ("Max spot instance count", "MaxSpotInstanceCountExceeded")
NO_SPOT = (*_OUT_OF_SPOT, *_ABOVE_SPOT_QUOTA)

# The first sign that is in the message determines the hint.
_HINTS = (
    ("ServiceLinkedRoleCreationNotPermitted", _SPOT_ROLE),
    *((sign, _NO_SPOT) for sign in _OUT_OF_SPOT),
    *((sign, _SPOT_QUOTA) for sign in _ABOVE_SPOT_QUOTA),
    ("InsufficientInstanceCapacity", _NO_CAPACITY),
    ("do not have sufficient", _NO_CAPACITY),
    ("VcpuLimitExceeded", _QUOTA),
    # Auto Scaling's words for the same: the code does not reach its activities.
    ("vCPU limit", _QUOTA),
    ("vCPU capacity", _QUOTA),
    ("InstanceLimitExceeded", _QUOTA),
    (
        "InvalidAMI",
        "Check the profile's ami: it must exist in this region and be shared with this account.",
    ),
    (
        "data.aws_ami.",
        "An AMI of the profile is gone from this region, or no longer shared with this account. An "
        "earlier bilbo wrote Terraform files that ask for it: `bilbo plan` with the cluster's "
        "profile writes them anew.",
    ),
    ("InvalidKeyPair", _KEY_PAIR),
    ("The key pair '", _KEY_PAIR),  # an Auto Scaling group's activity has no code
    *((sign, _NAME_TAKEN) for sign in NAME_TAKEN),
    (
        "InvalidGroup",
        "Check the profile's security_group: it must exist in this region, in the subnet's VPC.",
    ),
    ("InvalidSubnet", "Check the profile's subnet: it must exist in this region."),
    ("no matching EC2 Subnet", "The region has no default VPC: set a subnet in the profile."),
    (
        "InvalidBlockDeviceMapping",
        "Check the profile's vol_size: a volume cannot be smaller than the AMI's snapshot.",
    ),
    (
        "New size cannot be smaller",
        "AWS shrinks no volume: set vol_size to at least what there is, or leave it out.",
    ),
    ("PendingVerification", _VERIFYING),
    ("OptInRequired", _SUBSCRIBE),
    ("Client.InternalError", _KEY_OF_VOLUMES),
    ("InvalidKMSKey", _KEY_OF_VOLUMES),
    ("Unsupported:", _NOT_THERE),
    ("ExpiredToken", _LOGIN),
    ("SSO session has expired", _LOGIN),
    ("SSO token", _LOGIN),
    ("Token has expired and refresh failed", _LOGIN),
    (
        "failed to get shared config profile",
        "AWS_PROFILE names a profile that is not in ~/.aws/config: list them with "
        "aws configure list-profiles.",
    ),
    ("RequestExpired", "The AWS credentials have expired, or this machine's clock is wrong."),
    (
        "No valid credential sources",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
    ),
    ("AuthFailure", "AWS does not accept these credentials: check them, and the region."),
    (STALE, "Someone else has changed the cluster meanwhile: run the command again."),
    (LOCKED, "Another Terraform is working on this cluster: wait for it."),
    (
        "does not match any of the checksums",
        "The installed provider is damaged, or not the one that the lock file names. bilbo has "
        "removed it: run the command again to install it anew.",
    ),
    (
        "match any of the checksums",
        "What this machine's mirror or network gives is not the provider that HashiCorp released "
        "(.terraform.lock.hcl has its checksums): ask whoever runs the mirror.",
    ),
    (
        "managed by newer provider version",
        "The cluster was made with a newer AWS provider: put .terraform.lock.hcl of the machine "
        "that made it into the cluster's Terraform folder, and run the command again.",
    ),
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
# What the same command meets again, until somebody changes the profile or AWS.
_LASTING = (
    *("InvalidAMI", "InvalidKeyPair", "The key pair '", "AlreadyExists", "InvalidGroup"),
    *("InvalidSubnet", "no matching EC2 Subnet", "data.aws_ami.", "InvalidBlockDeviceMapping"),
    *("OptInRequired", "Unsupported:", "failed to get shared config profile"),
)
_REFUSED = re.compile(
    r"UnauthorizedOperation|AccessDenied|not authorized to perform"
    r"|not authorized to use launch template"
)
_ACTION = re.compile(r"not authorized to perform: ([\w-]+:\w+)")
_OPERATION = re.compile(r"operation error ([\w ]+): (\w+)")


def _permission(message: str) -> str:
    """The missing permission: the one that AWS names, or else the operation's."""
    if named := _ACTION.search(message):
        return named[1]
    # Auto Scaling tries a template as its caller; what it refuses is the launch.
    if "launch template" in message and "operation error Auto Scaling" in message:
        return "ec2:RunInstances (or what the launch template needs with it, such as iam:PassRole)"
    if operation := _OPERATION.search(message):
        return f"{operation[1].replace(' ', '').lower()}:{operation[2]}"
    return "that the message names"


def lock_hint(message: str, cluster: str) -> str:
    """Who holds the state since when, and what to do; empty if the message has no lock."""
    if LOCKED not in message:
        return ""
    told = dict(re.findall(r"^\W*(ID|Operation|Who|Created): +(.+?)$", message, re.MULTILINE))
    if "ID" not in told:
        return ""
    doing = told.get("Operation", "").removeprefix("OperationType").lower()
    return (
        f"{told.get('Who', 'Somebody')} has held it since {told.get('Created', '?')} ({doing}): "
        f"wait until it ends. {unlock_hint(cluster, told['ID'])}"
    )


_LOCK_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def unlock_hint(cluster: str, lock_id: str) -> str:
    """How to remove a lock. An id that is not Terraform's is shown, but never in a command to copy:
    whoever can write to the bucket chose it."""
    if _LOCK_ID.fullmatch(lock_id):
        return f"Only if that process is certainly gone: bilbo unlock {cluster} {lock_id}"
    return f"The lock's id is not Terraform's: {lock_id[:80]!r}. Find out who writes there."


def hint_for(message: str) -> str:
    """What to do about a message of AWS or Terraform; empty if there is no hint."""
    if _REFUSED.search(message):
        return (
            f"The AWS user lacks the permission {_permission(message)}: "
            "ask the account's administrator."
        )
    words = " ".join(message.split())  # Terraform wraps lines where it is not asked for JSON
    return next((hint for sign, hint in _HINTS if sign in words), "")


def lasts(message: str) -> bool:
    """Whether the same command fails the same way until somebody changes the profile or AWS."""
    return any(sign in message for sign in _LASTING)
