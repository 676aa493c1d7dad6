"""Queries AWS through boto3. Never creates anything: Terraform does that."""

from bilbo.aws.address import caller_cidr
from bilbo.aws.amis import Ami, Amis, image_tags, look_at_images, newest_images
from bilbo.aws.autoscaling import group_members, protect
from bilbo.aws.build_leftovers import built, left_of_build
from bilbo.aws.lives import sightings
from bilbo.aws.preflight import image_problems, launch_problems, limits, preflight
from bilbo.aws.price_list import price_list, spot_prices
from bilbo.aws.s3_state import Lock, account, shared_state, state_lock
from bilbo.aws.session import client, refusal
from bilbo.aws.stopping import endings, may_stop, start_instances, stop_instances
from bilbo.aws.tagged import (
    holders,
    instance_types,
    machines,
    reclaimed,
    regions,
    tagged,
    tagged_by_any,
)
from bilbo.aws.worker_groups import (
    LAUNCH,
    REBALANCE,
    REPLACE,
    WorkerGroup,
    activities,
    resume_launches,
    set_healthy,
    suspend,
    take_out,
    worker_groups,
)
from bilbo.held import Resource

__all__ = [
    "LAUNCH",
    "REBALANCE",
    "REPLACE",
    "Ami",
    "Amis",
    "Lock",
    "Resource",
    "WorkerGroup",
    "account",
    "activities",
    "built",
    "caller_cidr",
    "client",
    "endings",
    "group_members",
    "holders",
    "image_problems",
    "image_tags",
    "instance_types",
    "launch_problems",
    "left_of_build",
    "limits",
    "look_at_images",
    "machines",
    "may_stop",
    "newest_images",
    "preflight",
    "price_list",
    "protect",
    "reclaimed",
    "refusal",
    "regions",
    "resume_launches",
    "set_healthy",
    "shared_state",
    "sightings",
    "spot_prices",
    "start_instances",
    "state_lock",
    "stop_instances",
    "suspend",
    "tagged",
    "tagged_by_any",
    "take_out",
    "worker_groups",
]
