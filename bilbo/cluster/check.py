"""`check`: how package versions differ between the hosts, and from the local Python."""

from __future__ import annotations

import asyncio

from bilbo import services
from bilbo.cluster.compatibility import Checked, compared
from bilbo.cluster.reach import reach
from bilbo.cluster.work import Work
from bilbo.errors import BilboError
from bilbo.profile import building
from bilbo.record import Record


def check(record: Record, work: Work, python: str | None = None) -> Checked:
    """Asks every host of a cluster, and the local `python` (by default the one that runs bilbo).

    Raises BilboError if there is nothing to compare, RemoteError if no host answers.
    """
    from bilbo import remote

    spec = building.build(record.profile, record.name, record.region)
    plan = services.stage_plan(spec, record.inventory, record.token)
    hosts = {host.node.instance_id: host for host in plan.hosts()}
    nodes = [node for node in record.inventory.nodes() if node.instance_id in hosts]
    if spec.engine is None or not nodes:
        raise BilboError(
            f"cluster {record.name!r} has no engine, such as Dask, to compare versions of"
        )
    answers = asyncio.run(
        remote.software(
            [hosts[node.instance_id] for node in nodes], record.name, reach(work, record.name)
        )
    )
    failures = tuple(
        (node, answer)
        for node, answer in zip(nodes, answers, strict=True)
        if isinstance(answer, BilboError)
    )
    facts = {
        node.instance_id: answer
        for node, answer in zip(nodes, answers, strict=True)
        if not isinstance(answer, BilboError)
    }
    if not facts:
        raise failures[0][1]
    return compared(record, spec.engine, facts, python, failures)
