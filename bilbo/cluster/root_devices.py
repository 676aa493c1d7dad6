"""The names of the AMIs' root devices, which the workers' launch templates need.

An AMI never changes, so what Terraform's state knows of it stays true, also when the AMI is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from bilbo import aws
from bilbo.cluster.work import Work
from bilbo.errors import AwsError
from bilbo.model import ClusterSpec


def with_root_devices(
    spec: ClusterSpec, work: Work, state: Mapping[str, Any], *, must_exist: bool = True
) -> ClusterSpec:
    """Returns the specification with the root devices of its workers' AMIs: from a cluster's
    `state`, or else from AWS.

    Raises AwsError if AWS refuses, and for AMIs that are in neither, unless they need not exist:
    then they stay open, for the preflight to find. Asks for the AMIs of all roles at once, which
    the preflight need not do again.
    """
    known = known_root_devices(spec, state)
    if all(group.machine.ami in known for group in spec.workers):
        return replace(spec, root_devices=known)
    amis = [group.machine.ami for group in spec.groups() if group.machine.ami not in known]
    aws.look_at_images(work.target, amis, work.images)
    found = {ami: image.root_device for ami in amis if (image := work.images[ami])}
    gone = [each for each in spec.workers if each.machine.ami not in {**known, **found}]
    if gone and must_exist:
        raise AwsError(
            f"cluster {spec.name!r} is unchanged",
            details=tuple(aws.image_problems(spec.region, gone, work.images)),
            hint="An AMI must exist in this region and be shared with this account. Name another "
            "in the profile, which replaces the machines that have it.",
        )
    return replace(spec, root_devices={**known, **found})


def known_root_devices(spec: ClusterSpec, state: Mapping[str, Any]) -> dict[str, str]:
    """Returns what the launch templates in a state tell of the specification's AMIs, by AMI. Pure.

    A state may be malformed, and whoever can write it chooses what it tells.
    """
    amis = {group.machine.ami for group in spec.workers}
    return {ami: device for ami, device in _templates(state) if ami in amis}


def _templates(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the AMI and the root device of each launch template: it maps no other device."""
    for resource in _list(state.get("resources")):
        if not isinstance(resource, Mapping) or resource.get("type") != "aws_launch_template":
            continue
        for instance in _list(resource.get("instances")):
            found = instance.get("attributes") if isinstance(instance, Mapping) else None
            disks = _list(found.get("block_device_mappings")) if isinstance(found, Mapping) else ()
            device = disks[0].get("device_name") if disks and isinstance(disks[0], Mapping) else ""
            ami = found.get("image_id") if isinstance(found, Mapping) else ""
            if isinstance(ami, str) and isinstance(device, str) and ami and device:
                yield ami, device


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
