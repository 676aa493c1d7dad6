"""Terraform's process, owned by bilbo: detached, followed through a file, interrupted once.

With a pipe, a killed parent would kill Terraform at its next line and leave instances that
no state knows. With a file, Terraform goes on to its end, and the next bilbo reads the
outcome. What differs between POSIX and Windows is here and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from bilbo.files import private_write
from bilbo.terraform.stream import UNREADABLE, Diagnostic, Event, OnEvent, Outcome, outcome, parse

if TYPE_CHECKING:
    import psutil

_POLL_SECONDS = 0.03


@dataclass(frozen=True)
class Run:
    """A Terraform process as the next bilbo can find it again."""

    pid: int
    start_time: float
    operation: str
    log: str


def run(
    argv: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    operation: str,
    on_event: OnEvent,
) -> Outcome:
    """Runs Terraform in `folder`, its output in `log` (0600), and follows it to its end.

    Ctrl-C, or `on_event` saying True, sends one SIGINT and waits for the state to be written;
    more of them are absorbed. The outcome is `interrupted` by Ctrl-C alone.
    """
    log.unlink(missing_ok=True)
    log.touch(mode=0o600)
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **_detached(),  # type: ignore[call-overload]
        )
    pid_file = log.parent / "terraform.pid"
    private_write(pid_file, json.dumps(asdict(_describe(process.pid, operation, log))))
    try:
        return _follow(process, log, on_event)
    finally:
        if process.poll() is not None:
            pid_file.unlink(missing_ok=True)


def resume(cluster_folder: Path, on_event: OnEvent) -> Outcome | None:
    """Follows to its end the Terraform that an earlier bilbo started; None where none runs."""
    import psutil

    left = left_running(cluster_folder)
    if left is None:
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        found = _follow(psutil.Process(left.pid), Path(left.log), on_event)
        (cluster_folder / "terraform.pid").unlink(missing_ok=True)
        return found
    return None


def left_running(cluster_folder: Path) -> Run | None:
    """The Terraform process that an earlier bilbo left running, if it still runs."""
    import psutil

    try:
        left = Run(**json.loads((cluster_folder / "terraform.pid").read_text(encoding="utf-8")))
        process = psutil.Process(left.pid)
        if process.create_time() != left.start_time or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except (OSError, ValueError, TypeError, psutil.NoSuchProcess):
        return None
    return left


def capture(
    argv: Sequence[str], *, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a short Terraform command that changes nothing outside, and takes its output."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        argv,
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        **_private(),  # type: ignore[call-overload]
    )
    return done


def _detached() -> dict[str, bool | int]:
    if os.name == "nt":
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True, **_private()}


def _private() -> dict[str, int]:
    """State and saved plans hold secrets in plain text."""
    return {} if os.name == "nt" else {"umask": 0o077}


def _interrupt(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if os.name == "nt":
            os.kill(pid, getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))
        else:
            os.kill(pid, signal.SIGINT)


def _describe(pid: int, operation: str, log: Path) -> Run:
    import psutil

    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        started = 0.0
    return Run(pid=pid, start_time=started, operation=operation, log=str(log))


class _Interrupts:
    """Counts Ctrl-C instead of raising, so that no line is lost in the middle of a read."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self.count += 1


@contextlib.contextmanager
def counted_interrupts() -> Iterator[_Interrupts]:
    """Within it, SIGINT and SIGTERM are counted; only the main thread receives signals.

    Once one has come, the command is on its way out, and more of them are ignored.
    """
    interrupts = _Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, interrupts)
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if interrupts.count else handler)


def _follow(
    process: subprocess.Popen[bytes] | psutil.Process, log: Path, on_event: OnEvent
) -> Outcome:
    events: list[Event] = []
    told = asked = False
    with counted_interrupts() as interrupts, log.open(encoding="utf-8", errors="replace") as lines:
        partial = ""
        while True:
            ended = not _alive(process)
            partial += lines.read()
            *complete, partial = partial.split("\n")
            for event in filter(None, map(parse, complete)):
                events.append(event)
                asked = bool(on_event(event)) or asked
            if ended:
                break
            if (interrupts.count or asked) and not told:
                told = True
                _interrupt(process.pid)
                if interrupts.count:
                    on_event({"type": "bilbo_interrupt"})
            time.sleep(_POLL_SECONDS)
    code = process.returncode if isinstance(process, subprocess.Popen) else None
    result = outcome(events, code, interrupted=told and interrupts.count > 0)
    if code and not result.errors:
        result = _with_raw_output(result, log)
    return result


def _with_raw_output(result: Outcome, log: Path) -> Outcome:
    """A failure before Terraform began to write JSON: its text is the diagnostic."""
    raw = log.read_text(encoding="utf-8", errors="replace")
    plain = [line for line in raw.splitlines() if line.strip() and is_odd(line)]
    if not plain:
        return result
    crash = Diagnostic("error", "Terraform said", "\n".join(plain[-20:]))
    return replace(result, diagnostics=(*result.diagnostics, crash))


def is_odd(line: str) -> bool:
    """Whether a line is none of Terraform's events, or one that cannot be read."""
    event = parse(line)
    return event is None or event["type"] == UNREADABLE


def _alive(process: subprocess.Popen[bytes] | psutil.Process) -> bool:
    if isinstance(process, subprocess.Popen):
        return process.poll() is None
    import psutil

    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
