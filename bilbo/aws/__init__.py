"""Looks at AWS through boto3. Never creates anything: that is Terraform's."""

from bilbo.aws.address import CHECK_IP_URL, caller_cidr
from bilbo.aws.look import Resource, instance_types, tagged
from bilbo.aws.preflight import preflight
from bilbo.aws.session import client, refusal
from bilbo.aws.shared import Lock, account, shared_state, state_lock

__all__ = [
    "CHECK_IP_URL",
    "Lock",
    "Resource",
    "account",
    "caller_cidr",
    "client",
    "instance_types",
    "preflight",
    "refusal",
    "shared_state",
    "state_lock",
    "tagged",
]
