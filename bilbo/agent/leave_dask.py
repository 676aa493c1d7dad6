"""Removes workers from a Dask cluster: a program for the Python that Dask's scheduler runs on.

Standard input is JSON: `groups`, a list of `{"hosts": [instance id, …], "leave": how many}`, and
`must` (whether to remove hosts that cannot hand over their data). Standard output is JSON: `left`,
the instance ids on which no worker of the cluster runs any more, and `kept`.
"""

# ruff: noqa: UP006, UP035 - hosts may have an old Python

import json
import sys
from typing import Any, Dict, List

PATIENCE = 30.0  # seconds for the scheduler to answer


async def on_scheduler(asked: Dict[str, Any], dask_scheduler: Any = None) -> Dict[str, List[str]]:
    """Chooses workers and waits until they have left. Runs in the scheduler's process."""

    def workers_of(host: str) -> List[Any]:
        return [
            each
            for each in dask_scheduler.workers.values()
            if str(each.name) == host or str(each.name).startswith(host + "-")
        ]

    def cost(host: str) -> Any:
        """Absent hosts cost nothing; then the fewest running tasks, then the least data."""
        workers = workers_of(host)
        running = sum(len(each.processing) for each in workers)
        return bool(workers), running, sum(each.nbytes for each in workers), host

    chosen = [
        host
        for group in asked["groups"]
        for host in sorted(group["hosts"], key=cost)[: group["leave"]]
    ]
    addresses = [each.address for host in chosen for each in workers_of(host)]
    if addresses:
        # Their data moves to the remaining workers, and their tasks run elsewhere. Then they end.
        await dask_scheduler.retire_workers(workers=addresses, close_workers=True)
    kept = [host for host in chosen if workers_of(host)]
    if kept and asked["must"]:
        for host in kept:
            for each in workers_of(host):
                await dask_scheduler.close_worker(each.address)
        kept = []
    return {"left": [host for host in chosen if host not in kept], "kept": kept}


def main() -> None:
    """Asks the scheduler named in the environment."""
    from distributed import Client

    connect: Any = Client
    asked = json.load(sys.stdin)
    try:
        with connect(timeout=PATIENCE, set_as_default=False) as client:
            answer = client.run_on_scheduler(on_scheduler, asked)
    except OSError as error:
        sys.exit(f"the scheduler does not answer: {error}")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
