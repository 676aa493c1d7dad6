"""The list of the workers, and how many tasks there are, for whoever reads them; Dask's scheduler
serves them among its pages.

Dask has such a list of its own, but only together with a route that retires workers. Its metrics
cost a page of text.
"""

import json
from importlib import import_module
from typing import Any

base: Any = import_module("distributed.http.utils").RequestHandler


class Workers(base):  # type: ignore[misc]
    """Every worker's name and address."""

    def get(self) -> None:
        """What there is now."""
        found = [
            {"name": str(each.name), "address": each.address}
            for each in self.server.workers.values()
        ]
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps({"workers": found}))


class Tasks(base):  # type: ignore[misc]
    """How many tasks run, and how many there are: results that somebody holds are tasks, too."""

    def get(self) -> None:
        """What there is now."""
        running = sum(len(each.processing) for each in self.server.workers.values())
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps({"running": running, "tasks": len(self.server.tasks)}))


routes: Any = [("/bilbo/workers", Workers, {}), ("/bilbo/tasks", Tasks, {})]
