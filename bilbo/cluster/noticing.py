"""Notices that a cluster has ended itself, or was stopped in AWS, since bilbo last worked on it."""

from __future__ import annotations

from contextlib import suppress

from bilbo import aws, reality
from bilbo import record as states
from bilbo.cluster.ownership import stored
from bilbo.cluster.resting import BY_ITSELF, as_told, at_rest
from bilbo.cluster.work import Work
from bilbo.errors import RecordError
from bilbo.profile import building
from bilbo.record import Record, now

# While bilbo is at work on a cluster, or was killed at it, its own next step finds out.
_SETTLED = (states.STARTING, states.READY, states.PARTIAL, states.FAILED)


def noticed(record: Record, work: Work) -> Record:
    """Returns the record of a cluster as `paused` or `ended` if AWS has no machine of it that runs;
    else the same. One call. Raises AwsError."""
    if record.status not in _SETTLED or not any(True for _ in record.inventory.nodes()):
        return record
    rest = reality.rest_of(record.inventory, aws.endings(work.target, record.name, record.owner))
    if rest is None:
        return record
    spec = building.build(record.profile, record.name, record.region)
    counts = {group.name: group.count for group in spec.workers}
    status = states.ENDED if rest.ended else states.PAUSED
    why = BY_ITSELF if rest.by_itself else "in AWS, not by bilbo"
    # AWS does not say when a machine powered itself off.
    before = "" if rest.at else now()
    return at_rest(record, status, counts, {"since": rest.at, "before": before, "why": why})


def told(record: Record, work: Work) -> Record:
    """Returns the record of a cluster as its shared state has it, if a team-mate has paused or
    resumed it since; else the same. Raises AwsError."""
    spec = building.build(record.profile, record.name, record.region)
    if spec.state is None:
        return record
    return as_told(record, stored(work.target, work.terraform(spec.name), spec.name, spec.state))


def remember(before: Record, found: Record, work: Work) -> None:
    """Saves what was `noticed`, unless another command works on the cluster."""
    if found is before:
        return
    with suppress(RecordError), work.store.lock(found.name, "look"):
        if work.store.load(found.name) == before:
            work.store.save(found)
