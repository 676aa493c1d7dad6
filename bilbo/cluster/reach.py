"""How to connect to the hosts of a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.model import HEADS, Node
from bilbo.profile.naming import expand_key_path

if TYPE_CHECKING:
    from bilbo.remote import Remote


def reach(
    work: Work,
    name: str,
    engine: str | None = None,
    where: Callable[[Node], Awaitable[str]] | None = None,
) -> Remote:
    """Returns how to connect to a cluster's hosts: keys, host keys, deadlines and progress.

    With an `engine`, it reports when it waits for the dashboard. `where` is as in `Remote`.
    """
    from bilbo.remote import Deadlines, HostEvent, KnownHosts, Remote
    from bilbo.remote.terms import nowhere_else

    waiting: list[bool] = []

    def tell(event: HostEvent) -> None:
        if engine and event.node.role in HEADS and event.stage == "ready" and not waiting:
            waiting.append(True)
            work.progress.say(f"Waiting for {ENGINES[engine].title} dashboard ready.")
        node = event.node
        work.progress.host(node.instance_id, node.role, event.stage, event.message, event.milestone)

    return Remote(
        known_hosts=KnownHosts(work.store.folder(name) / "known_hosts"),
        deadlines=Deadlines() if work.timeout is None else Deadlines.all(work.timeout),
        on_event=tell,
        key_path=lambda node: expand_key_path(node.ssh_private_key, work.store.home),
        where=where or nowhere_else,
    )
