"""A session with the agent on a host: one channel for all requests of a stage."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import asyncssh

from bilbo.agent.first import LIBRARY_FIRST
from bilbo.remote.answers import misfit
from bilbo.remote.terms import Deadlines, HostFailure

# In the order in which they import each other.
AGENT_MODULES = (
    *("first", "service", "software", "measure", "channel", "first_boot", "page", "watch"),
    *("boot", "power", "disk", "watcher_requests", "serve"),
)

# Python on the host runs the first line of its standard input, which takes the modules' sources
# from the second and treats them as imported. Requests follow: no secret is in a command line.
# It greets first: what came before is noise of login files. The input holds the greeting in parts,
# because login files may print what they read.
LOADER = f"""{LIBRARY_FIRST}
sys.stdout.write("-".join(greeting) + "\\n")
sys.stdout.flush()
import json, sys, types
for name, source in json.loads(sys.stdin.buffer.readline().decode()):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
sys.modules["bilbo.agent.serve"].serve()
"""
# A login shell, because AMIs put conda and the like on PATH in profile files. Python starts in a
# folder of root's, because it looks for modules in the folder that it starts in.
COMMAND = "bash -lc 'cd / && exec python3 -c \"import sys; exec(sys.stdin.buffer.readline())\"'"

GREETING = "bilbo-agent"
FOREIGN = "Something other than bilbo's agent answers: check the host's shell profile files."
LOGIN_FILES = (
    "`bash -lc` reads /etc/profile and the first of ~/.bash_profile, ~/.bash_login and ~/.profile "
    "on the host. What waits for input, ends the shell or never ends there (`exec tmux`, `cat`, "
    "`read`) must be for interactive shells alone, below: [[ $- == *i* ]] || return"
)
Event = Mapping[str, Any]
LONGEST_LINE = 64 << 20  # bytes; ten times the head's answer for a thousand workers
NOISE_BYTES, NOISE_LINES, NOISE_WIDTH = 16384, 10, 200  # kept for the failure's report


@cache
def agent_source(module: str) -> str:
    """The source of one of the agent's modules."""
    return (files("bilbo") / "agent" / f"{module}.py").read_text(encoding="utf-8")


@cache
def _loading_lines() -> str:
    sources = [(f"bilbo.agent.{name}", agent_source(name)) for name in AGENT_MODULES]
    return f"exec({json.dumps(LOADER)})\n{json.dumps(sources)}\n"


def opening_lines(name: str = "") -> bytes:
    """The input that starts the agent, a line of Python and a line of JSON. The agent greets with
    `greeting_of(name)`."""
    return f"greeting = {json.dumps([GREETING, name])}; {_loading_lines()}".encode()


def greeting_of(name: str) -> bytes:
    """The line with which the agent of that name begins."""
    return f"{GREETING}-{name}\n".encode()


class Lines(asyncssh.SSHClientSession[bytes]):
    """Receives a channel's output: the lines of stdout after a greeting, and the tail of stderr.

    `begun` is set by the greeting, and by the channel's end.
    """

    def __init__(self, greeting: bytes = b"") -> None:
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.begun = asyncio.Event()
        self.greeted = not greeting
        if self.greeted:
            self.begun.set()
        self.greeting = greeting
        self._noise: list[str] = []
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
        self._rest += data
        if not self.greeted:
            self._take_greeting()
        if not self.greeted:
            return
        *whole, self._rest = self._rest.split(b"\n")
        for line in whole:
            self.lines.put_nowait(line)
        if len(self._rest) > LONGEST_LINE:
            self.endless, self._rest = True, b""
            self.lines.put_nowait(None)

    def _take_greeting(self) -> None:
        """Look for the greeting; all before it is noise, and only its end is kept."""
        before, greeting, after = self._rest.partition(self.greeting)
        if greeting:
            self.add_noise(before[-NOISE_BYTES:])
            self.greeted = True
            self.begun.set()
        self._rest = after if greeting else before[-NOISE_BYTES:]

    def add_noise(self, data: bytes) -> None:
        """Keep the last lines of what is not the agent's."""
        lines = [line.strip() for line in data.decode(errors="replace").splitlines()]
        lines = [line[:NOISE_WIDTH] for line in lines if line]
        self._noise = [*self._noise, *lines][-NOISE_LINES:]

    def noise(self) -> list[str]:
        """The last lines of what is not the agent's."""
        if not self.greeted and self._rest:
            self.add_noise(self._rest)
            self._rest = b""
        return self._noise

    def exit_status_received(self, status: int) -> None:
        """Record how the agent ended."""
        self.exit_status = status

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self.lost = exc
        self.begun.set()
        self.lines.put_nowait(None)


class Session:
    """Requests and events of one host. Used by one task at a time."""

    def __init__(
        self,
        channel: asyncssh.SSHClientChannel[bytes],
        lines: Lines,
        cluster: str,
        host: str = "",
        seconds: float = Deadlines.greeting,
    ) -> None:
        self._channel = channel
        self._lines = lines
        self._for = {"cluster": cluster, "host": host}
        self._seconds = seconds
        self._id = 0
        self._op = ""

    @classmethod
    async def open(
        cls,
        connection: asyncssh.SSHClientConnection,
        cluster: str,
        host: str,
        deadlines: Deadlines,
    ) -> Session:
        """Start the agent on the instance `host`. If it cannot run, the first request fails."""
        name = secrets.token_hex(8)
        lines = Lines(greeting_of(name))
        channel = await open_channel(connection, lines, COMMAND, deadlines.start)
        session = cls(channel, lines, cluster, host, deadlines.greeting)
        session._write(opening_lines(name))
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
        request = {"id": self._id, "op": op, **self._for, **fields}
        self._write(json.dumps(request).encode() + b"\n")

    async def event(self) -> Event:
        """The next event of the last request. Can be cancelled without losing one.

        Raises HostFailure if the agent could not do what was asked, has ended, or did not begin.
        Only the agent's beginning has a deadline here: see `within`.
        """
        await self._begun()
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
                raise HostFailure(what, hint=FOREIGN, log=self._lines.noise())
            return event

    async def _begun(self) -> None:
        """Wait for the greeting. Raises HostFailure that names the login files."""
        # Before Python 3.12, a `wait_for` whose wait is over swallows a cancellation: a cancelled
        # `event` would go on, and take the next request's answer.
        if self._lines.begun.is_set():
            return
        try:
            await asyncio.wait_for(self._lines.begun.wait(), timeout=self._seconds)
        except asyncio.TimeoutError:
            raise self._silent(self._seconds) from None

    def _silent(self, seconds: float) -> HostFailure:
        """The failure of a host that has said nothing for too long."""
        noise = self._lines.noise()
        if self._lines.greeted:
            return HostFailure(f"the host did not answer within {seconds:.0f} s", log=noise)
        return HostFailure(
            f"bilbo's agent did not begin within {seconds:.0f} s: the login files on the host do "
            "not come to an end",
            hint=LOGIN_FILES,
            log=noise,
        )

    def _parse(self, line: bytes) -> Event | None:
        """A line as an event, or None: what login files started may still print anything."""
        try:
            event = json.loads(line)
            if isinstance(event, dict) and {"event", "id"} <= event.keys():
                return event
        except (ValueError, RecursionError):
            pass
        self._lines.add_noise(line)
        return None

    async def within(self, seconds: float) -> Event:
        """The next event of the last request. Raises HostFailure, also after `seconds`."""
        try:
            return await asyncio.wait_for(self.event(), timeout=seconds)
        except asyncio.TimeoutError:
            raise self._silent(seconds) from None

    async def ask(self, op: str, deadline: float, **fields: Any) -> Event:
        """Ask, and wait for the first event. Raises HostFailure, also after `deadline` seconds."""
        self.send(op, **fields)
        return await self.within(deadline)

    def _ended(self) -> HostFailure:
        lines, status = self._lines, self._lines.exit_status
        if lines.endless:
            return HostFailure(
                f"the host sent a line of more than {LONGEST_LINE >> 20} MiB", hint=FOREIGN
            )
        said = lines.errors.decode(errors="replace").splitlines()[-20:] or lines.noise()
        if status is None:
            why = f": {lines.lost}" if lines.lost else ""
            return HostFailure(
                f"the connection was lost{why}",
                hint="Check that the instance runs. Run the command again to continue from here.",
                log=lines.noise(),
            )
        if status == 127:
            missing = "python3" if any("python3" in line for line in said) else "bash"
            return HostFailure(
                f"{missing} is not on the host's PATH",
                hint=f"Use an AMI that has {missing} (Python 3.6 or later) for login shells.",
                log=said,
            )
        if not lines.greeted:
            return HostFailure(
                f"the host's login shell ended with exit code {status} before bilbo's agent began",
                hint=LOGIN_FILES,
                log=said,
            )
        return HostFailure(f"bilbo's agent ended with exit code {status} on the host", log=said)


async def open_channel(
    connection: asyncssh.SSHClientConnection,
    session: asyncssh.SSHClientSession[bytes],
    command: str,
    seconds: float,
    **options: Any,
) -> asyncssh.SSHClientChannel[bytes]:
    """A channel on which the host runs `command`, its output passed to `session`.

    Raises HostFailure, also if the host has not accepted it after `seconds`.
    """
    opening = connection.create_session(lambda: session, command, encoding=None, **options)
    try:
        channel, _ = await asyncio.wait_for(opening, timeout=seconds)
    except asyncio.TimeoutError:
        raise HostFailure(f"the host did not open a channel within {seconds:.0f} s") from None
    except (asyncssh.Error, OSError) as error:
        raise HostFailure(f"the host does not run commands: {error}") from None
    return channel
