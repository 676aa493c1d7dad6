"""Asks hosts what has become of their services, all at once and within a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bilbo.model import MembersPage, Node
from bilbo.remote.agent_session import Event, Session
from bilbo.remote.answers import is_watch
from bilbo.remote.connection import PrivateKeys, connected
from bilbo.remote.host import page_fields
from bilbo.remote.terms import HostFailure, Remote, on_each
from bilbo.status import HostStatus, ServiceStatus, Watch

LINES = 5  # of each service's log
_HEAD_SECONDS = 3.0  # for the head's list of members


async def service_status(
    nodes: Sequence[Node],
    cluster: str,
    remote: Remote,
    *,
    rolls: Mapping[str, MembersPage] | None = None,
    seconds: float = 10.0,
) -> tuple[HostStatus | HostFailure, ...]:
    """What each node tells of its services, or why it tells nothing, all within `seconds`.

    `rolls` has, for the instance id of the head's node, the page that lists its members.
    """
    end = time.monotonic() + seconds
    keys = PrivateKeys()

    async def one(node: Node) -> HostStatus | HostFailure:
        asking = _ask(node, cluster, remote, keys, (rolls or {}).get(node.instance_id), end)
        try:
            return await asyncio.wait_for(asking, timeout=max(0.0, end - time.monotonic()))
        except asyncio.TimeoutError:
            return HostFailure(f"it did not answer within {seconds:.0f} s")
        except HostFailure as failure:
            return failure

    return await on_each(nodes, remote.limit, one)


async def _ask(
    node: Node,
    cluster: str,
    remote: Remote,
    keys: PrivateKeys,
    roll: MembersPage | None,
    end: float,
) -> HostStatus:
    async with connected(node, remote, keys) as connection:
        session = await Session.open(connection, cluster, node.instance_id, remote.deadlines)
        asked = _roll_fields(roll) if roll else None
        left = max(0.1, end - time.monotonic())
        return _status(await session.ask("status", left, lines=LINES, roll=asked))


def _roll_fields(roll: MembersPage) -> dict[str, Any]:
    return {
        "page": {**(page_fields(roll.page) or {}), "seconds": _HEAD_SECONDS},
        "items": list(roll.items),
        "name": roll.name,
        "address": roll.address,
    }


def _status(event: Event) -> HostStatus:
    """An agent's answer, whose fields have been checked."""
    members = event.get("members")
    return HostStatus(
        services=tuple(
            ServiceStatus(
                name=row["service"],
                running=row["running"],
                code=row["code"],
                age=row.get("age"),
                rebooted=row.get("rebooted", False),
                restarting=row.get("restarting", False),
                restarts=row.get("restarts", 0),
                unsupervised=row.get("unsupervised", False),
                log=tuple(row.get("log", ())),
            )
            for row in event["services"]
        ),
        members=None if members is None else frozenset(members),
        reclaimed=event.get("reclaimed") is True,
        watch=_watch(event.get("watch")),
    )


def _watch(found: Any) -> Watch | None:
    """What the watcher found, if that is what it is: it is no reason to know nothing else."""
    return (
        Watch(
            found["age"],
            tuple(found["awake"]),
            found["ends_in"],
            found["why"],
            found["trouble"],
        )
        if is_watch(found)
        else None
    )
