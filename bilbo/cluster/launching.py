"""What must be right before machines are launched: private keys, and AWS's side of the groups that
the change at hand launches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from bilbo import addresses, aws
from bilbo.cluster.work import Work
from bilbo.errors import AwsError, RemoteError
from bilbo.model import ClusterSpec, Inventory, NodeGroup
from bilbo.profile.naming import expand_key_path
from bilbo.terraform import PlannedChange

_LAUNCHING = ("create", "replace")


def public_keys(spec: ClusterSpec, work: Work, *, needed: bool = True) -> Mapping[str, bytes]:
    """Returns the public part of each private key of the profile, by the profile's path, in SSH's
    wire format.

    The SSH stage's own reader reads them, so what passes here is usable there. Raises RemoteError
    with every key that is not, and what to do. Unless `needed`, a missing file is only reported:
    who plans need not be who logs in.
    """
    from bilbo.remote import HostFailure, read_key

    found: dict[str, bytes] = {}
    bad: list[HostFailure] = []
    for name in sorted({group.machine.ssh_private_key for group in spec.groups()}):
        path = expand_key_path(name, work.store.home)
        try:
            if needed or _is_there(path):
                found[name] = read_key(path).public_data
            else:
                work.progress.say(f"`create` will need the private key {path}; it is not here.")
        except HostFailure as failure:
            bad.append(failure)
    if not bad:
        return found
    what = f"cannot log in to the machines of cluster {spec.name!r}; nothing was changed"
    lines = [line for each in bad for line in (each.what, f"    {each.hint}")]
    raise RemoteError(what, details=tuple(lines))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return True  # the reader says why it cannot be read


def preflight(
    spec: ClusterSpec,
    work: Work,
    keys: Mapping[str, bytes],
    there: Inventory,
    changes: Collection[PlannedChange] = (),
    *,
    new: bool,
) -> None:
    """Asks AWS for what the change at hand needs. Raises AwsError with everything that would fail.

    `there` is what runs, `changes` are Terraform's, as far as they are known. A group that only
    loses machines, or keeps them, is not checked: its AMI and its key pair may be gone.
    """
    groups = _launching(spec, there, changes)
    retyped = [
        group
        for group in spec.groups()
        if any(
            node.group == group.name and node.ec2type not in group.ec2types
            for node in there.nodes()
        )
    ]
    names = _names(spec, None if new else changes)
    more = [(group, max(group.count - _count(group, there), 0)) for group in groups]
    if groups or retyped or names or new:
        found = aws.preflight(
            spec, work.target, keys, groups, retyped, work.images, names, more=more, new=new
        )
        for note in found:
            work.progress.say(note)


def limits(spec: ClusterSpec, work: Work, changes: Collection[PlannedChange]) -> None:
    """Compares what a plan would make with AWS's limits. Raises AwsError where AWS would refuse it,
    and says what nobody here may ask."""
    for note in aws.limits(spec, work.target, _names(spec, changes)):
        work.progress.say(note)


def _names(spec: ClusterSpec, changes: Collection[PlannedChange] | None) -> list[str]:
    """The names, which AWS has only once, of what the changes make; of everything if None."""
    named = {
        addresses.rendered("aws_launch_template", each.role, each.name): each.instance_name
        for each in spec.workers
    }
    if spec.needs_security_group:
        named[addresses.SECURITY_GROUP] = spec.security_group_name
    if changes is None:
        return list(named.values())
    made = {change.address for change in changes if change.action == "create"}
    return [name for address, name in named.items() if address in made]


def _count(group: NodeGroup, there: Inventory) -> int:
    return sum(node.group == group.name for node in there.nodes())


def check_images(
    spec: ClusterSpec, work: Work, there: Inventory, changes: Collection[PlannedChange]
) -> None:
    """As `preflight`, for the AMIs alone: one call, or none if the change launches nothing."""
    groups = _launching(spec, there, changes)
    if groups and (problems := aws.launch_problems(spec, work.target, groups, work.images)):
        raise AwsError(
            f"cluster {spec.name!r} cannot get the machines that it lacks; nothing was changed",
            details=tuple(problems),
            hint="Machines that run go on running. Restore the AMI, or name another in the "
            "profile, which replaces the machines that have it.",
        )


def _launching(
    spec: ClusterSpec, there: Inventory, changes: Collection[PlannedChange]
) -> list[NodeGroup]:
    return [group for group in spec.groups() if _launches(group, there, changes)]


def _launches(group: NodeGroup, there: Inventory, changes: Collection[PlannedChange]) -> bool:
    nodes = [node for node in there.nodes() if node.group == group.name]
    machine = group.machine
    others = any((node.image_id, node.key_name) != (machine.ami, machine.keyname) for node in nodes)
    return (
        len(nodes) < group.count
        or (others and group.count > 0)
        or any(
            change.action in _LAUNCHING
            for change in changes
            if addresses.within(change.address, group.role, group.name)
        )
    )
