"""How AWS differs from a record. Reads only."""

from __future__ import annotations

from bilbo import aws
from bilbo.cluster.ownership import own_of, same_account
from bilbo.cluster.work import Work
from bilbo.model import WORKER
from bilbo.record import RESTING, Record
from bilbo.status import ANOTHERS, InstanceDifference


def differences(record: Record, work: Work) -> list[InstanceDifference]:
    """Returns how the cluster's instances in AWS differ from the record. Raises AwsError and
    RecordError."""
    same_account(record, work)
    own = own_of(record, work)
    there = {each.id: each for each in aws.machines(work.target, record.name)}
    at_rest = record.status in RESTING
    found = []
    for node in record.inventory.nodes():
        resource = there.pop(node.instance_id, None)
        if resource is None:
            found.append(InstanceDifference(node.instance_id, node.role, "gone"))
        elif at_rest and resource.state in ("stopped", "stopping"):
            continue
        elif at_rest or resource.state != "running":
            found.append(InstanceDifference(node.instance_id, node.role, resource.state))
        elif resource.public_ip != node.public_ip:
            moved = InstanceDifference(node.instance_id, node.role, "moved", resource.public_ip)
            found.append(moved)
    for resource in there.values():
        state = "unknown" if own.has(resource) else ANOTHERS
        role = resource.role or (WORKER if own.has(resource) else "instance")
        found.append(InstanceDifference(resource.id, role, state, resource.public_ip))
    return found
