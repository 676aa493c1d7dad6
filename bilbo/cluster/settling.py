"""A specification becomes definite: what depends on the target and on who asks is filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from bilbo import aws
from bilbo.cluster.work import Work
from bilbo.errors import RecordError
from bilbo.model import ClusterSpec, Machine, NodeGroup
from bilbo.record import Record


def settle(
    spec: ClusterSpec,
    work: Work,
    before: Record | None,
    my_ip: bool,
    *,
    newest: bool = False,
    amis: Mapping[str, str] | None = None,
) -> ClusterSpec:
    """The specification with what depends on the target and on who asks filled in.

    The addresses admitted stay those of the record until `my_ip` asks for them again, and the
    AMIs that images stand for those of the running machines until the `newest` are asked for;
    `amis`, by group, are those of a reviewed plan.
    Raises AwsError where an image is not to be found.
    """
    spec = with_ssh_port(spec, work.target.ssh_port)
    if amis is None:
        nodes = before.inventory.nodes() if before and not newest else ()
        amis = {node.group: node.image_id for node in nodes}
    spec = _with_images(spec, work, amis)
    if spec.cidrs or not spec.needs_security_group:
        return spec
    remembered = before.cidrs if before and not my_ip else ()
    cidrs = work.target.caller_cidrs or remembered or (aws.caller_cidr(work.target.check_ip_url),)
    return replace(spec, cidrs=cidrs)


def with_ssh_port(spec: ClusterSpec, port: int | None) -> ClusterSpec:
    """The specification with the SSH port of the target, where that says one."""
    if port is None:
        return spec
    return _with_machines(spec, lambda group: replace(group.machine, ssh_port=port))


def _with_images(spec: ClusterSpec, work: Work, running: Mapping[str, str]) -> ClusterSpec:
    """Puts an AMI where only an image is named: that of the group in `running`, else the newest
    in the region."""
    open_ones = [each for each in spec.groups() if each.machine.image and not each.machine.ami]
    names = {each.machine.image for each in open_ones if each.name not in running}
    found = aws.newest_images(work.target, [name for name in names if name]) if names else {}

    def machine(group: NodeGroup) -> Machine:
        if group not in open_ones:
            return group.machine
        ami = running.get(group.name) or found[group.machine.image or ""]
        return replace(group.machine, ami=ami)

    return _with_machines(spec, machine)


def _with_machines(spec: ClusterSpec, machine: Callable[[NodeGroup], Machine]) -> ClusterSpec:
    def changed(group: NodeGroup) -> NodeGroup:
        return replace(group, machine=machine(group))

    return replace(
        spec,
        notebook=changed(spec.notebook) if spec.notebook else None,
        head=changed(spec.head) if spec.head else None,
        workers=tuple(changed(group) for group in spec.workers),
    )


def same_place(record: Record | None, work: Work) -> None:
    """Raises RecordError when the cluster lives in another region or AWS than is asked for."""
    if record is None:
        return
    there = (record.region, record.endpoint_url)
    if there != (work.target.region, work.target.endpoint_url):
        place = record.region + (f" at {record.endpoint_url}" if record.endpoint_url else " on AWS")
        raise RecordError(
            f"cluster {record.name!r} lives in {place}",
            hint=f"Choose another name with -n, or first: bilbo destroy {record.name}",
        )
