"""The members that have joined the engine's head, as its host reports them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from bilbo.remote.terms import HostFailure


class Members:
    """The present members by name with their addresses; waits for names."""

    def __init__(self) -> None:
        self._present: dict[str, str] = {}
        self._waiting: set[asyncio.Event] = set()
        self._closed = ""

    def update(self, joined: Mapping[str, str], left: Collection[str]) -> None:
        """Apply a change."""
        for name in left:
            self._present.pop(name, None)
        self._present.update(joined)
        self._wake()

    def close(self, cause: str) -> None:
        """End all updates: whoever waits fails with this cause."""
        self._closed = cause
        self._wake()

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    def addresses(self, names: Collection[str]) -> frozenset[str]:
        """The current addresses of these members."""
        return frozenset(self._present[name] for name in names if name in self._present)

    def missing(self, names: Collection[str], stale: Collection[str] = ()) -> list[str]:
        """The names that are not present, or only at a `stale` address."""
        return [name for name in names if self._present.get(name) in {None, *stale}]

    async def wait(self, names: Collection[str], stale: Collection[str]) -> None:
        """Wait until all are present at addresses that are not `stale`. Raises HostFailure if
        updates end before."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while self.missing(names, stale):
                if self._closed:
                    raise HostFailure(self._closed)
                event.clear()
                await event.wait()
        finally:
            self._waiting.discard(event)
