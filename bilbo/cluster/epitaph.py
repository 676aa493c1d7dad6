"""Why a cluster ended itself: its machines note it before they power off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone

from bilbo.cluster.reach import reach
from bilbo.cluster.resting import BY_ITSELF, singles
from bilbo.cluster.work import Work
from bilbo.model import Inventory, Node
from bilbo.present.times import local_time
from bilbo.text import visible

# Written by the watcher into the cluster's folder on a machine: {"at": EPOCH, "why": TEXT}.
_FILE = "ended"
_SECONDS = 10.0
_LONGEST = 300


def say_why(name: str, rest: Mapping[str, str], found: Inventory, work: Work) -> None:
    """Says why a cluster, whose record told of its `rest`, had ended itself, if a machine of it
    has noted that. A machine that does not answer has not."""
    if rest.get("why") != BY_ITSELF:
        return
    said: dict[str, bytes] = {}

    def take(node: Node, data: bytes, is_stderr: bool) -> None:
        if not is_stderr:
            said[node.instance_id] = said.get(node.instance_id, b"") + data

    from bilbo import remote

    asyncio.run(
        remote.run_command(
            singles(found),
            lambda node: remote.in_sh(f"cat ~/.bilbo/{name}/{node.instance_id}/{_FILE}"),
            reach(replace(work, timeout=_SECONDS), name),
            on_output=take,
        )
    )
    notes = sorted(filter(None, map(noted, said.values())))
    if notes:
        at, why = notes[-1]
        work.progress.say(f"The cluster had ended itself at {local_time(at)}: {why}")


def noted(data: bytes) -> tuple[str, str] | None:
    """Returns when, in ISO 8601, and why, as a machine has noted it; None if it is no such note."""
    try:
        told = json.loads(data)
        at, why = float(told["at"]), str(told["why"])[:_LONGEST]
        when = datetime.fromtimestamp(at, timezone.utc).isoformat()
    except (ValueError, LookupError, TypeError, OverflowError, OSError, RecursionError):
        return None
    return when, visible(why)
