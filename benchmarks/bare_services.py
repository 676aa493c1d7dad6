"""The services of a cluster, started by hand: the floor of `time_to_ready`.

`python benchmarks/bare_services.py KEY PORT SCHEDULER NOTEBOOK WORKER…` (addresses; NOTEBOOK may be
`-`) connects to all hosts at once, starts everything at once, and ends when JupyterLab answers and
all workers have joined. Nothing is checked, remembered, measured or told.
"""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request

import asyncssh

POLL_SECONDS = 0.1
TOKEN = "bare"
ROUTES = "export DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES='[\"distributed.http.scheduler.api\"]'"


async def start(host: str, command: str, key: asyncssh.SSHKey, port: int) -> None:
    """Starts a command that outlives the connection."""
    async with asyncssh.connect(
        host, port, username="ubuntu", client_keys=[key], known_hosts=None, config=None
    ) as connection:
        detached = f"setsid nohup bash -lc {json.dumps(command)} </dev/null >bare.log 2>&1 &"
        await connection.run(detached, check=True)


def joined(scheduler: str) -> int:
    """How many workers the scheduler has; 0 while it does not answer."""
    page = f"http://{scheduler}:8787/api/v1/get_workers"
    try:
        with urllib.request.urlopen(page, timeout=5) as answer:
            return int(json.load(answer)["num_workers"])
    except OSError:
        return 0


def answers(notebook: str) -> bool:
    """Whether JupyterLab does."""
    page = f"http://{notebook}:8888/api/status?token={TOKEN}"
    try:
        with urllib.request.urlopen(page, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def main(key_path: str, port: int, scheduler: str, notebook: str, workers: list[str]) -> None:
    """All at once, then the wait."""
    key = asyncssh.read_private_key(key_path)
    listens = f"--host {scheduler} --port 8786 --dashboard-address {scheduler}:8787"
    commands = {scheduler: f"{ROUTES}; exec dask scheduler {listens}"}
    for host in workers:
        size = "--nworkers 1 --nthreads 1 --no-dashboard"
        commands[host] = f"exec dask worker tcp://{scheduler}:8786 --host {host} {size}"
    if notebook != "-":
        commands[notebook] = (
            f"exec jupyter lab --no-browser --allow-root --ip={notebook} --port=8888 "
            f"--ServerApp.port_retries=0 --IdentityProvider.token={TOKEN}"
        )
    await asyncio.gather(*(start(host, each, key, port) for host, each in commands.items()))
    while joined(scheduler) < len(workers):
        await asyncio.sleep(POLL_SECONDS)
    while notebook != "-" and not answers(notebook):
        await asyncio.sleep(POLL_SECONDS)


if __name__ == "__main__":
    key, port, scheduler, notebook, *workers = sys.argv[1:]
    asyncio.run(main(key, int(port), scheduler, notebook, workers))
