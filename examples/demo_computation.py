"""Pi by throwing darts, on a Dask cluster: something that a person understands."""

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

    Returns how many darts each worker threw, by the worker's name, and under `inside` how
    many hit the circle in the square: a share of pi / 4. Calls `progress` with the number of
    tasks done. Raises what Dask raises when the cluster does not answer or a task fails.
    """
    from distributed import Client, as_completed

    # What matters is raised; its logger would add a traceback.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    computed: Counter[str] = Counter()
    with Client(scheduler, timeout=_CONNECT_SECONDS) as client:
        client.wait_for_workers(workers, timeout=_WORKERS_SECONDS)
        client.upload_file(__file__)  # else the workers would not know `throw`
        throws = client.map(throw, range(TASKS), pure=False)
        for done, (_, (worker, inside)) in enumerate(as_completed(throws, with_results=True), 1):
            computed[worker] += POINTS
            computed["inside"] += inside
            progress(done)
    return computed


def throw(seed: int) -> tuple[str, int]:
    """Throws POINTS darts: who threw them, and how many fell into the circle."""
    from random import Random

    from distributed import get_worker

    random = Random(seed).random
    inside = sum(random() ** 2 + random() ** 2 <= 1 for _ in range(POINTS))
    return str(get_worker().name), inside
