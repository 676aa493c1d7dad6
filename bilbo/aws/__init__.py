"""Looks at AWS through boto3. Never creates anything: that is Terraform's."""

from bilbo.aws.address import caller_cidr
from bilbo.aws.groups import group_members, protect
from bilbo.aws.images import image_tags, newest_images
from bilbo.aws.look import Resource, holders, instance_types, start_instances, tagged
from bilbo.aws.preflight import preflight
from bilbo.aws.session import client, refusal
from bilbo.aws.shared import Lock, account, shared_state, state_lock

__all__ = [
    "Lock",
    "Resource",
    "account",
    "caller_cidr",
    "client",
    "group_members",
    "holders",
    "image_tags",
    "instance_types",
    "newest_images",
    "preflight",
    "protect",
    "refusal",
    "shared_state",
    "start_instances",
    "state_lock",
    "tagged",
]
