"""Prices for a command: those in bilbo's home, asked for again aside where they are old."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress
from dataclasses import replace

from bilbo import aws, prices
from bilbo.cluster.whereabouts import aside
from bilbo.cluster.work import Work
from bilbo.errors import BilboError
from bilbo.prices import Prices


def update(region: str, work: Work) -> Prices:
    """Asks AWS for a region's prices and stores them. Raises AwsError, OSError."""
    found = aws.price_list(replace(work.target, region=region))
    prices.save(work.store.home, found)
    return found


class Priced:
    """The prices of a region. Old ones are asked for again while the command does other things;
    nothing waits for them unless it says how long. Who may not ask keeps what there is."""

    def __init__(self, region: str, work: Work) -> None:
        self._held = prices.load(work.store.home, region)
        self._asked: Future[Prices] | None = None
        if self._held.old():
            target, home = replace(work.target, region=region), work.store.home

            def ask() -> Prices:
                found = aws.price_list(target, optional=True)
                prices.save(home, found)
                return found

            self._asked = aside(ask)

    def now(self, wait: float = 0.0) -> Prices:
        """The prices as they are known now, or in `wait` seconds at most."""
        if self._asked and (wait or self._asked.done()):
            with suppress(BilboError, OSError, TooLate):
                self._held = self._asked.result(wait)
            if self._asked.done():
                self._asked = None
        return self._held
