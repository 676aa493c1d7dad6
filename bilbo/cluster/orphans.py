"""What runs and is in no state: found by its tag, imported, kept or destroyed as asked.

Terraform writes its state after each resource. Killed in between, it leaves something that
only its tag tells of; and it would then say "Destroy complete!" over it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from bilbo import addresses, aws
from bilbo.aws import Resource
from bilbo.cluster.ownership import ORPHAN, Own, ids
from bilbo.cluster.work import Work, interrupted
from bilbo.model import ClusterSpec
from bilbo.terraform import Terraform

_ORPHANS = "orphans.tf.json"
# Kinds that Terraform needs arguments for, even if only to forget them.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "aws_instance": {"ami": "ami-00000000", "instance_type": "t3.micro"},
    "aws_autoscaling_group": {
        "min_size": 0,
        "max_size": 0,
        "force_delete": True,
        "launch_template": {"name": "orphan"},
    },
    "aws_ebs_volume": {"availability_zone": "none", "size": 1},
    "aws_launch_template": {},
    "aws_security_group": {},
}


def orphans(
    name: str, work: Work, state: Mapping[str, Any], own: Own
) -> tuple[list[Resource], list[Resource]]:
    """What carries the cluster's tag and is not in its `state`: its own, and what is another's.

    A group's workers go with it.
    """
    known = ids(state)
    found = [each for each in aws.tagged(work.target, name) if each.id not in known]
    mine = [each for each in found if own.has(each)]
    groups = known | {each.id for each in mine if each.kind == "aws_autoscaling_group"}
    others = [each for each in found if not own.has(each) and each.launched_by not in groups]
    return [each for each in mine if each.launched_by not in groups], others


def adopt(spec: ClusterSpec, work: Work, terraform: Terraform) -> None:
    """Imports the orphans to where the rendered files have a place for them.

    What has no place there (a second notebook, say) is left to `destroy`, and what is another's
    left alone. Raises AwsError, TerraformError and Interrupted. Side effects: the state; a line
    each on the progress.
    """
    mine, others = orphans(spec.name, work, terraform.state(), Own(spec.owner))
    for other in others:
        work.progress.say(f"Left alone, another's: {other}")
    taken = _taken(terraform)
    if any(_place(resource) in taken for resource in mine):
        # What the state has there may be gone, with a stand-in that was killed and started anew.
        if terraform.apply(work.progress.terraform, refresh_only=True).interrupted:
            raise interrupted(spec.name)
        taken = _taken(terraform)
    for resource in mine:
        address = _place(resource)
        if address is None or address in taken:
            work.progress.say(f"Not in Terraform's state, and left alone: {resource.id}")
            continue
        work.progress.say(f"Found by its tag, taken into Terraform's state: {resource.id}")
        terraform.import_(address, resource.id)
        taken.add(address)


def adopt_to_destroy(name: str, work: Work, terraform: Terraform, own: Own) -> int:
    """Imports every orphan to an address of its own, so that `terraform destroy` removes it.

    Returns how many there were.
    """
    found, _ = orphans(name, work, terraform.state(), own)
    labelled = [(f"{ORPHAN}{re.sub(r'[^0-9A-Za-z_]', '_', each.id)}", each) for each in found]
    resources: dict[str, dict[str, Any]] = {}
    for label, resource in labelled:
        resources.setdefault(resource.kind, {})[label] = _ARGUMENTS[resource.kind]
    if resources:
        terraform.write_extra(_ORPHANS, json.dumps({"resource": resources}, indent=2))
    for label, resource in labelled:
        work.progress.say(f"Found by its tag, to be destroyed too: {resource.id}")
        terraform.import_(f"{resource.kind}.{label}", resource.id)
    if "aws_autoscaling_group" in resources:
        # No import can know it, and without it Terraform waits for protected instances to go.
        terraform.amend_state("aws_autoscaling_group", {"force_delete": True})
    return len(found)


def _taken(terraform: Terraform) -> set[str]:
    """The addresses with something at them. Killed while it creates, Terraform leaves some bare."""
    resources = terraform.state().get("resources", [])
    return {addresses.of_resource(resource) for resource in resources if resource["instances"]}


def _place(resource: Resource) -> str | None:
    return addresses.rendered(resource.kind, resource.role, resource.group)
