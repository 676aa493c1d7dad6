"""The requests that the agent serves."""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

from bilbo.agent.boot import Installation
from bilbo.agent.channel import Client, Request
from bilbo.agent.disk import grow
from bilbo.agent.first import LIBRARY_FIRST
from bilbo.agent.first_boot import wait_until_free
from bilbo.agent.measure import measure
from bilbo.agent.page import Open
from bilbo.agent.power import on_reach
from bilbo.agent.service import (
    Failure,
    HostedService,
    cluster_folder,
    locked,
    open_private,
    read_text,
    write_private,
)
from bilbo.agent.software import are_installed, install, interpreter
from bilbo.agent.watch import (
    PROBE_PAUSE,
    TAIL,
    call_roll,
    check_free,
    present_members,
    watch,
)
from bilbo.agent.watcher_requests import found_awake, on_extend, on_watch, watch_no_more

RECLAIMED = "reclaimed.json"  # left by the watcher's duty `spot`
# By folder; begun by `start`, asked for by `keep`.
installations: Dict[Path, Installation] = {}


def folder_of(request: Request) -> Path:
    """Where the request's cluster has its files on this host."""
    return cluster_folder(request["cluster"], request.get("host", ""))


def on_measure(client: Client, request: Request) -> None:
    """`packages`, `executables` -> `measured`."""
    client.emit("measured", **measure(request["packages"], request["executables"]))


def on_grow(client: Client, request: Request) -> None:
    """Have the root file system fill its disk of `gib` -> `grown`: `done` if there was anything to
    grow; `why` it could not be grown."""
    try:
        client.emit("grown", done=grow(request["gib"]), why="")
    except (Failure, OSError, ValueError) as error:
        client.emit("grown", done=False, why=str(error))


def on_boot(client: Client, request: Request) -> None:
    """Before `commands` and `requirements` for the Python of the `executables`, if any of them is
    still to be done: wait until the host is free, `seconds` at most -> `wait_until_free`'s."""
    folder = folder_of(request)
    done = read_done(folder)
    there = all(is_done(done, *each) for each in enumerate(request["commands"], start=1))
    lines = request["requirements"]
    if there and (not lines or are_installed(folder, interpreter(request["executables"]), lines)):
        client.emit("done", ran=0)
    else:
        wait_until_free(client, request["seconds"])


def read_done(folder: Path) -> List[Any]:
    """The finished commands of `init_cmd`: `[position, text]`, or the text alone if an earlier
    bilbo ran it."""
    found: List[Any] = json.loads(read_text(folder / "init.done") or "[]")
    return found


def is_done(done: List[Any], number: int, command: str) -> bool:
    """Whether the command at that position has finished. The same text elsewhere is another."""
    return [number, command] in done or command in done


def on_init(client: Client, request: Request) -> None:
    """`commands`: run each once in this host's life, in order -> `done` or `exited`.

    Remembers each finished command, so that the next attempt continues with the one that failed.
    The commands run to their end even if the client leaves.
    """
    folder = folder_of(request)
    with locked(folder):
        done = read_done(folder)
        before = len(done)
        for number, command in enumerate(request["commands"], start=1):
            if is_done(done, number, command):
                continue
            log = open_private(folder / "init.log", os.O_APPEND)
            code = subprocess.call(
                ["bash", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=str(Path.home()),
            )
            os.close(log)
            if code:
                tail = HostedService(folder, "init").tail(TAIL)
                # Only its number: the command may contain a token, and events are recorded.
                client.emit("exited", code=code, log=tail, number=number)
                return
            done.append([number, command])
            write_private(folder / "init.done", json.dumps(done))
    client.emit("done", ran=len(done) - before)


def on_packages(client: Client, request: Request) -> None:
    """`requirements`: install these lines with pip for the Python of the `executables` -> `done` or
    `exited`."""
    folder = folder_of(request)
    python = interpreter(request["executables"])
    with locked(folder.parent):  # machines that share a home may share the packages, too
        code = install(folder, python, request["requirements"])
    if code:
        tail = HostedService(folder, "packages").tail(TAIL)
        client.emit("exited", code=code, log=tail, python=python)
    else:
        client.emit("done", ran=code is not None)


def on_start(client: Client, request: Request) -> None:
    """Start a `service` unless it runs, and watch it -> `started` or `already`, then `watch`'s.

    Writes `files` (name to text) beside its script, and the `addresses` of all the cluster's
    machines; the addresses that it `listens` on must be free. `fresh` stops a running service
    first; `replace` does so only if its files differ. A service whose page does not require the
    token (`open`) is stopped again, unless it ran before. `starter` is the program that the next
    boot runs; `keep` tells whether it will. A watcher from before ends with its settings in
    `unwatched`.
    """
    folder = folder_of(request)
    service = HostedService(folder, request["service"])
    files = {folder / name: text for name, text in request["files"].items()}
    with locked(folder):
        # Not one of the files: a cluster that grows needs no service to start anew.
        write_private(folder / "addresses", "\n".join(request.get("addresses", ())))
        running = service.supervisor() is not None
        changed = running and any(read_text(path) != text for path, text in files.items())
        already = running and not request["fresh"] and not (changed and request["replace"])
        if not already:
            # Even if it does not run: processes left by its last run would be in the way.
            service.stop(request["grace"])
            for host, port in request["listens"]:
                check_free(host, port)
            for path, text in files.items():
                write_private(path, text)
            write_private(folder / "supervisor.py", request["supervisor"])
            service.launch()
        write_private(folder / "service.py", request["starter"])
        watch_no_more(folder, request.get("unwatched", ()))
    client.emit("already" if already else "started", changed=changed)
    installations[folder] = Installation(request["cluster"], folder)
    page = request["page"]
    if page and not already:
        page = dict(page, earlier="")  # a new service has its page at the current path
    try:
        watch(client, service, page, request["seconds"])
    except Open as error:
        log = service.tail(TAIL)
        if not already:
            with locked(folder):
                service.stop(request["grace"])
        client.emit("open", cause=str(error), ended=not already, log=log)


def on_watched(client: Client, request: Request) -> None:
    """As `on_watch`; also has the next boot start the watcher, even if no service was started."""
    on_watch(client, request)
    if request["files"]:
        folder = folder_of(request)
        installations[folder] = Installation(request["cluster"], folder)


def on_keep(client: Client, request: Request) -> None:
    """From now on have the `service` started again when it dies, and at boot -> `kept`.

    `way` is how the next boot starts it: systemd, user, crontab, or empty, with `why`.
    """
    folder = folder_of(request)
    with locked(folder):
        HostedService(folder, request["service"]).keep()
    begun = installations.pop(folder, None) or Installation(request["cluster"], folder)
    way, why = begun.result()
    client.emit("kept", way=way, why=why)


def on_roll(client: Client, request: Request) -> None:
    """`page` of the head's `service`, and its keys (`items`, `name`, `address`) -> `roll` at every
    change, `exited`."""
    call_roll(client, HostedService(folder_of(request), request["service"]), request)


def on_stop(client: Client, request: Request) -> None:
    """Stop the named `services` (all if empty), by force after `grace` seconds -> `done`."""
    folder = folder_of(request)
    with locked(folder):
        named = [HostedService(folder, name) for name in request["services"]]
        for service in named or present_services(folder):
            service.stop(request["grace"])
    client.emit("done")


def present_services(folder: Path) -> List[HostedService]:
    """The services that were ever started on this host."""
    return [HostedService(folder, path.stem) for path in sorted(folder.glob("*.sh"))]


def on_status(client: Client, request: Request) -> None:
    """What has become of each service, with the last `lines` of its log; with the `roll` of the
    engine's head (as in `on_roll`), its members too, None if it does not answer; what the watcher
    has found, None without one; and whether AWS is about to take the host back -> `status`."""
    folder, roll = folder_of(request), request.get("roll")
    rows = [each.report(request.get("lines", 0)) for each in present_services(folder)]
    members = present_members(roll) if roll else None
    reclaimed = (folder / RECLAIMED).exists()
    watch = found_awake(folder)
    client.emit("status", services=rows, members=members, watch=watch, reclaimed=reclaimed)


def on_logs(client: Client, request: Request) -> None:
    """The last `lines` of the `services`' logs (all services if empty), then new lines if `follow`
    -> `log`, `done`."""
    folder = folder_of(request)
    wanted = [HostedService(folder, name) for name in request["services"]]
    places = []
    for service in wanted or present_services(folder):
        place = [0, 0]
        with contextlib.suppress(FileNotFoundError):
            stat = service.log.stat()
            place = [stat.st_ino, stat.st_size]
        places.append((service, place))
        client.emit("log", service=service.name, lines=service.tail(request["lines"]))
    while request["follow"] and places and not client.wants_more(PROBE_PAUSE):
        for service, place in places:
            added = added_lines(service.log, place)
            if added:
                client.emit("log", service=service.name, lines=added)
    client.emit("done")


def added_lines(path: Path, place: List[int]) -> List[str]:
    """The complete lines added since `place` ([inode, offset]), which is updated."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        inode = os.fstat(file.fileno()).st_ino
        start = place[1] if inode == place[0] else 0
        file.seek(start)
        data = file.read(2**20)
        whole = data[: data.rfind(b"\n") + 1]
        place[:] = [inode, start + len(whole)]
        return whole.decode(errors="replace").splitlines()
    return []


def on_program(client: Client, request: Request) -> None:
    """`source`, `input`: run a program with the Python of the `executables` and the added
    `environment` -> `ran`."""
    try:
        done = subprocess.run(  # noqa: UP022 - Python 3.6 has no capture_output
            [interpreter(request["executables"]), "-c", LIBRARY_FIRST + request["source"]],
            input=request["input"].encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=request["seconds"],
            check=False,
            cwd=str(Path.home()),
            env=dict(os.environ, **request["environment"]),
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"it did not end within {request['seconds']:.0f} s") from None
    said = done.stderr.decode(errors="replace").splitlines()[-TAIL:]
    client.emit("ran", code=done.returncode, output=done.stdout.decode(), log=said)


REQUESTS: Dict[str, Callable[[Client, Any], None]] = {
    "measure": on_measure,
    "reach": on_reach,
    "grow": on_grow,
    "boot": on_boot,
    "init": on_init,
    "packages": on_packages,
    "start": on_start,
    "keep": on_keep,
    "roll": on_roll,
    "stop": on_stop,
    "status": on_status,
    "watch": on_watched,
    "extend": on_extend,
    "logs": on_logs,
    "program": on_program,
}


def serve() -> None:
    """Serve the client's requests until it is gone; a failure is a request's `failed` event."""
    client = Client(sys.stdin.buffer, sys.stdout.buffer)
    for request in client.requests():
        try:
            REQUESTS[request["op"]](client, request)
        except BrokenPipeError:
            os._exit(0)  # the client is gone; a normal exit would fail on the same pipe
        except Failure as error:
            client.emit("failed", cause=str(error))
        except Exception as error:
            client.emit("failed", cause=f"{type(error).__name__}: {error}")
