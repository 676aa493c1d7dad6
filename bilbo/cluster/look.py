"""The look: AWS, every host and the engine's head are asked at once what runs. Reads only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from dataclasses import replace

from bilbo import aws
from bilbo import record as states
from bilbo.cluster.ownership import own_of, same_account
from bilbo.cluster.reach import reach
from bilbo.cluster.whereabouts import addresses, aside
from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.errors import AwsError
from bilbo.model import WORKER, Node
from bilbo.profile import building
from bilbo.reality import RENEW, START, Reality, Told, judged
from bilbo.record import Record
from bilbo.status import ANOTHERS, RECLAIMED, HostStatus, InstanceDifference

# In all, whatever is dead; and for more hosts than are asked at once, which is less than elsewhere:
# a login must not take long only because of the others.
_SECONDS = 10.0
_MANY_SECONDS = 15.0
_AT_ONCE = 128
# Of that for a host's connection, so that a dead one is told with its own cause.
_CONNECTING = 0.6


def look(
    record: Record, work: Work, *, only: Collection[str] | None = None, others: bool = True
) -> Reality:
    """Returns what is of a cluster: its instances, its services, and who is in the engine's head.

    `only` are the instances whose hosts to ask, None for all. `others` has instances reported that
    the record does not know. Raises RecordError if the cluster is in another account. Takes ten
    seconds at most, or 15 for more than 128 hosts.
    """
    services = _services(record)
    nodes = [
        node
        for node in record.inventory.nodes()
        if node.instance_id in services and (only is None or node.instance_id in only)
        if record.status not in states.RESTING
    ]
    end = time.monotonic() + (_SECONDS if len(nodes) <= _AT_ONCE else _MANY_SECONDS)
    asked = aside(lambda: _instances(record, work, others=others))
    hosts = asyncio.run(_ask(record, work, nodes, asked, end - 0.5))
    instances, trouble = None, ""
    found: list[aws.Resource] = []
    try:
        found = asked.result(max(0.0, end - time.monotonic()))
        instances = {each.id: (each.state, each.public_ip) for each in found}
        instances |= _reclaimed(record, work, instances, end)
    except TooLate:
        trouble = "AWS did not answer in time"
    except AwsError as error:
        trouble = str(error)
    told = Told(
        {name: services[name] for name in services if only is None or name in only},
        record.members,
        instances,
        {node.instance_id: answer for node, answer in zip(nodes, hosts, strict=True)},
        paused=record.status in (states.PAUSING, states.PAUSED),
        ended=record.status == states.ENDED,
    )
    return judged(record.inventory, told, _others(record, work, found) if others else (), trouble)


def looked(before: Record | None, work: Work) -> Future[Reality]:
    """Looks aside, while Terraform plans; at nothing if there is no cluster, or one at rest."""
    if before is None or before.status in states.RESTING:
        nothing: Future[Reality] = Future()
        nothing.set_result(Reality())
        return nothing
    return aside(lambda: look(before, work, others=False))


def mend(seen: Reality, work: Work) -> list[str]:
    """Says what is about to be mended, a line for each machine whose service is started; returns
    the instances whose services have to be ended first."""
    for each in seen.to_mend(START, RENEW):
        node = each.node
        work.progress.say(f"{node.role} {node.instance_id} {'; '.join(each.wrong)}. Starting it.")
    return [each.node.instance_id for each in seen.to_mend(RENEW)]


def _services(record: Record) -> dict[str, str]:
    """Returns the service that should run on each instance."""
    from bilbo import services

    if not any(True for _ in record.inventory.nodes()):
        return {}
    spec = building.build(record.profile, record.name, record.region)
    plan = services.stage_plan(spec, record.inventory, record.token)
    return {each.node.instance_id: each.service_name for each in plan.hosts()}


def _reclaimed(
    record: Record, work: Work, there: Mapping[str, tuple[str, str]], end: float
) -> dict[str, tuple[str, str]]:
    """Returns the recorded spot instances that AWS has taken back. Asks only if one is missing."""
    lost = {n.instance_id for n in record.inventory.workers if n.spot} - there.keys()
    if not lost:
        return {}
    asked = aside(lambda: aws.reclaimed(work.target, record.name))
    taken = asked.result(max(0.0, end - time.monotonic()))
    return dict.fromkeys(lost & taken, (RECLAIMED, ""))


def _instances(record: Record, work: Work, *, others: bool) -> list[aws.Resource]:
    if others:
        same_account(record, work)
    return aws.machines(work.target, record.name)


async def _ask(
    record: Record,
    work: Work,
    nodes: Sequence[Node],
    asked: Future[list[aws.Resource]],
    end: float,
) -> list[HostStatus | str]:
    from bilbo import remote
    from bilbo.remote import Deadlines, HostEvent

    def unsaid(event: HostEvent) -> None:
        """Another stage may report its progress meanwhile."""

    async def where(node: Node) -> str:
        try:
            found = await asyncio.wrap_future(asked)
        except Exception:  # said once, by who waits for it in the end
            return ""
        return addresses(found).get(node.instance_id, "")

    seconds = end - time.monotonic()
    head = record.inventory.head
    engine = ENGINES[record.type] if record.type else None
    answers = await remote.service_status(
        nodes,
        record.name,
        replace(
            reach(work, record.name, where=where),
            on_event=unsaid,
            deadlines=Deadlines.all(_CONNECTING * seconds),
            limit=_AT_ONCE,
        ),
        rolls={head.instance_id: engine.roll(head)} if head and engine else {},
        seconds=seconds,
    )
    return [each if isinstance(each, HostStatus) else each.what for each in answers]


def _others(record: Record, work: Work, found: Sequence[aws.Resource]) -> list[InstanceDifference]:
    """Returns the instances with the cluster's tag that the record does not know."""
    known = {node.instance_id for node in record.inventory.nodes()}
    strangers = [each for each in found if each.id not in known]
    if not strangers:
        return []
    own = own_of(record, work)
    return [
        InstanceDifference(
            each.id,
            each.role or (WORKER if own.has(each) else "instance"),
            "unknown" if own.has(each) else ANOTHERS,
            each.public_ip,
        )
        for each in strangers
    ]
