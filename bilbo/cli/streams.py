"""Output of many hosts on one terminal, and the input of one command."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Mapping

from bilbo.cli.output import Foreign

LONGEST_LINE = 1 << 20
CHUNK = 1 << 16
CHUNKS_AHEAD = 4


class HostStreams:
    """Passes on what hosts print: to stdout what was stdout, to stderr what was stderr.

    `numbers` are the hosts' numbers by instance id. With several hosts, whole lines come with
    their host's number before them, so that they never mix; with one, bytes come as they are.
    """

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self._prefixes = {key: f"[{number}] ".encode() for key, number in numbers.items()}
        self._streams = {err: Foreign(err=err) for err in (False, True)}
        self._rest: dict[tuple[str, bool], bytes] = {}

    def write(self, instance_id: str, data: bytes, is_stderr: bool) -> None:
        """Take what one host printed. Raises OSError when nobody reads any more."""
        if len(self._prefixes) == 1:
            self._out(data, is_stderr)
            return
        key = (instance_id, is_stderr)
        *lines, rest = (self._rest.get(key, b"") + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        self._rest[key] = rest
        prefix = self._prefixes[instance_id]
        self._out(b"".join(prefix + line + b"\n" for line in lines), is_stderr)

    def end(self) -> None:
        """Print the last lines that had no end."""
        for (instance_id, is_stderr), rest in self._rest.items():
            if rest:
                self._out(self._prefixes[instance_id] + rest + b"\n", is_stderr)
        self._rest.clear()
        for stream in self._streams.values():
            stream.end()

    def _out(self, data: bytes, is_stderr: bool) -> None:
        self._streams[is_stderr].write(data)


async def standard_input() -> AsyncIterator[bytes]:
    """Standard input to its end, no faster than it is taken.

    Read by a thread: of the event loop's own ways none takes both pipes and files.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    free = threading.Semaphore(CHUNKS_AHEAD)

    def read() -> None:
        data = b"."
        while data:
            free.acquire()
            try:
                data = os.read(sys.stdin.fileno(), CHUNK)
            except (OSError, ValueError, AttributeError):  # it is closed, or there is none
                data = b""
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, data)
            except RuntimeError:  # the command has ended, and the loop with it
                return

    threading.Thread(target=read, daemon=True).start()
    while data := await chunks.get():
        yield data
        free.release()
