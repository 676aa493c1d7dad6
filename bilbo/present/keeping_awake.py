"""What keeps a cluster with a lifetime awake, or when it would end, as its watchers say. Pure."""

from __future__ import annotations

from typing import Any

from bilbo.lifetime import words
from bilbo.model import HEADS, NOTEBOOK
from bilbo.reality import MachineReality, Reality
from bilbo.status import Watch


def awake_lines(seen: Reality) -> list[str]:
    """Returns what keeps the cluster awake, or when it would end; empty without a lifetime."""
    found = _decides(seen)
    if found is None:
        return []
    lines = []
    if found.awake:
        lines += ["Kept awake:", *(f"  {each}" for each in found.awake)]
    if found.ends_in is not None:
        lines.append(f"As things are it ends in {words(found.ends_in)}: {found.why}.")
    elif not found.awake:
        lines.append("Nothing ends it as things are.")
    for each in seen.machines:
        if each.status and each.status.watch and (why := each.status.watch.trouble):
            lines.append(f"  {each.node.role} {each.node.instance_id}: {why}")
    return lines


def awake_document(seen: Reality) -> dict[str, Any] | None:
    """Returns the same for programs, times in seconds; None without a lifetime."""
    found = _decides(seen)
    if found is None:
        return None
    return {
        "by": list(found.awake),
        "ends_in": found.ends_in,
        "why": found.why or None,
        "seen": found.age,
    }


def _decides(seen: Reality) -> Watch | None:
    """Returns what the watcher of the machine that decides has found: the head's, or the
    notebook's where there is no head."""

    def watch(roles: tuple[str, ...]) -> list[MachineReality]:
        return [each for each in seen.machines if each.node.role in roles]

    for each in watch(HEADS) or watch((NOTEBOOK,)):
        return each.status.watch if each.status else None
    return None
