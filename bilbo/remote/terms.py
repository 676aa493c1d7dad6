"""Types that all of `remote` shares: deadlines, events, failures, and a call's settings."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from bilbo.errors import RemoteError
from bilbo.model import Node
from bilbo.remote.hostkeys import KnownHosts

_OBJECTS_BETWEEN_COLLECTIONS = 100_000
# An agent's beginning costs as much CPU; hosts of the stand-in share one machine's.
_GREETING_PER_HOST = 0.1
STOP_GRACE = 10.0  # seconds that a service has to end before it is killed

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Deadlines:
    """How long one host may take for a stage, in seconds since its turn began.

    `connect` covers all attempts to reach the host and log in, `start` each quick request
    (measuring, starting a process), `ready` the wait for a started service, `init` the profile's
    own commands. `new_key` is how long a refused key is retried: on a new instance the SSH server
    may be up before the key is in place. `greeting` is how long the login files may take until
    bilbo's agent begins.
    """

    connect: float = 180.0
    start: float = 60.0
    ready: float = 120.0
    init: float = 900.0
    new_key: float = 30.0
    greeting: float = 10.0

    @classmethod
    def all(cls, seconds: float) -> Deadlines:
        """The same deadline for every stage, as `--timeout` asks."""
        new_key, greeting = min(seconds, cls.new_key), min(seconds, cls.greeting)
        return cls(seconds, seconds, seconds, seconds, new_key, greeting)


@dataclass(frozen=True)
class HostEvent:
    """Progress of one host: it has reached `stage`, or has something to report.

    `milestone` is the one of `model.MILESTONES`, or FAILED, that it has reached with it.
    """

    node: Node
    stage: str
    message: str
    milestone: str = ""


class HostFailure(RemoteError):
    """One host failed. `stage` is empty where the caller knows it better; `details` is the tail of
    the log that says why; `lasts` as in BilboError."""

    quotes = True

    def __init__(
        self,
        what: str,
        *,
        stage: str = "",
        hint: str = "",
        log: Iterable[str] = (),
        lasts: bool = False,
    ) -> None:
        super().__init__(what, hint=hint, details=tuple(log))
        self.stage = stage
        self.lasts = lasts


class NotJoined(HostFailure):
    """A host's service runs, but has not joined the engine's head in time."""


def own_path(node: Node) -> Path:
    """The private key's path as the profile gives it, `~` expanded."""
    return Path(node.ssh_private_key).expanduser()


def ignore(event: HostEvent) -> None:
    """Ignores progress."""


async def nowhere_else(node: Node) -> str:
    """Knows no other address of a node."""
    return ""


@dataclass(frozen=True)
class Remote:
    """How to reach hosts.

    `key_path` finds a node's private key; at most `limit` connections are open at once. `where` is
    asked once for each node that cannot be connected to: the address to go on with, or empty. A
    wrong one does no harm, because host keys belong to instances.
    """

    known_hosts: KnownHosts
    deadlines: Deadlines = Deadlines()
    on_event: Callable[[HostEvent], None] = ignore
    key_path: Callable[[Node], Path] = own_path
    where: Callable[[Node], Awaitable[str]] = nowhere_else
    limit: int = 256

    def at_once(self, hosts: int) -> Remote:
        """The same for so many hosts at once: with each more, the agents may begin later."""
        more = _GREETING_PER_HOST * max(0, min(hosts, self.limit) - 1)
        greeting = self.deadlines.greeting + more
        return replace(self, deadlines=replace(self.deadlines, greeting=greeting))


@contextlib.contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Within it, garbage is collected less often. Hundreds of connections are many long-lived
    objects, and scanning them again and again would be a quarter of the client's work."""
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], _OBJECTS_BETWEEN_COLLECTIONS), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def on_each(
    items: Sequence[Item], limit: int, work: Callable[[Item], Awaitable[Result]]
) -> tuple[Result, ...]:
    """Runs `work` on every item, at most `limit` at once; starts and returns in their order.

    `work` must not raise for a failure of its item. A cancellation reaches all of them.
    """
    results: dict[int, Result] = {}
    waiting = iter(enumerate(items))

    async def slot() -> None:
        for number, item in waiting:
            results[number] = await work(item)

    with _collecting_seldom():
        await asyncio.gather(*(slot() for _ in range(min(limit, len(items)))))
    return tuple(results[number] for number in range(len(items)))
