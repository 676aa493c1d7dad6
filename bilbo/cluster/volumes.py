"""Root volumes of single machines whose `vol_size` changes: AWS grows them in place, and shrinks
none. Workers are replaced, and get their disks anew."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from bilbo import addresses
from bilbo.cluster.work import Work
from bilbo.errors import AwsError
from bilbo.model import ClusterSpec, NodeGroup
from bilbo.terraform import PlannedChange


def check_volumes(
    spec: ClusterSpec, work: Work, state: Mapping[str, Any], changes: Collection[PlannedChange]
) -> None:
    """Says which volumes the changes grow, and that their file systems follow. Raises AwsError if
    one would have to shrink.

    Source: EBS User Guide, "Requirements for Amazon EBS volume modifications".
    """
    smaller = []
    for group, before in _resized(spec, state, changes):
        now = group.machine.vol_size or 0
        if now > before:
            work.progress.say(
                f"The volume of the {group.role} grows from {before} to {now} GiB while it runs; "
                "`create` grows its file system, too."
            )
        else:
            smaller.append(f"the volume of the {group.role} has {before} GiB, vol_size is {now}")
    if smaller:
        raise AwsError(
            f"AWS shrinks no volume; cluster {spec.name!r} is unchanged",
            details=tuple(smaller),
            hint="Set vol_size to at least what there is, or leave it out.",
        )


def _resized(
    spec: ClusterSpec, state: Mapping[str, Any], changes: Collection[PlannedChange]
) -> Iterator[tuple[NodeGroup, int]]:
    """Yields the single machines that are changed in place and have a volume of another size than
    the profile's, with the size that the state knows, in GiB."""
    updated = {each.address for each in changes if each.action == "update"}
    for group in (spec.notebook, spec.head):
        address = group and addresses.rendered("aws_instance", group.role, group.name)
        if group is None or group.machine.vol_size is None or address not in updated:
            continue
        for resource in state.get("resources", []):
            if addresses.of_resource(resource) == address:
                size = _size(resource)
                if size not in (0, group.machine.vol_size):
                    yield group, size


def _size(resource: Mapping[str, Any]) -> int:
    """GiB of the root volume of a state's instance; 0 if the state does not tell."""
    try:
        size = resource["instances"][0]["attributes"]["root_block_device"][0]["volume_size"]
    except (LookupError, TypeError):
        return 0
    return size if isinstance(size, int) else 0
