"""Looks at AWS through boto3. Never creates anything: that is Terraform's."""

from bilbo.aws.address import CHECK_IP_URL, caller_cidr
from bilbo.aws.look import Resource, instance_types, tagged
from bilbo.aws.preflight import preflight
from bilbo.aws.session import client, refusal

__all__ = [
    "CHECK_IP_URL",
    "Resource",
    "caller_cidr",
    "client",
    "instance_types",
    "preflight",
    "refusal",
    "tagged",
]
