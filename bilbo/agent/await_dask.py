"""Has a worker wait for a scheduler that starts at the same time; Dask's nanny loads it.

By itself Dask tries again after random pauses that double, so the last of many workers may find
the scheduler as late again as that took to start.
"""

import asyncio
import contextlib
import time
from typing import Any
from urllib.parse import urlsplit

DASHBOARD_PORT = 8787
PAUSE = 0.1
PATIENCE = 60.0  # as long as the port is closed; then Dask tries by itself, and tells what is wrong
SILENCE = 5.0  # no answer from an open port, or none at all


async def dask_setup(nanny: Any) -> None:
    """What Dask calls before the nanny connects to the scheduler."""
    await until_it_answers(urlsplit(nanny.scheduler.addr).hostname, PATIENCE, SILENCE)


async def until_it_answers(host: Any, patience: float, silence: float) -> None:
    """Returns as soon as the scheduler's page answers, or when there is no use in waiting.

    The scheduler's own port would do as well, but its log tells of everyone who comes and says
    nothing.
    """
    end = time.monotonic() + patience
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        while time.monotonic() < end:
            try:
                await asyncio.wait_for(answer(host), silence)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(PAUSE)


async def answer(host: Any) -> None:
    """Returns when the page answers anything."""
    reader, writer = await asyncio.open_connection(host, DASHBOARD_PORT)
    try:
        writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        await reader.read(1)
    finally:
        writer.close()
