"""The list of the workers, for whoever reads it; Dask's scheduler serves it among its pages.

Dask has such a list of its own, but only together with a route that retires workers.
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


routes: Any = [("/bilbo/workers", Workers, {})]
