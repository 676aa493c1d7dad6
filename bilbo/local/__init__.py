"""The stand-in AWS: moto's API in one background process, and a real machine's worth of SSH
for every instance in it, all on loopback.

Cheap to import: moto, asyncssh and boto3 are imported by the server process only. For Linux.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bilbo.errors import LocalError, UsageError
from bilbo.local import faults, processes, standin_state
from bilbo.local.sdk_environment import environment
from bilbo.model import Target

__all__ = [
    "Status", "calls", "inject", "objects", "owns", "start", "status", "stop", "target",
    "throttled",
]  # fmt: skip

KNOWN_AMI = "ami-0f49fa254e1806b72"
START_WITHIN = 30.0
STOP_WITHIN = 8.0
LOG_LINES = 15


@dataclass(frozen=True)
class Status:
    """A running stand-in.

    Each of `instances`, terminated ones included, has `instance_id`, `state`, `private_ip`,
    `public_ip`, `name` (its Name tag), `image_id` and `region`.
    """

    endpoint_url: str
    ssh_port: int
    region: str
    pid: int
    ami: str
    key_name: str
    private_key: str
    instances: list[dict[str, str]] = field(default_factory=list)


def start(home: Path, region: str = "us-east-1") -> Target:
    """The stand-in of the bilbo home `home`, started if it is not up yet.

    It serves every region; `region` is the one that the target names. Its process outlives
    the caller. Raises LocalError when it does not come up in 30 s, with the tail of its log,
    when moto is not installed, or on another system than Linux.
    """
    _check_system()
    paths = standin_state.Paths.of(home)
    paths.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    running = target(home, region)
    if running:
        return running
    with _locked(paths):
        if not target(home):
            _launch(paths, region)
    running = target(home, region)
    if not running:
        raise LocalError("the stand-in AWS went away as soon as it was up", where=str(paths.log))
    return running


def stop(home: Path) -> None:
    """End the stand-in of `home` and every process of its instances; nothing when it is down."""
    paths = standin_state.Paths.of(home)
    if not paths.root.is_dir() or sys.platform != "linux":
        return
    with _locked(paths):
        found = standin_state.load(paths)
        if found and processes.is_same(found.pid, found.started):
            _end(found)
            standin_state.save(paths, replace(found, pid=0, started=""))
        processes.end_of_standin(paths.mark)
        standin_state.remove_links(paths.instances)


def target(home: Path, region: str | None = None) -> Target | None:
    """How the running stand-in of `home` is reached, in `region` (None: the one it was
    started with); None when it does not run."""
    paths = standin_state.Paths.of(home)
    found = _running(paths)
    if not found:
        return None
    found = replace(found, region=region or found.region)
    return Target(
        region=found.region,
        endpoint_url=found.endpoint_url,
        environment=MappingProxyType(environment(paths, found)),
        ssh_port=found.ssh_port,
        caller_cidrs=("127.0.0.0/8",),
    )


def status(home: Path) -> Status | None:
    """What the running stand-in of `home` holds; None when it does not run."""
    paths = standin_state.Paths.of(home)
    found = _running(paths)
    if not found:
        return None
    return Status(
        endpoint_url=found.endpoint_url,
        ssh_port=found.ssh_port,
        region=found.region,
        pid=found.pid,
        ami=KNOWN_AMI,
        key_name=standin_state.KEY_NAME,
        private_key=str(paths.private_key),
        instances=_ask(found, "GET", "status")["instances"],
    )


def owns(home: Path, endpoint_url: str) -> bool:
    """Whether `endpoint_url` is the stand-in of `home`, or was when it last ran."""
    found = standin_state.load(standin_state.Paths.of(home))
    return bool(found and found.port and found.endpoint_url == endpoint_url.rstrip("/"))


def inject(home: Path, fault: str) -> None:
    """Make the running stand-in of `home` misbehave as `fault` says.

    Raises UsageError, naming the forms, for a wrong one, and LocalError when nothing runs.
    """
    _ask(_needed(home), "POST", "fault", faults.check(fault))


def calls(home: Path, *, reset: bool = False, different: bool = False) -> Mapping[str, int]:
    """How often each action, such as `ec2:RunInstances`, was called since the last reset.

    `different` counts the same request, asked again and again while waiting, once.
    """
    what = "requests" if different else "calls"
    counted: dict[str, int] = _ask(_needed(home), "DELETE" if reset else "GET", what)
    return counted


def objects(home: Path) -> Mapping[str, int]:
    """As `calls`, the requests for objects in S3, each with its place:
    `s3:PutObject BUCKET/KEY`."""
    counted: dict[str, int] = _ask(_needed(home), "GET", "objects")
    return counted


def throttled(home: Path) -> Mapping[str, int]:
    """As `calls`, those that were refused because there were too many."""
    counted: dict[str, int] = _ask(_needed(home), "GET", "throttled")
    return counted


def _check_system() -> None:
    if sys.platform != "linux":
        raise LocalError(
            "the stand-in AWS is for Linux: it gives each instance an address in 127.0.0.0/8",
            hint="Use a profile for AWS itself, or run bilbo in a Linux machine or container.",
        )
    if any(importlib.util.find_spec(name) is None for name in ("moto", "flask")):
        raise LocalError(
            "the stand-in AWS needs moto, which is not installed",
            hint="Install it with: pip install 'bilbo[local]'",
        )


@contextlib.contextmanager
def _locked(paths: standin_state.Paths) -> Iterator[None]:
    """Hold the lock of this home's stand-in; ends by itself with the process."""
    import fcntl

    deadline = time.monotonic() + START_WITHIN
    with paths.lock.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LocalError(
                        "another command has been starting or stopping the stand-in AWS for "
                        f"{START_WITHIN:.0f} s",
                        where=str(paths.lock),
                    ) from None
                time.sleep(0.05)
        yield


def _launch(paths: standin_state.Paths, region: str) -> None:
    """Start the server process and wait until it answers."""
    package = str(Path(__file__).parents[2])
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TF_", "MOTO_"))}
    search = os.pathsep.join(filter(None, (package, inherited.get("PYTHONPATH"))))
    with paths.output.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bilbo.local.server", str(paths.root.parent), region],
            cwd=paths.root,
            env={**inherited, "PYTHONPATH": search},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline:
        found = standin_state.load(paths)
        if found and found.pid == process.pid and _answers(found):
            # It is meant to outlive us: no warning that it does.
            process.returncode = 0
            return
        if process.poll() is not None:
            raise _failed(paths, "ended at once")
        time.sleep(0.03)
    process.kill()
    process.wait()
    raise _failed(paths, f"did not answer within {START_WITHIN:.0f} s")


def _failed(paths: standin_state.Paths, how: str) -> LocalError:
    lines: list[str] = []
    for path in (paths.log, paths.output):
        with contextlib.suppress(OSError):
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return LocalError(
        f"the stand-in AWS {how}", where=str(paths.log), details=tuple(lines[-LOG_LINES:])
    )


def _end(found: standin_state.State) -> None:
    """End the server process, by force when it takes too long."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, number)
        deadline = time.monotonic() + STOP_WITHIN
        while processes.is_same(found.pid, found.started):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(found.pid, os.WNOHANG)  # ours, if this process started it
            return
    raise LocalError(f"process {found.pid} of the stand-in AWS cannot be ended")


def _running(paths: standin_state.Paths) -> standin_state.State | None:
    found = standin_state.load(paths) if sys.platform == "linux" else None
    if found and processes.is_same(found.pid, found.started) and _answers(found):
        return found
    return None


def _needed(home: Path) -> standin_state.State:
    found = _running(standin_state.Paths.of(home))
    if not found:
        raise LocalError("the stand-in AWS does not run", hint="Start it with: bilbo local start")
    return found


def _answers(found: standin_state.State) -> bool:
    try:
        _ask(found, "GET", "ping")
    except LocalError:
        return False
    return True


def _ask(found: standin_state.State, method: str, route: str, body: str = "") -> Any:
    """What the server process says on `route`; LocalError when it does not, or refuses."""
    connection = http.client.HTTPConnection("127.0.0.1", found.port, timeout=10)
    try:
        connection.request(
            method,
            standin_state.ADMIN + route,
            body.encode(),
            {standin_state.ADMIN_HEADER: found.access_key},
        )
        answer = connection.getresponse()
        content = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise LocalError(
            f"the stand-in AWS does not answer: {error}", where=found.endpoint_url
        ) from None
    finally:
        connection.close()
    if answer.status == 400:
        raise UsageError(content["error"])
    if answer.status != 200:
        raise LocalError(f"the stand-in AWS refuses: {content['error']}", where=found.endpoint_url)
    return content
