"""What the fuzzers share: honest inputs spoiled in many ways, and a guard over what reading does.

`BILBO_FUZZ` is how many inputs each of them tries; `make fuzz N=…` sets it.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import click
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bilbo.errors import BilboError
from bilbo.text import plain

TRIES = int(os.environ.get("BILBO_FUZZ", "100"))

EVIL = "\x1b]52;c;ZXZpbA==\x07\x9b2J\u202e"
GARBAGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, 1e308, float("nan"), float("inf"), 2**63, 10**40, 65536,
    "", " ", "\0", "\n", "\ud800", "\U0001f600", "x" * 5000, EVIL, f"a{EVIL}b", "../../x",
    "/etc/passwd", "~", "-oProxyCommand=touch ran", "$(touch ran)", "`touch ran`", "; touch ran",
    '${file("/etc/passwd")}', "%{ if true }", "{{ x }}", "javascript:alert(1)", "file:///etc/passwd",
    "i-1\n", "i-0abc", "10.0.0.1", "10.0.0.1 ", "::1%eth0", "999.1.1.1", "ami-1", "data", "managed",
    "create", "delete", "aws_instance", "apply", "exited", "ready", "failed", "tainted",
    [], {}, [[]], [None], {"": None}, {"id": 1}, {"a": {"b": []}}, ["x"], [1], [{}], {EVIL: EVIL},
)  # fmt: skip
BYTES = (
    b"", b"\0", b"\xff", b"\xc2", b"\x1b]0;x\x07", b"\n", b"\r", b'"', b"{", b"}", b"[" * 60, b",",
    b"'", b"\\", b"\\u0000", b"\\ud800", b"1e999", b"9" * 5000, b"NaN", b"null", b"../", b"//",
    b"/*", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"PK\x05\x06", b"provider", b"evil",
)  # fmt: skip


def deep(levels: int) -> Any:
    """Lists in lists, or objects in objects."""
    value: Any = None
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every `(container, key)` of a document."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            _places(value[key], found)
    return found


def spoiled(random: Random, document: Any, times: int = 0) -> Any:
    """A copy of a JSON document, spoiled in so many places, or in one to four."""
    whole = [copy.deepcopy(document)]
    for _ in range(times or random.randint(1, 4)):
        container, key = random.choice(_places(whole, []))
        value = container[key]
        match random.randint(0, 8):
            case 0 | 1 | 2:
                container[key] = copy.deepcopy(random.choice(GARBAGE))
            case 3 if container is not whole:
                del container[key]
            case 4:
                container[key] = [value, value]
            case 5:
                container[key] = deep(random.choice((3, 90, 300)))
            case 6 if isinstance(container, dict):
                container[str(random.choice(GARBAGE))] = container.pop(key)
            case 7 if isinstance(value, str):
                at = random.randint(0, len(value))
                container[key] = value[:at] + str(random.choice(GARBAGE))[:300] + value[at:]
            case _:  # what stands elsewhere
                other, there = random.choice(_places(whole, []))
                container[key] = copy.deepcopy(other[there])
    return whole[0]


def garbled(random: Random, data: bytes) -> bytes:
    """Bytes with pieces cut out, put in, doubled or changed."""
    for _ in range(random.randint(1, 4)):
        start = random.randint(0, len(data))
        end = min(len(data), start + random.choice((0, 1, 5, 50, 5000)))
        match random.randint(0, 4):
            case 0:
                data = data[:start] + data[end:]
            case 1:
                data = data[:start] + random.choice(BYTES) + data[end:]
            case 2:
                data = data[:end] + data[start:]
            case 3 if data:
                at = random.randint(0, len(data) - 1)
                data = data[:at] + bytes([random.randint(0, 255)]) + data[at + 1 :]
            case _:
                data = data[:start] + random.choice(BYTES) + data[start:]
    return data


def written(random: Random, document: Any) -> bytes:
    """The bytes of a spoiled document, or the spoiled bytes of a good one."""
    if random.randint(0, 2) == 0:
        return garbled(random, json.dumps(document).encode())
    text = json.dumps(spoiled(random, document), ensure_ascii=random.random() < 0.5)
    return text.encode(errors="surrogatepass")


# -- the guard -----------------------------------------------------------------------------

_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn",
           "os.forkpty", "os.startfile", "socket.connect", "urllib.Request")  # fmt: skip
_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod", "os.chown", "os.link",
            "os.symlink", "os.truncate", "os.utime", "os.mkfifo")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Watch:
    """Python's own audit of what a process opens, changes and starts, while it is on."""

    def __init__(self) -> None:
        self.scratch: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.scratch is None:
            return
        if event in _STARTS:
            self.seen.append(f"{event} {args!r:.300}")
        elif event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            if isinstance(args[2], int) and args[2] & _WRITING:
                self._outside(event, args[0])
        elif event in _CHANGES:
            for path in args[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
                self._outside(event, path)

    def _outside(self, event: str, path: Any) -> None:
        scratch = self.scratch
        if scratch is None or isinstance(path, int):
            return
        name = os.path.normpath(Path.cwd() / os.fsdecode(path))
        if not name.startswith(f"{scratch}{os.sep}") and name != os.devnull:
            self.seen.append(f"{event} {name!r}")


_watch: list[_Watch] = []


@contextmanager
def guarded(scratch: Path) -> Iterator[list[str]]:
    """Within it, all that is written outside `scratch`, started or connected to is listed."""
    if not _watch:
        _watch.append(_Watch())
    watch, before = _watch[0], sys.dont_write_bytecode
    watch.seen, watch.scratch, sys.dont_write_bytecode = [], scratch, True
    try:
        yield watch.seen
    finally:
        watch.scratch, sys.dont_write_bytecode = None, before


class Fuzzer:
    """Tries a reader on many inputs. It may refuse any of them by name, and do nothing else."""

    def __init__(self, name: str, scratch: Path) -> None:
        self.name, self.scratch = name, scratch
        self.counted = Counter[str]()

    def __call__(self, read: Callable[[Any], object], random: Random, value: Any) -> bool:
        """Whether a reader takes an input. Raises whatever is none of bilbo's own errors."""
        self.counted["tried"] += 1
        with guarded(self.scratch) as seen:
            try:
                read(value)
                taken = True
            except (BilboError, click.ClickException) as error:
                taken = False
                assert "Traceback" not in plain(str(error))
                plain(str(error)).encode()
        assert not seen, seen
        self.counted["taken" if taken else "refused"] += 1
        return taken

    def run(self, one: Callable[[Random], object]) -> None:
        """Tries `BILBO_FUZZ` inputs, and prints what came of them. A failure names its seed."""

        def of(seed: int) -> None:
            one(Random(seed))

        tried = settings(
            max_examples=TRIES,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )(given(st.integers(0, 2**64 - 1))(of))
        tried()
        print(
            f"\nfuzz {self.name}: {self.counted['tried']} inputs, {self.counted['taken']} taken, "
            f"{self.counted['refused']} refused by name; 0 tracebacks, 0 writes outside, "
            "0 programs started"
        )
