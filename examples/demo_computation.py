"""Estimates pi on a Dask cluster by throwing darts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

TASKS = 40
POINTS = 1_000_000
_CONNECT_SECONDS = 15
_WORKERS_SECONDS = 30


def estimate_pi(scheduler: str, workers: int, progress: Callable[[int], None]) -> Counter[str]:
    """Throws TASKS * POINTS darts at a square, on `workers` workers of the scheduler.

    Returns the number of darts that each worker threw, by the worker's name, and under `inside` the
    number that hit the circle in the square: a share of pi / 4. Calls `progress` with the number of
    finished tasks. Raises Dask's errors if the cluster does not answer or a task fails.
    """
    from distributed import Client, as_completed

    # Errors are raised; Dask's logger would add a traceback.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    computed: Counter[str] = Counter()
    with Client(scheduler, timeout=_CONNECT_SECONDS) as client:
        client.wait_for_workers(workers, timeout=_WORKERS_SECONDS)
        client.upload_file(__file__)  # so that the workers can import `throw`
        throws = client.map(throw, range(TASKS), pure=False)
        for done, (_, (worker, inside)) in enumerate(as_completed(throws, with_results=True), 1):
            computed[worker] += POINTS
            computed["inside"] += inside
            progress(done)
    return computed


def throw(seed: int) -> tuple[str, int]:
    """Throws POINTS darts. Returns the worker's name and the number of hits."""
    from random import Random

    from distributed import get_worker

    random = Random(seed).random
    inside = sum(random() ** 2 + random() ** 2 <= 1 for _ in range(POINTS))
    return str(get_worker().name), inside
