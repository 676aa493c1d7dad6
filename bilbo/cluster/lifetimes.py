"""What the machines of a cluster with a lifetime must know: who decides when it ends, and when."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from bilbo import services
from bilbo.cluster.launches import closed_groups
from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.errors import AwsError
from bilbo.model import NOTEBOOK_PORT, WORKER, ClusterSpec, HostPlan, Inventory, Node, StagePlan
from bilbo.record import NEVER, Record

# Where the watcher of the machine that decides listens, for members of the cluster.
WATCH_PORT = 8799
_PERIOD = 60.0  # seconds between two looks; less where so much would be too late
_LOOKS = 4  # within the shortest limit


def watched(plan: StagePlan, spec: ClusterSpec, record: Record, work: Work) -> StagePlan:
    """Returns the plan with what the watchers must know; the same without a lifetime.

    A worker gets no watcher before AWS is seen to launch no other in its place: it would be
    replaced for ever. Asks AWS for the groups. A call.
    """
    leader = record.inventory.head or record.inventory.notebook
    if spec.lifetime is None or leader is None:
        return plan
    closed = _closed(spec, work)

    def one(host: HostPlan) -> HostPlan:
        node = host.node
        if node.role == WORKER and node.group not in closed:
            return host
        settings = _settings(spec, record.inventory, leader, node)
        watch = partial(_now, settings, spec.lifetime.ttl if spec.lifetime else None, record)
        return replace(host, watches={**host.watches, "deciding": watch})

    return replace(
        plan,
        head=one(plan.head) if plan.head else None,
        notebook=one(plan.notebook) if plan.notebook else None,
        workers=tuple(map(one, plan.workers)),
    )


def begins_anew(record: Record) -> bool:
    """Whether the cluster's time begins when it is ready: for the first time, or after its end."""
    if record.ready_time is None:
        return True
    return record.ends not in (None, NEVER) and _left(record) <= 0


def _left(record: Record) -> float:
    """Returns the seconds until the cluster's time is over."""
    end = datetime.fromisoformat(str(record.ends))
    return (end - datetime.now(timezone.utc)).total_seconds()


def _now(settings: Mapping[str, Any], ttl: int | None, record: Record) -> Mapping[str, Any]:
    """Returns the settings with what is left, whenever that is asked."""
    left: float | None = ttl
    if not begins_anew(record) and record.ends not in (None, NEVER):
        left = _left(record)
    return {**settings, "left": left, "never": record.ends == NEVER}


def _settings(spec: ClusterSpec, found: Inventory, leader: Node, node: Node) -> dict[str, Any]:
    assert spec.lifetime
    ends, leads = spec.lifetime, node == leader
    limits = [each / _LOOKS for each in (ends.ttl, ends.idle) if each]
    engine = ENGINES[spec.engine] if spec.engine and found.head else None
    doors = [leader.ssh_port, *(engine.ports if engine else (NOTEBOOK_PORT,))]
    notebook = found.notebook
    return {
        "cluster": spec.name,
        "name": _name(node),
        "leads": leads,
        "led": leads and sum(1 for _ in found.nodes()) > 1,
        "leader": {
            "name": _name(leader),
            "host": leader.private_ip,
            "port": WATCH_PORT,
            "doors": doors,
        },
        # Whom it must have heard before the cluster can be idle.
        "members": [_name(notebook)] if leads and notebook and notebook != node else [],
        "period": min([_PERIOD, *limits]),
        "idle": ends.idle,
        "follow": ends.follow,
        "setup": ends.unreached,
        "engine": engine.name if engine and leads else None,
        "jupyter": services.jupyter_place(node) if node == notebook else None,
    }


def _name(node: Node) -> str:
    return f"{node.role} {node.instance_id}"


def _closed(spec: ClusterSpec, work: Work) -> Collection[str]:
    """Returns the worker groups in which AWS launches nothing by itself; says which are not so."""
    try:
        closed = closed_groups(spec, work)
    except AwsError as error:
        work.progress.say(str(error))
        closed = frozenset()
    for group in spec.workers:
        if group.name not in closed:
            work.progress.say(
                f"AWS may launch workers of group '{group.name}' by itself: they do not end by "
                "themselves until bilbo works on this cluster again."
            )
    return closed
