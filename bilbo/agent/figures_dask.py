"""What keeps Dask busy, by its scheduler's own figures."""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

from typing import List

from bilbo.agent.figures import Finding, asked, counted

PORT = 8787


def engine(host: str) -> List[Finding]:
    """Tasks of the scheduler at `host`, and results that clients hold."""
    told = asked({"host": host, "port": PORT, "path": "/bilbo/tasks"})
    running, tasks = int(told["running"]), int(told["tasks"])
    if running:
        return [(f"Dask computes {counted(running, 'task')}", 0.0)]
    return [(f"Dask holds {counted(tasks, 'task or result', 'tasks or results')}", 0.0)] * bool(
        tasks
    )
