"""Resources that run but are in no state: found by tag, imported, and kept or destroyed.

Terraform writes its state after each resource. If it is killed in between, it leaves a resource
that only its tag identifies, and a later `terraform destroy` would report success without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from bilbo import addresses, aws
from bilbo.aws import Resource
from bilbo.cluster.ownership import ORPHAN, Own, ids
from bilbo.cluster.work import Work
from bilbo.model import ClusterSpec
from bilbo.terraform import Terraform

_ORPHANS = "orphans.tf.json"
# Arguments that Terraform requires of these types, even just to destroy them.
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
    """Returns what carries the cluster's tag and is not in its `state`: its own resources, and
    those of other owners.

    A group stands for its workers.
    """
    known = ids(state)
    found = [each for each in aws.tagged(work.target, name) if each.id not in known]
    mine = [each for each in found if own.has(each)]
    groups = known | {each.id for each in mine if each.kind == "aws_autoscaling_group"}
    others = [each for each in found if not own.has(each) and each.launched_by not in groups]
    return [each for each in mine if each.launched_by not in groups], others


def adopt(spec: ClusterSpec, work: Work, terraform: Terraform) -> int:
    """Imports the orphans that the rendered files have an address for; returns how many.

    Others (such as a second notebook) are left to `destroy`, and resources of other owners are left
    alone. Raises AwsError, TerraformError and Interrupted. Side effects: changes the state, reports
    a line for each.
    """
    mine, others = orphans(spec.name, work, terraform.state(), Own(spec.owner))
    for other in others:
        work.progress.say(f"Not this cluster's, left alone: {other}")
    taken = _taken(terraform)
    if any(_place(resource) in taken for resource in mine):
        # What the state has there may be gone, if the stand-in was killed and started again.
        terraform.apply(work.progress.terraform, refresh_only=True)
        taken = _taken(terraform)
    before = len(taken)
    for resource in mine:
        address = _place(resource)
        if address is None or address in taken:
            work.progress.say(f"Not in Terraform's state, left alone: {resource.id}")
            continue
        work.progress.say(f"Found by tag, imported into Terraform's state: {resource.id}")
        terraform.import_(address, resource.id)
        taken.add(address)
    adopted = len(taken) - before
    anywhere = any(group.machine.subnet is None for group in spec.groups())
    if taken and anywhere and addresses.ZONE not in taken:
        # While it is unknown, so are the network and the subnets of what is there, and Terraform
        # would replace that.
        terraform.apply(work.progress.terraform, target=addresses.ZONE)
    return adopted


def adopt_to_destroy(name: str, work: Work, terraform: Terraform, own: Own) -> int:
    """Imports every orphan to its own address, so that `terraform destroy` removes it.

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
        work.progress.say(f"Found by tag, will be destroyed too: {resource.id}")
        terraform.import_(f"{resource.kind}.{label}", resource.id)
    if "aws_autoscaling_group" in resources:
        # An import cannot set it, and without it Terraform waits for protected instances to end.
        terraform.amend_state("aws_autoscaling_group", {"force_delete": True})
    return len(found)


def _taken(terraform: Terraform) -> set[str]:
    """Returns the addresses in use. Terraform killed while creating leaves some without
    instances."""
    resources = terraform.state().get("resources", [])
    return {addresses.of_resource(resource) for resource in resources if resource["instances"]}


def _place(resource: Resource) -> str | None:
    return addresses.rendered(resource.kind, resource.role, resource.group)
