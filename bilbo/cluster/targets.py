"""TARGET: which instances of a cluster a command works on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from bilbo.errors import BilboError, UsageError
from bilbo.model import HEAD, SCHEDULER, WORKER, Inventory, Node
from bilbo.profile.places import shown
from bilbo.record import Record


def _head(inventory: Inventory, role: str) -> Sequence[Node | None]:
    return [inventory.head] if inventory.head and inventory.head.role == role else []


ROLES: Mapping[str, Callable[[Inventory], Sequence[Node | None]]] = {
    "notebook": lambda inventory: [inventory.notebook],
    "scheduler": lambda inventory: _head(inventory, SCHEDULER),
    "head": lambda inventory: _head(inventory, HEAD),
    "workers": lambda inventory: inventory.workers,
    "all": lambda inventory: list(inventory.nodes()),
}

_NUMBER = re.compile(r"[0-9]{1,6}")
# What can only be a TARGET, never a command: a number, an instance id, an address.
_LIKE_A_TARGET = re.compile(r"[0-9]+|i-[0-9a-f]+|[0-9]+(\.[0-9]+){3}|[0-9a-f]*:[0-9a-f:]+")


def resolve(record: Record, target: str | None, otherwise: str | None = None) -> tuple[Node, ...]:
    """Returns the instances that `target` names, ordered by number; at least one.

    A target is a number from `desc`, a role of `ROLES`, a worker group (its name, or `worker/` and
    its name), an instance id or an address. None means `otherwise`, or the first of notebook, head
    and workers. Raises UsageError that lists the valid targets, BilboError if the cluster has no
    instances.
    """
    nodes = list(record.inventory.nodes())
    if not nodes:
        raise BilboError(
            f"cluster {record.name!r} has no instances",
            hint="To create them, run `bilbo create` with its profile.",
        )
    if target is None:
        return resolve(record, otherwise) if otherwise else (nodes[0],)
    found = _named(record.inventory, target)
    if not found:
        raise _no_such(record, target, len(nodes))
    return found


def only(record: Record, target: str | None) -> Node:
    """As `resolve`, for a single instance. Raises UsageError for several."""
    found = resolve(record, target)
    if len(found) > 1:
        numbers = _numbers(record.inventory, found)
        raise UsageError(
            f"{target!r} names {len(found)} instances of cluster {record.name!r}; this command "
            "takes one",
            hint=f"Choose one by its number: {numbers}",
        )
    return found[0]


def split(record: Record, words: Sequence[str]) -> tuple[tuple[Node, ...], str]:
    """Splits `[TARGET] [--] COMMAND…` into instances and a command.

    The first word is a TARGET if it names instances of this cluster, can only be a TARGET, or is
    followed by `--`; a leading `--` means that there is none. The command's words are joined with
    spaces, as ssh does. Raises as `resolve` does, and UsageError without a command.
    """
    target = None
    rest = list(words)
    if rest and rest[0] != "--" and _is_target(record.inventory, rest):
        target = rest.pop(0)
    nodes = resolve(record, target)
    separated = rest[:1] == ["--"]
    command = " ".join(rest[1:] if separated else rest)
    if not command.strip():
        where = f" {target}" if target else ""
        raise UsageError(
            "no command to run",
            hint=f"Write `bilbo rcmd {record.name}{where} COMMAND`; for a shell, use "
            f"`bilbo ssh {record.name}{where}`.",
        )
    if command.startswith("-"):
        raise UsageError(
            f"'{shown(command, 40)}' is neither a TARGET of cluster {record.name!r} nor a command",
            hint="Put bilbo's own options before the cluster's name.",
        )
    return nodes, command


def _is_target(inventory: Inventory, words: Sequence[str]) -> bool:
    first = words[0]
    return (
        not first.strip()
        or first in ROLES
        or words[1:2] == ["--"]
        or _LIKE_A_TARGET.fullmatch(first) is not None
        or bool(_named(inventory, first))
    )


def _named(inventory: Inventory, target: str) -> tuple[Node, ...]:
    """Returns the instances with that number, role, group, id or address; empty if none match."""
    if target in ROLES:
        return tuple(node for node in ROLES[target](inventory) if node)
    group = target.removeprefix(f"{WORKER}/")
    if group in groups(inventory):
        return tuple(node for node in inventory.workers if node.group == group)
    nodes = list(inventory.nodes())
    if _NUMBER.fullmatch(target):
        return tuple(nodes[int(target) - 1 : int(target)] if int(target) else ())
    return tuple(
        node
        for node in nodes
        if target
        and target in (node.instance_id, node.public_ip, node.private_ip, node.private_dns_name)
    )


def groups(inventory: Inventory) -> list[str]:
    """Returns the names of the worker groups that have instances, ordered by number."""
    return list(dict.fromkeys(node.group for node in inventory.workers))


def _no_such(record: Record, target: str, count: int) -> UsageError:
    if not target.strip():
        what = "TARGET is empty"
    elif target in ROLES:
        what = f"cluster {record.name!r} has no {target}"
    else:
        what = f"cluster {record.name!r} has no instance '{shown(target, 40)}'"
    roles = [role for role in ROLES if _named(record.inventory, role)]
    roles += [name for name in groups(record.inventory) if name != WORKER]
    numbers = f"a number from 1 to {count}" if count > 1 else "1"
    return UsageError(
        what,
        hint=f"TARGET is {numbers}, one of {', '.join(roles)}, an instance id or an address; "
        f"`bilbo desc {record.name}` shows them.",
    )


def _numbers(inventory: Inventory, some: Sequence[Node]) -> str:
    listed = [str(n) for n, node in enumerate(inventory.nodes(), start=1) if node in some]
    return ", ".join(listed[:20]) + (", …" if len(listed) > 20 else "")
