"""What keeps a cluster's engine and JupyterLab busy, by their own figures.

Each function returns what there is to do or was done, with how many seconds ago, and raises OSError
if its service does not answer. To ask costs the services a few milliseconds.
"""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

import calendar
import contextlib
import json
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

from bilbo.agent.page import fetch, where_it_is
from bilbo.agent.service import HostedService, read_text

DASK_PORT = 8787
RAY_PORT = 8265
SECONDS = 5.0  # for each answer

Finding = Tuple[str, float]
Place = Dict[str, Any]


def dask(host: str) -> List[Finding]:
    """Tasks of the scheduler at `host`, and results that clients hold."""
    told = asked({"host": host, "port": DASK_PORT, "path": "/bilbo/tasks"})
    running, tasks = int(told["running"]), int(told["tasks"])
    if running:
        return [(f"Dask computes {counted(running, 'task')}", 0.0)]
    return [(f"Dask holds {counted(tasks, 'task or result', 'tasks or results')}", 0.0)] * bool(
        tasks
    )


def ray(host: str) -> List[Finding]:
    """Tasks, actors and objects of the head at `host`. The objects, which every worker is asked
    for, only where nothing else is."""
    # Ray looks for `=` where actors are kept, which may be many. One that starts is a task.
    lists = (
        ("task", "tasks", _filters("state", "!%3D", "FINISHED", "FAILED")),
        ("actor", "actors", _filters("state", "%3D", "ALIVE")),
        ("object", "objects", ""),
    )
    for name, path, filters in lists:
        place = {"host": host, "port": RAY_PORT, "path": f"/api/v0/{path}?limit=1{filters}"}
        told = asked(place)["data"]["result"]
        count = int(told["num_filtered"] if filters else told["total"])
        if count:
            verb = "holds" if name == "object" else "has"
            return [(f"Ray {verb} {counted(count, name)}", 0.0)]
    return []


def _filters(key: str, predicate: str, *values: str) -> str:
    """What the state API counts, as it is asked."""
    return "".join(
        f"&filter_keys={key}&filter_predicates={predicate}&filter_values={value}"
        for value in values
    )


ENGINES = {"dask": dask, "ray": ray}


def jupyter(folder: Path, host: str, port: int, described: str, token_file: str) -> List[Finding]:
    """Kernels and terminals of the JupyterLab that the cluster's `folder` has, and when open
    notebooks were saved. Pages that are merely open are nothing: what they ask for by themselves
    counts as activity only in JupyterLab's own `last_activity`, which is not asked."""
    token = read_text(folder / token_file).strip()
    headers = {"Authorization": f"token {token}"}
    page = {"host": host, "port": port, "path": "", "headers": headers, "described": described}
    there = where_it_is(page, HostedService(folder, "jupyter"))

    def ask(what: str) -> List[Dict[str, Any]]:
        path = there["base"].rstrip("/") + f"/api/{what}?no_track_activity=1"
        found = asked(dict(there, path=path))
        return [each for each in found if isinstance(each, dict)]

    found: List[Finding] = []
    for kernel in ask("kernels"):
        busy = kernel.get("execution_state") == "busy"
        verb = "computes" if busy else "was used"
        found.append((f"a kernel {verb} ({kernel.get('name')})", 0.0 if busy else ago(kernel)))
    found += [("a terminal was used", ago(each)) for each in ask("terminals")]
    return found + saved(str(each.get("path", "")) for each in ask("sessions"))


def saved(paths: Any) -> List[Finding]:
    """When notebooks that are open were saved, as JupyterLab does every two minutes where somebody
    writes."""
    found = []
    for each in paths:
        with contextlib.suppress(OSError, ValueError):
            age = time.time() - (Path.home() / each).stat().st_mtime
            found.append((f"{Path(each).name} was saved", max(0.0, age)))
    return found


def ago(item: Dict[str, Any]) -> float:
    """How many seconds ago a kernel or a terminal was last active; long ago, if it does not say."""
    try:
        when = time.strptime(str(item["last_activity"])[:19], "%Y-%m-%dT%H:%M:%S")
    except (KeyError, ValueError):
        return 1e9
    return max(0.0, time.time() - calendar.timegm(when))


def asked(place: Place) -> Any:
    """The JSON of a page. Raises OSError for any other answer."""
    status, body = fetch(dict({"headers": {}, "seconds": SECONDS}, **place))
    if status != 200:
        raise OSError(f"HTTP status {status}")
    try:
        return json.loads(body.decode())
    except ValueError:
        raise OSError("no JSON") from None


def counted(count: int, name: str, several: str = "") -> str:
    """A count in words."""
    return f"{count} {name if count == 1 else several or name + 's'}"
