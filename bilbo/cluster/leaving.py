"""Removes workers: the engine's head chooses and retires them, then AWS ends exactly those.

Terraform only lowers a number. Which instances that ends is decided here, just before.
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
from bilbo.model import SCHEDULER, ClusterSpec, Inventory, Node, NodeGroup


@dataclass(frozen=True)
class Leaving:
    """The groups that have more instances than specified.

    `members` says for each group's instances whether they are protected from scale-in.
    """

    groups: tuple[NodeGroup, ...]
    members: Mapping[str, Mapping[str, bool]]

    def surplus(self, group: NodeGroup) -> int:
        """How many workers must leave a group."""
        return len(self.members[group.name]) - group.count


def leaving(spec: ClusterSpec, work: Work) -> Leaving:
    """Returns the groups of `spec` with too many instances in AWS. One call. Raises AwsError."""
    names = {group.instance_name: group.name for group in spec.workers}
    found = aws.group_members(work.target, names, spec.owner) if names else {}
    members = {names[name]: held for name, held in found.items()}
    surplus = [each for each in spec.workers if len(members.get(each.name, ())) > each.count]
    return Leaving(tuple(surplus), members)


def dismiss(
    spec: ClusterSpec,
    work: Work,
    there: Inventory,
    who: Leaving,
    *,
    force: bool = False,
    dead: bool = False,
) -> None:
    """Retires each group's surplus workers of those that are `there`, and lets AWS end only those.

    Raises RemoteError if the head does not answer or a worker holds results that no other worker
    can take; `force` ignores both, and those results are lost. A head that is known to be `dead` is
    not asked: nothing is left to lose. Raises AwsError.
    """
    for group in who.groups:
        count = who.surplus(group)
        work.progress.say(f"Retire {count} worker{'s' * (count != 1)} of group '{group.name}'.")
    left = _lasts(who) if dead else _retire(spec, work, there.head, who, force=force)
    # Their hosts start again what ended, until they are told not to; AWS ends what does not answer.
    nodes = [node for node in there.workers if node.instance_id in left]
    if nodes:
        from bilbo import remote

        asyncio.run(remote.stop_services(nodes, spec.name, reach(work, spec.name)))
    for group in who.groups:
        members = who.members[group.name]
        go = [name for name in members if name in left]
        stay = [name for name in members if name not in left and not members[name]]
        aws.protect(work.target, group.instance_name, stay, True)
        aws.protect(work.target, group.instance_name, go, False)


def _retire(
    spec: ClusterSpec, work: Work, head: Node | None, who: Leaving, *, force: bool
) -> set[str]:
    """Retires workers, and returns the instances that no longer run one."""
    if not who.groups:
        return set()
    try:
        answer = _ask_head(spec, work, head, who, force=force)
    except RemoteError as error:
        if force:
            work.progress.say(f"Workers not retired ({error.what}); their results are lost.")
            return _lasts(who)
        raise RemoteError(
            f"cannot retire workers of cluster {spec.name!r}, which keeps its count: {error.what}",
            details=error.details,
            hint=f"`bilbo logs {spec.name} {_role(spec)}` may show why. To remove them and lose "
            "their results: --force",
        ) from error
    if answer.get("kept"):
        raise RemoteError(
            f"{len(answer['kept'])} worker(s) hold what no other worker can take; cluster "
            f"{spec.name!r} keeps its count",
            details=tuple(answer["kept"]),
            hint="Release results (or end actors) that you no longer need, or keep more workers. "
            "To remove the workers and lose what they hold: --force",
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
        raise RemoteError("the cluster has no head")
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


def _lasts(who: Leaving) -> set[str]:
    return {name for group in who.groups for name in _last(who, group)}


def _last(who: Leaving, group: NodeGroup) -> list[str]:
    """Returns the instances to remove if the head does not answer: the unprotected ones first."""
    members = who.members[group.name]
    return sorted(members, key=lambda name: (members[name], name))[: who.surplus(group)]
