"""When a cluster ends by itself, and how, in words. Pure."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from bilbo.lifetime import DESTROY, Lifetime, lifetime, words
from bilbo.model import ClusterSpec
from bilbo.present.times import local_time
from bilbo.record import NEVER, Record

HOW_TO_SET = '"lifetime" in the profile, or -p lifetime.ttl=8h'


def ending(spec: ClusterSpec) -> str:
    """Returns what `plan` and `create` say: when the cluster ends at the latest, and how. One line
    if nothing ends it."""
    ends = spec.lifetime
    if ends is None:
        return f"Nothing ends this cluster by itself. To have it end: {HOW_TO_SET}"
    lines = [f"Ends by itself {_when(ends)}; then {_then(ends, spec)}."]
    more = f"A machine that bilbo has not reached {words(ends.unreached)} after its first boot"
    lines.append(f"{more} powers off.")
    if (spec.head or spec.notebook) and sum(1 for _ in spec.groups()) > 1:
        first = "head" if spec.head else "notebook"
        lines.append(f"A machine that cannot reach the {first} for {words(ends.follow)} ends, too.")
    return "\n".join(lines)


def _when(ends: Lifetime) -> str:
    """When it ends, in words that follow "ends"."""
    when = [f"{words(ends.ttl)} after it is ready, at the latest"] if ends.ttl else []
    when += [f"once idle for {words(ends.idle)}"] if ends.idle else []
    return ", or ".join(when) or "only if bilbo does not reach it"


def _then(ends: Lifetime, spec: ClusterSpec) -> str:
    """What happens to the machines."""
    single = [group.role for group in (spec.notebook, spec.head) if group]
    if ends.then == DESTROY or not single:
        return "all of its machines are terminated"
    stop = f"{' and '.join(single)} {'stop' if len(single) > 1 else 'stops'}"
    workers = ", workers are terminated" if spec.workers else ""
    return f"{stop} (disks stay, and are billed){workers}"


def end_of(record: Record) -> str:
    """Returns when a cluster ends, for `desc` and after `create`; empty without a lifetime."""
    ends = _lifetime(record)
    if ends is None:
        return ""
    if record.ends == NEVER:
        return "never (`bilbo extend`)"
    if record.ends:
        idle = f", or once idle for {words(ends.idle)}" if ends.idle else ""
        return f"{local_time(record.ends)} at the latest{idle}; then: {ends.then}"
    if ends.idle:
        return f"once idle for {words(ends.idle)}; then: {ends.then}"
    return "never" if record.ready_time else f"{_when(ends)}; then: {ends.then}"


def end_cell(record: Record) -> str:
    """Returns the cell of `clusters`' table: `5h30m`, `idle 30m`, `due`, or `-`."""
    ends = _lifetime(record)
    if record.ends == NEVER:
        return "-"
    if record.ends:
        left = datetime.fromisoformat(record.ends) - datetime.now(timezone.utc)
        return words(left.total_seconds()) if left.total_seconds() > 0 else "due"
    return f"idle {words(ends.idle)}" if ends and ends.idle else "-"


def ending_document(spec: ClusterSpec) -> dict[str, Any] | None:
    """Returns the lifetime as a review's JSON has it, in seconds; None if nothing ends it."""
    ends = spec.lifetime
    if ends is None:
        return None
    return {
        "ttl": ends.ttl,
        "idle": ends.idle,
        "then": ends.then,
        "unreached": ends.unreached,
        "follow": ends.follow,
    }


def _lifetime(record: Record) -> Lifetime | None:
    return lifetime(record.profile.get("lifetime"))
