"""Clusters at rest: paused, or ended by themselves. What a pause is, and who has to know of it.

A paused cluster is rendered with no workers and the output `paused`; its notebook and head are
stopped, which Terraform does not manage. So the state says to everybody who shares it that the
cluster is paused, and how many workers it had; the profile in the record keeps their counts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from bilbo import addresses
from bilbo import record as states
from bilbo.errors import BilboError
from bilbo.model import WORKER, ClusterSpec, Inventory, Node
from bilbo.present.times import local_time
from bilbo.reality import Reality
from bilbo.record import Record

# Why a cluster is at rest, if bilbo did it.
BY_PAUSE = "by `bilbo pause`"
BY_ITSELF = "by itself"
_ASLEEP = ("stopped", "stopping")
_AMI = re.compile("ami-[0-9a-f]{1,32}")


def paused(spec: ClusterSpec) -> ClusterSpec:
    """Returns the specification of the same cluster while it is paused."""
    if spec.paused is not None:
        return spec
    counts = {group.name: group.count for group in spec.workers}
    none = tuple(replace(group, count=0) for group in spec.workers)
    return replace(spec, workers=none, paused=counts)


def is_told_paused(state: Mapping[str, Any]) -> bool:
    """Whether a state says that its cluster is paused. Pure."""
    outputs = state.get("outputs")
    return isinstance(outputs, Mapping) and "paused" in outputs


def as_told(record: Record, state: Mapping[str, Any]) -> Record:
    """Returns a record as a shared `state` has it, if a team-mate has paused or resumed since.

    What is recorded of machines stays, for the next step to correct.
    """
    told = is_told_paused(state)
    if told and record.status not in states.RESTING:
        return record.changed(status=states.PAUSED)
    if not told and record.status == states.PAUSED and record.rest.get("why") in (None, BY_PAUSE):
        return record.changed(status=states.PARTIAL, paused_workers={}, rest={})
    return record


def awake(record: Record) -> Record:
    """Returns the record. Raises BilboError if the cluster is paused or has ended: the one place
    where commands that need its machines say so."""
    name = record.name
    if record.status == states.ENDED:
        raise BilboError(
            ended(record).rstrip(".").replace("Cluster", "cluster", 1),
            hint=f"To bring it back, run `bilbo create` with its profile and -n {name}; to remove "
            f"what is left of it: bilbo destroy {name}",
        )
    if record.status == states.PAUSING:
        raise BilboError(
            f"cluster {name!r} is being paused",
            hint=f"To finish that: bilbo pause {name}; to use the cluster again: bilbo resume "
            f"{name}",
        )
    if record.status == states.PAUSED:
        raise BilboError(
            f"cluster {name!r} is paused{_when(record)}", hint=f"To use it: bilbo resume {name}"
        )
    return record


def ended(record: Record) -> str:
    """Returns a sentence on a cluster none of whose machines is left."""
    itself = " itself" if record.rest.get("why") == BY_ITSELF else ""
    return (
        f"Cluster {record.name!r} has ended{itself}{_when(record)}: none of its machines is left."
    )


def _when(record: Record) -> str:
    rest = record.rest
    return "".join(
        f" {word} {local_time(rest[word])}" for word in ("since", "before") if rest.get(word)
    )


def singles(found: Inventory) -> list[Node]:
    """Returns the machines that a pause stops: they have disks that stay."""
    return [node for node in (found.notebook, found.head) if node]


def at_rest(
    record: Record, status: str, counts: Mapping[str, int], rest: Mapping[str, str]
) -> Record:
    """Returns the record of a cluster at rest: nothing leads to addresses that others get now, and
    its lifetime begins again when it is ready again."""

    def there(node: Node | None) -> Node | None:
        return replace(node, public_ip="") if node else None

    found = record.inventory
    return record.changed(
        status=status,
        inventory=Inventory(there(found.notebook), there(found.head)),
        ready_time=None,
        ends=None,
        notebook_url=None,
        addresses={},
        problems={},
        members={},
        paused_workers=dict(counts),
        rest={key: value for key, value in rest.items() if value},
    )


def asleep(record: Record | None, seen: Reality) -> Collection[str]:
    """Returns the machines to start before anything else is done: all of a cluster at rest, which
    nobody looked at, or those that were `seen` stopped."""
    if record is None:
        return ()
    if record.status in (states.PAUSING, states.PAUSED):
        return [node.instance_id for node in singles(record.inventory)]
    mine = {node.instance_id for node in singles(record.inventory)}
    return [
        each.node.instance_id
        for each in seen.machines
        if each.node.instance_id in mine and each.state in _ASLEEP
    ]


def booted(
    before: Record | None, seen: Reality, found: Inventory, woken: Collection[str]
) -> list[str]:
    """Returns the machines of those `woken` whose services may have other settings now, because
    addresses have changed: they lose nothing by starting anew, unless workers have outlived the
    head that was `seen`. So may those of a cluster that a killed bilbo began to bring back: nobody
    has been told that it is ready."""
    if before and before.rest and before.status == states.CREATING:
        woken = [node.instance_id for node in singles(found)]
    outlived = any(each.node.role == WORKER and each.state == "running" for each in seen.machines)
    anew = [found.notebook] if outlived else singles(found)
    return [node.instance_id for node in anew if node and node.instance_id in woken]


def known_amis(
    spec: ClusterSpec, record: Record | None, state: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the AMIs that a cluster has, by group: those of its machines, and of the templates
    of groups that have none. Pure.

    A newer image would replace a group, and a pause must change nothing but counts.
    """
    nodes = record.inventory.nodes() if record else ()
    found = {node.group: node.image_id for node in nodes}
    for group in spec.workers:
        address = addresses.rendered("aws_launch_template", group.role, group.name)
        for held in _held(state, address):
            if _AMI.fullmatch(str(held.get("image_id"))):
                found.setdefault(group.name, held["image_id"])
    return found


def disks(spec: ClusterSpec, state: Mapping[str, Any]) -> list[int]:
    """Returns the sizes in GiB of the volumes of notebook and head, which stay billed. Pure."""
    sizes = [
        disk.get("volume_size")
        for group in (spec.notebook, spec.head)
        if group
        for held in _held(state, addresses.rendered("aws_instance", group.role, group.name))
        for kind in ("root_block_device", "ebs_block_device")
        for disk in held.get(kind) or []
    ]
    return [size for size in sizes if isinstance(size, int)]


def _held(state: Mapping[str, Any], address: str | None) -> Iterator[Mapping[str, Any]]:
    """Yields what a state, which may be malformed, holds at an address."""
    resources = state.get("resources")
    for resource in resources if isinstance(resources, list) else ():
        with suppress(LookupError, TypeError, AttributeError):
            if addresses.of_resource(resource) == address:
                yield from [{**each["attributes"]} for each in resource["instances"]]
