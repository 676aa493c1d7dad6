"""Settles a specification: fills in what depends on the target and on the caller."""

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
    """Returns the specification with what depends on the target and on the caller filled in.

    The admitted addresses stay those of the record unless `my_ip`, and the AMIs of images stay
    those of the running machines unless `newest`; `amis`, by group, are those of a reviewed plan.
    Raises AwsError if an image is not found.
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
    """Returns the specification with the target's SSH port, if it has one."""
    if port is None:
        return spec
    return _with_machines(spec, lambda group: replace(group.machine, ssh_port=port))


def _with_images(spec: ClusterSpec, work: Work, running: Mapping[str, str]) -> ClusterSpec:
    """Fills in the AMI where only an image is named: that of the group in `running`, or else the
    newest in the region."""
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
    """Raises RecordError if the cluster is in another region or at another endpoint."""
    if record is None:
        return
    there = (record.region, record.endpoint_url)
    if there != (work.target.region, work.target.endpoint_url):
        place = record.region + (f" at {record.endpoint_url}" if record.endpoint_url else " on AWS")
        raise RecordError(
            f"cluster {record.name!r} already exists in {place}",
            hint=f"Choose another name with -n, or destroy it first: bilbo destroy {record.name}",
        )
