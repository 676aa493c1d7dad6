"""Runs a detached program (Terraform, Packer), follows its output file, and interrupts it once.

With a pipe, killing bilbo would kill the program at its next line, and leave resources that no
state lists. With a file, the program runs to its end, and the next bilbo can read the result. In
its own session it gets Ctrl-C only from bilbo. All differences between POSIX and Windows are in
this module.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_POLL_SECONDS = 0.03
# For what is captured: so much that only what hangs needs more. An `init` downloads providers.
CAPTURE_SECONDS = 600.0
INIT_SECONDS = 3600.0


@dataclass(frozen=True)
class Ended:
    """How a followed program ended: `code` is None if it was not our child."""

    code: int | None
    interrupted: bool


def start(
    argv: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Starts a program in `folder` with its output in an emptied `log` (0600). Raises OSError."""
    log.unlink(missing_ok=True)
    log.touch(mode=0o600)
    with log.open("wb") as output:
        started: subprocess.Popen[bytes] = subprocess.Popen(
            argv,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **_detached(),  # type: ignore[call-overload]
        )
    return started


def follow(
    process: subprocess.Popen[bytes] | psutil.Process,
    log: Path,
    *,
    on_line: Callable[[str], object],
    on_interrupt: Callable[[], object],
    whole_group: bool = False,
) -> Ended:
    """Reads a program's output in `log` until it ends; `on_line` gets each complete line.

    Ctrl-C, or True from `on_line`, sends one SIGINT, with `whole_group` also to its children, and
    waits until the program has cleaned up; further ones are ignored. Only Ctrl-C counts as an
    interrupt, and only then `on_interrupt` is called.
    """
    told = asked = False
    with counted_interrupts() as interrupts, log.open(encoding="utf-8", errors="replace") as lines:
        partial = ""
        while True:
            ended = not _alive(process)
            partial += lines.read()
            *complete, partial = partial.split("\n")
            for line in complete:
                asked = on_line(line) is True or asked
            if ended:
                break
            if (interrupts.count or asked) and not told:
                told = True
                _interrupt(process.pid, whole_group)
                if interrupts.count:
                    on_interrupt()
            time.sleep(_POLL_SECONDS)
    code = process.returncode if isinstance(process, subprocess.Popen) else None
    return Ended(code, told and interrupts.count > 0)


def capture(
    argv: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    seconds: float = CAPTURE_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Runs a short command and returns its output. Raises OSError.

    One that does not end within `seconds` is killed, and its error output says so.
    """
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            argv,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
            **_private(),  # type: ignore[call-overload]
        )
    except subprocess.TimeoutExpired:
        said = f"It did not end within {seconds:.0f} s, and was killed.\n"
        return subprocess.CompletedProcess(argv, -signal.SIGTERM, "", said)
    return done


class _Interrupts:
    """Counts Ctrl-C instead of raising, so that a read never loses a line."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self.count += 1


@contextlib.contextmanager
def counted_interrupts() -> Iterator[_Interrupts]:
    """Within it, SIGINT and SIGTERM are counted; only the main thread receives signals.

    After the first one the command is already ending, so further ones are ignored.
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


def _detached() -> dict[str, bool | int]:
    if os.name == "nt":
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True, **_private()}


def _private() -> dict[str, int]:
    """States, saved plans and generated keys contain secrets in plain text."""
    return {} if os.name == "nt" else {"umask": 0o077}


def _interrupt(pid: int, whole_group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        if os.name == "nt":
            os.kill(pid, getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))
        elif whole_group:
            os.killpg(pid, signal.SIGINT)
        else:
            os.kill(pid, signal.SIGINT)


def _alive(process: subprocess.Popen[bytes] | psutil.Process) -> bool:
    if isinstance(process, subprocess.Popen):
        return process.poll() is None
    import psutil

    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
