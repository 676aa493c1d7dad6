"""What keeps JupyterLab busy, by its own figures; `figures_ENGINE` are the engines'.

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

SECONDS = 5.0  # for each answer

Finding = Tuple[str, float]
Place = Dict[str, Any]


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
