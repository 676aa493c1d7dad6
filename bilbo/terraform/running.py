"""Terraform's process: a pid file lets the next bilbo find it; its lines are events."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bilbo import process
from bilbo.files import private_write
from bilbo.terraform.stream import UNREADABLE, Diagnostic, Event, OnEvent, Outcome, outcome, parse

if TYPE_CHECKING:
    import psutil

PID_FILE = "terraform.pid"
# Terraform prints a state that it can write nowhere. It holds secrets, and a full disk cuts it off.
_STATE_DUMP = "Emergency state dump"


@dataclass(frozen=True)
class Run:
    """How the next bilbo finds a Terraform process.

    `pid` is 0 from right before the start until its number is known; until then the `folder` that
    it works in and its `arguments` identify it.
    """

    pid: int
    start_time: float
    operation: str
    log: str
    folder: str = ""
    arguments: tuple[str, ...] = ()


def run(
    argv: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    operation: str,
    on_event: OnEvent,
) -> Outcome:
    """Runs Terraform in `folder` with its output in `log` (0600), and follows it to its end.

    Ctrl-C, or True from `on_event`, sends one SIGINT and waits until the state is written; further
    ones are ignored. Raises KeyboardInterrupt for Ctrl-C alone, once Terraform has ended.
    """
    pid_file = log.parent / PID_FILE
    left = Run(0, 0.0, operation, str(log), str(folder), tuple(argv[1:]))
    # Before the start: a bilbo killed right after it would leave a Terraform that nobody knows.
    private_write(pid_file, json.dumps(asdict(left)))
    try:
        started = process.start(argv, folder=folder, environment=environment, log=log)
    except OSError:
        pid_file.unlink()
        raise
    left = replace(left, pid=started.pid, start_time=_start_time(started.pid))
    private_write(pid_file, json.dumps(asdict(left)))
    try:
        return _follow(started, log, on_event)
    finally:
        if started.poll() is not None:
            pid_file.unlink(missing_ok=True)


def resume(cluster_folder: Path, on_event: OnEvent) -> Outcome | None:
    """Follows the Terraform that an earlier bilbo started to its end; None if none runs.

    Raises KeyboardInterrupt as `run` does.
    """
    import psutil

    left = left_running(cluster_folder)
    if left is None:
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        terraform = psutil.Process(left.pid)
        try:
            return _follow(terraform, Path(left.log), on_event)
        finally:
            (cluster_folder / PID_FILE).unlink(missing_ok=True)
    return None


def left_running(cluster_folder: Path) -> Run | None:
    """The Terraform process that an earlier bilbo left running, if it still runs."""
    import psutil

    try:
        left = Run(**json.loads((cluster_folder / PID_FILE).read_text(encoding="utf-8")))
        left = left if left.pid else _found(left)
        found = psutil.Process(left.pid)
        if found.create_time() != left.start_time or found.status() == psutil.STATUS_ZOMBIE:
            return None
    except (OSError, ValueError, TypeError, psutil.NoSuchProcess):
        return None
    return left


def _start_time(pid: int) -> float:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def _found(left: Run) -> Run:
    """With the number of the process that has these arguments, in that folder. A wrapper of
    Terraform's is older than what it starts.

    Raises psutil.NoSuchProcess where there is none.
    """
    import psutil

    arguments = list(left.arguments)
    there = [
        (each.info["create_time"], each.pid)
        for each in psutil.process_iter(["cwd", "cmdline", "create_time"])
        if arguments and each.info["cwd"] == left.folder
        if (each.info["cmdline"] or [])[-len(arguments) :] == arguments
    ]
    if not there:
        raise psutil.NoSuchProcess(0)
    start_time, pid = min(there)
    return replace(left, pid=pid, start_time=start_time)


def _follow(
    running: subprocess.Popen[bytes] | psutil.Process, log: Path, on_event: OnEvent
) -> Outcome:
    events: list[Event] = []

    def on_line(line: str) -> bool:
        event = parse(line)
        if event is None:
            return False
        events.append(event)
        return bool(on_event(event))

    ended = process.follow(
        running, log, on_line=on_line, on_interrupt=lambda: on_event({"type": "bilbo_interrupt"})
    )
    if ended.interrupted:
        raise KeyboardInterrupt
    result = outcome(events, ended.code)
    if ended.code and not result.errors:
        result = _with_raw_output(result, log)
    return result


def _with_raw_output(result: Outcome, log: Path) -> Outcome:
    """For a failure before Terraform wrote any JSON: its text becomes the diagnostic."""
    raw = log.read_text(encoding="utf-8", errors="replace")
    lines = (line for line in raw.splitlines() if _STATE_DUMP not in line)
    plain = [line for line in lines if line.strip() and is_odd(line)]
    if not plain:
        return result
    crash = Diagnostic("error", "Terraform said", "\n".join(plain[-20:]))
    return replace(result, diagnostics=(*result.diagnostics, crash))


def is_odd(line: str) -> bool:
    """Whether a line is not an event of Terraform, or an unreadable one."""
    event = parse(line)
    return event is None or event["type"] == UNREADABLE
