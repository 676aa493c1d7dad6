"""The requests about the watcher: have it run with these settings, or not at all."""

# ruff: noqa: UP035 - hosts may have Python 3.6, which knows no newer spelling

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Iterable

from bilbo.agent.channel import Client, Request
from bilbo.agent.service import (
    HostedService,
    cluster_folder,
    locked,
    read_text,
    write_private,
)

WATCHER = "watcher"
GRACE = 2.0  # seconds; it has nothing to finish


def on_watch(client: Client, request: Request) -> None:
    """Have the watcher do the duties in `settings`, a document for each -> `watched`.

    Each is in a file of its name, with the time (`at`) by this host's clock. `files` are the
    watcher's programs, name to text; a watcher with other ones is replaced, otherwise it goes on
    and reads its settings.
    """
    folder = cluster_folder(request["cluster"], request.get("host", ""))
    files = dict(request["files"])
    if files:
        files[f"{WATCHER}.sh"] = script(folder)
    with locked(folder):
        service = HostedService(folder, WATCHER)
        changed = [name for name, text in files.items() if read_text(folder / name) != text]
        for name in changed:
            write_private(folder / name, files[name])
        for name, settings in request["settings"].items():
            path = folder / f"{name}.json"
            changed += [] if path.exists() else [path.name]
            write_private(path, json.dumps(dict(settings, at=time.time())))
        if changed or not service.supervisor():
            service.stop(GRACE)
            service.launch()
        service.keep()
    client.emit("watched")


def script(folder: Path) -> str:
    """What the supervisor runs."""
    command = [sys.executable, "-I", "-S", str(folder / f"{WATCHER}.py")]
    return f"# Written by bilbo: the watcher.\nexec {' '.join(map(shlex.quote, command))}\n"


def watch_no_more(folder: Path, names: Iterable[str]) -> None:
    """Forget these duties' settings, and end a watcher that has no others; the caller has the
    folder's lock."""
    gone = [path for path in (folder / f"{name}.json" for name in names) if path.exists()]
    for path in gone:
        path.unlink()
    if gone:
        HostedService(folder, WATCHER).stop(GRACE)
