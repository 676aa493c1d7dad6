"""The requests about the watcher: have it run with these settings, or not at all."""

# ruff: noqa: UP006, UP035, UP045 - hosts may have Python 3.6, which knows no newer spelling

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterable, Optional

from bilbo.agent.channel import Client, Request
from bilbo.agent.service import (
    Failure,
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


def on_extend(client: Client, request: Request) -> None:
    """Have the cluster, which this machine leads, end `seconds` later, and not before they are
    over; never, if None -> `extended`: `left` seconds of its time, None if that ends nothing."""
    folder = cluster_folder(request["cluster"], request.get("host", ""))
    now, seconds = time.time(), request["seconds"]
    with locked(folder):
        told, ended = document(folder / "deciding.json"), document(folder / "ended")
        if not told:
            raise Failure("nothing ends it: it was created without a lifetime")
        since = max(told["at"], document(folder / "awake.json").get("booted", 0.0))
        if ended.get("at", 0.0) > since:
            raise Failure(f"it is ending already: {ended.get('why')}")
        if seconds is not None and told["left"] is not None:
            told["left"] = max(0.0, told["at"] + told["left"] - now) + seconds
            told["at"] = now
        told.update(never=seconds is None, hold=(seconds or 0.0) + now - told["at"])
        write_private(folder / "deciding.json", json.dumps(told))
    client.emit("extended", left=None if told["never"] else told["left"])


def found_awake(folder: Path) -> Optional[Dict[str, Any]]:
    """What the watcher found at its last look, times as seconds from now; None without one."""
    found = document(folder / "awake.json")
    if not (folder / "deciding.json").exists() or not found:
        return None
    now, ends = time.time(), found.get("ends")
    return {
        "age": max(0.0, now - found["at"]),
        "awake": found["awake"],
        "ends_in": None if ends is None else max(0.0, ends - now),
        "why": found["why"],
        "trouble": found["trouble"],
    }


def document(path: Path) -> Dict[str, Any]:
    """A file's JSON; empty if it is missing or damaged."""
    try:
        found = json.loads(read_text(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


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
