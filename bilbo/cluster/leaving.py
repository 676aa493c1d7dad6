"""Workers leave: chosen and retired by the engine's head, then let go by AWS; nobody else does.

Terraform only lowers a number. Which instances that ends is decided here, right before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bilbo import aws
from bilbo.cluster.reach import reach
from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.errors import RemoteError
from bilbo.model import SCHEDULER, ClusterSpec, Node, NodeGroup


@dataclass(frozen=True)
class Leaving:
    """The groups that have more instances than are asked for.

    `members` are a group's instances, and whether each is protected from scale-in.
    """

    groups: tuple[NodeGroup, ...]
    members: Mapping[str, Mapping[str, bool]]

    def surplus(self, group: NodeGroup) -> int:
        """How many must leave a group."""
        return len(self.members[group.name]) - group.count


def leaving(spec: ClusterSpec, work: Work) -> Leaving:
    """The groups of `spec` that AWS holds too many instances of. One call. Raises AwsError."""
    names = {group.instance_name: group.name for group in spec.workers}
    found = aws.group_members(work.target, names, spec.owner) if names else {}
    members = {names[name]: held for name, held in found.items()}
    surplus = [each for each in spec.workers if len(members.get(each.name, ())) > each.count]
    return Leaving(tuple(surplus), members)


def dismiss(
    spec: ClusterSpec, work: Work, head: Node | None, who: Leaving, *, force: bool = False
) -> None:
    """Retires as many workers of each group as it has too many, and lets AWS end those alone.

    Raises RemoteError when the head cannot be asked, or when a worker holds what no other can
    take; with `force` both are passed over, and what such workers hold is lost. Raises AwsError.
    """
    for group in who.groups:
        count = who.surplus(group)
        work.progress.say(f"Retire {count} worker{'s' * (count != 1)} of group '{group.name}'.")
    left = _retire(spec, work, head, who, force=force)
    for group in who.groups:
        members = who.members[group.name]
        go = [name for name in members if name in left]
        stay = [name for name in members if name not in left and not members[name]]
        aws.protect(work.target, group.instance_name, stay, True)
        aws.protect(work.target, group.instance_name, go, False)


def _retire(
    spec: ClusterSpec, work: Work, head: Node | None, who: Leaving, *, force: bool
) -> set[str]:
    """The instances that no worker of the cluster runs on any more."""
    if not who.groups:
        return set()
    try:
        answer = _ask_head(spec, work, head, who, force=force)
    except RemoteError as error:
        if force:
            work.progress.say(f"The workers are not retired ({error.what}): what they hold is lost")
            return {name for group in who.groups for name in _last(who, group)}
        raise RemoteError(
            f"the workers that would leave cluster {spec.name!r} could not be retired, and it "
            f"keeps its count: {error.what}",
            details=error.details,
            hint=f"`bilbo logs {spec.name} {_role(spec)}` may tell why. To let them go at the "
            "price of what they hold: --force",
        ) from error
    if answer.get("kept"):
        raise RemoteError(
            f"{len(answer['kept'])} worker(s) hold what no other worker can take, and cluster "
            f"{spec.name!r} keeps its count",
            details=tuple(answer["kept"]),
            hint="Release results (or end actors) that are no longer needed, or keep more workers. "
            "To let them go at the price of what they hold: --force",
        )
    return set(answer.get("left", ()))


def _role(spec: ClusterSpec) -> str:
    return spec.head.role if spec.head else SCHEDULER


def _ask_head(
    spec: ClusterSpec, work: Work, head: Node | None, who: Leaving, *, force: bool
) -> dict[str, Any]:
    from bilbo import remote

    engine = ENGINES[spec.engine] if spec.engine else None
    if engine is None or head is None:
        raise RemoteError("there is no head to ask")
    asked = {
        "groups": [
            {"hosts": sorted(who.members[group.name]), "leave": who.surplus(group)}
            for group in who.groups
        ],
        "must": force,
    }
    return asyncio.run(
        remote.run_program(
            head,
            spec.name,
            reach(work, spec.name),
            engine.leave,
            asked,
            executables=engine.head(spec, head).executables,
            environment=engine.notebook(head),
        )
    )


def _last(who: Leaving, group: NodeGroup) -> list[str]:
    """Those who leave where nobody can be asked: the unprotected ones first."""
    members = who.members[group.name]
    return sorted(members, key=lambda name: (members[name], name))[: who.surplus(group)]
