"""A session with the agent on a host: one channel for all requests of a stage."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import asyncssh

from bilbo.agent.first import LIBRARY_FIRST
from bilbo.remote.answers import misfit
from bilbo.remote.terms import HostFailure

# In the order in which they import each other.
AGENT_MODULES = (
    *("first", "service", "software", "measure", "channel", "page", "watch", "boot", "serve"),
)

# Python on the host runs the first line of its standard input, which takes the modules' sources
# from the second and treats them as imported. Requests follow: no secret is in a command line.
LOADER = f"""{LIBRARY_FIRST}
import json, sys, types
for name, source in json.loads(sys.stdin.buffer.readline().decode()):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
sys.modules["bilbo.agent.serve"].serve()
"""
# A login shell, because AMIs put conda and the like on PATH in profile files. Python starts in a
# folder of root's, because it looks for modules in the folder that it starts in.
COMMAND = "bash -lc 'cd / && exec python3 -c \"import sys; exec(sys.stdin.buffer.readline())\"'"

FOREIGN = "Something other than bilbo's agent answers: check the host's shell profile files."
Event = Mapping[str, Any]
LONGEST_LINE = 64 << 20  # bytes; ten times the head's answer for a thousand workers


@cache
def agent_source(module: str) -> str:
    """The source of one of the agent's modules."""
    return (files("bilbo") / "agent" / f"{module}.py").read_text(encoding="utf-8")


@cache
def opening_lines() -> bytes:
    """The input that starts the agent: a line of Python and a line of JSON."""
    sources = [(f"bilbo.agent.{name}", agent_source(name)) for name in AGENT_MODULES]
    return f"exec({json.dumps(LOADER)})\n{json.dumps(sources)}\n".encode()


class Lines(asyncssh.SSHClientSession[bytes]):
    """Receives a channel's output: stdout line by line, and the tail of stderr."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.noise: list[str] = []
        self.errors = b""
        self.exit_status: int | None = None
        self.lost: Exception | None = None
        self.endless = False
        self._rest = b""

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Split stdout into lines, and keep the tail of stderr."""
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self.errors = (self.errors + data)[-4096:]
            return
        if self.endless:
            return
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self.lines.put_nowait(line)
        if len(self._rest) > LONGEST_LINE:
            self.endless, self._rest = True, b""
            self.lines.put_nowait(None)

    def exit_status_received(self, status: int) -> None:
        """Record how the agent ended."""
        self.exit_status = status

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self.lost = exc
        self.lines.put_nowait(None)


class Session:
    """Requests and events of one host. Used by one task at a time."""

    def __init__(
        self, channel: asyncssh.SSHClientChannel[bytes], lines: Lines, cluster: str
    ) -> None:
        self._channel = channel
        self._lines = lines
        self._cluster = cluster
        self._id = 0
        self._op = ""

    @classmethod
    async def open(cls, connection: asyncssh.SSHClientConnection, cluster: str) -> Session:
        """Start the agent. If it cannot run, the first request fails."""
        try:
            lines = Lines()
            channel, _ = await connection.create_session(lambda: lines, COMMAND, encoding=None)
        except (asyncssh.Error, OSError) as error:
            raise HostFailure(f"the host does not run commands: {error}") from None
        session = cls(channel, lines, cluster)
        session._write(opening_lines())
        return session

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended; the next event() says why
            self._channel.write(data)

    def close(self) -> None:
        """End the agent."""
        self._channel.close()

    def send(self, op: str, **fields: Any) -> None:
        """Send a request; watching for an earlier request ends."""
        self._id, self._op = self._id + 1, op
        request = {"id": self._id, "op": op, "cluster": self._cluster, **fields}
        self._write(json.dumps(request).encode() + b"\n")

    async def event(self) -> Event:
        """The next event of the last request. Can be cancelled without losing one.

        Raises HostFailure if the agent could not do what was asked or has ended.
        """
        while True:
            line = await self._lines.lines.get()
            if line is None:
                self._lines.lines.put_nowait(None)
                raise self._ended()
            event = self._parse(line)
            if event is None or event["id"] != self._id:
                continue
            if event["event"] == "failed":
                raise HostFailure(str(event.get("cause", "the agent gave no reason"))[:2000])
            if why := misfit(self._op, event):
                what = f"the host's answer is not from bilbo's agent: {why}"
                raise HostFailure(what, hint=FOREIGN)
            return event

    def _parse(self, line: bytes) -> Event | None:
        """A line as an event, or None: a login shell's profile files may print anything."""
        try:
            event = json.loads(line)
            if isinstance(event, dict) and {"event", "id"} <= event.keys():
                return event
        except (ValueError, RecursionError):
            pass
        self._lines.noise = [*self._lines.noise[-9:], line.decode(errors="replace")]
        return None

    async def ask(self, op: str, deadline: float, **fields: Any) -> Event:
        """Ask, and wait for the first event. Raises HostFailure, also after `deadline` seconds."""
        self.send(op, **fields)
        try:
            return await asyncio.wait_for(self.event(), timeout=deadline)
        except asyncio.TimeoutError:
            raise HostFailure(f"the host did not answer within {deadline:.0f} s") from None

    def _ended(self) -> HostFailure:
        lines, status = self._lines, self._lines.exit_status
        if lines.endless:
            return HostFailure(
                f"the host sent a line of more than {LONGEST_LINE >> 20} MiB", hint=FOREIGN
            )
        said = lines.errors.decode(errors="replace").splitlines()[-20:] or lines.noise
        if status is None:
            why = f": {lines.lost}" if lines.lost else ""
            return HostFailure(
                f"the connection was lost{why}",
                hint="Check that the instance runs. Run the command again to continue from here.",
            )
        if status == 127:
            missing = "python3" if any("python3" in line for line in said) else "bash"
            return HostFailure(
                f"{missing} is not on the host's PATH",
                hint=f"Use an AMI that has {missing} (Python 3.6 or later) for login shells.",
                log=said,
            )
        return HostFailure(f"bilbo's agent ended with exit code {status} on the host", log=said)
