"""Single requests to running hosts: run a command, read logs, ask for software."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shlex
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass

import asyncssh

from bilbo.model import HostPlan, Node
from bilbo.remote.agent_session import Event, Session, open_channel
from bilbo.remote.connection import PrivateKeys, connected
from bilbo.remote.shells import in_sh
from bilbo.remote.terms import STOP_GRACE, HostFailure, Remote, on_each

Output = Callable[[Node, bytes, bool], None]

MARK = "BILBO_COMMAND"
KILL = """
for each in /proc/[0-9]*; do
    if tr "\\0" "\\n" <"$each/environ" | grep -qx {mark}; then kill -{signal} "${{each#/proc/}}"; fi
done 2>/dev/null
"""
END_SECONDS = 2.0  # how long an interrupted command has to end after each signal


@dataclass(frozen=True)
class CommandResult:
    """How a command ended on one host: its exit code, or None and the failure that prevented it.

    The exit code of a command ended by a signal is 128 plus the signal's number, as in a shell.
    """

    node: Node
    exit_code: int | None = None
    failure: HostFailure | None = None


@dataclass(frozen=True)
class LogLines:
    """Lines of one service's log on one host."""

    node: Node
    service: str
    lines: tuple[str, ...]


async def run_command(
    nodes: Sequence[Node],
    command: str | Callable[[Node], str],
    remote: Remote,
    *,
    on_output: Output,
    stdin: AsyncIterable[bytes] | None = None,
) -> tuple[CommandResult, ...]:
    """Run a shell command, each node's own, on all nodes at once, and stream its output.

    `on_output` gets the node, the bytes, and whether they are stderr's. `stdin` is for a single
    node. The command has no deadline. When cancelled, it is interrupted on every node.
    """
    keys = PrivateKeys()

    async def one(node: Node) -> CommandResult:
        try:
            async with connected(node, remote, keys) as connection:
                mark = secrets.token_hex(8)
                stream = Stream(node, on_output, f"{mark}\n".encode())
                words = marked(command if isinstance(command, str) else command(node), mark)
                code = await run_one(connection, stream, words, mark, stdin, remote.deadlines.start)
                return CommandResult(node, code)
        except HostFailure as failure:
            return CommandResult(node, failure=failure)

    return await on_each(nodes, remote.limit, one)


class Stream(asyncssh.SSHClientSession[bytes]):
    """Forwards a command's output and records how it ended.

    `began` is set by `mark`, bytes that the host prints to stderr before the command runs.
    """

    def __init__(self, node: Node, on_output: Output, mark: bytes = b"") -> None:
        self._node = node
        self._on_output = on_output
        self._mark = mark
        self._held = b""
        self.began = not mark
        self.exit_code: int | None = None
        self.ended = asyncio.Event()
        self.takes_more = asyncio.Event()  # cleared while the host cannot keep up with the input
        self.takes_more.set()

    def pause_writing(self) -> None:
        """Stop writing for now: a large input must not pile up in memory."""
        self.takes_more.clear()

    def resume_writing(self) -> None:
        """Continue writing."""
        self.takes_more.set()

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Forward output."""
        is_stderr = datatype == asyncssh.EXTENDED_DATA_STDERR
        if is_stderr and not self.began:
            data = self._without_mark(data)
        if data:
            self._on_output(self._node, data, is_stderr)

    def _without_mark(self, data: bytes) -> bytes:
        """What of stderr is not the mark; its end is held back while it may be the mark's start."""
        before, mark, after = (self._held + data).partition(self._mark)
        self.began = bool(mark)
        kept = 0 if mark else max(0, len(before) - len(self._mark) + 1)
        self._held = b"" if mark else before[kept:]
        return before + after if mark else before[:kept]

    def exit_status_received(self, status: int) -> None:
        """Record the exit code."""
        self.exit_code = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """Record the signal as a shell would."""
        numbers = {"HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "KILL": 9, "PIPE": 13, "TERM": 15}
        self.exit_code = 128 + numbers.get(signal, 0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        if self._held:
            self._on_output(self._node, self._held, True)
        self.ended.set()


async def run_one(
    connection: asyncssh.SSHClientConnection,
    stream: Stream,
    words: str,
    mark: str,
    stdin: AsyncIterable[bytes] | None,
    seconds: float,
) -> int:
    """Run a `marked` command over a connection and return its exit code. Raises HostFailure.

    The host has `seconds` to begin.
    """
    channel = await open_channel(connection, stream, words, seconds)
    feeding = asyncio.ensure_future(feed(channel, stream, stdin))
    try:
        await stream.ended.wait()
    except asyncio.CancelledError:
        await interrupt(connection, stream, mark)
        raise
    finally:
        feeding.cancel()
    if stream.exit_code is None:
        raise HostFailure("the connection was lost while the command ran")
    if stream.exit_code == 0 and not stream.began:
        raise HostFailure(
            "the login shell on the host ended without running the command",
            hint="Check which shell it is and what its startup files do: `bilbo ssh` shows it.",
        )
    return stream.exit_code


def marked(command: str, mark: str) -> str:
    """The command, run by the login shell, with a mark in the environment of its processes, which
    stderr begins with."""
    shell = f'env {MARK}={mark} "${{SHELL:-/bin/sh}}" -c {shlex.quote(command)}'
    return in_sh(f"echo {mark} >&2; exec {shell}")


async def interrupt(connection: asyncssh.SSHClientConnection, stream: Stream, mark: str) -> None:
    """End a command and everything that it started, found by its mark.

    sshd leaves a command running when its client is gone, and forwards no signals for root.
    """
    for signal in ("INT", "TERM", "KILL"):
        with contextlib.suppress(OSError, asyncssh.Error, asyncio.TimeoutError):
            kill = in_sh(KILL.format(mark=f"{MARK}={mark}", signal=signal))
            await asyncio.wait_for(connection.run(kill), END_SECONDS)
            await asyncio.wait_for(stream.ended.wait(), END_SECONDS)
            return


async def feed(
    channel: asyncssh.SSHClientChannel[bytes],
    stream: Stream,
    stdin: AsyncIterable[bytes] | None,
) -> None:
    """Forward standard input until it ends."""
    try:
        if stdin is not None:
            async for data in stdin:
                channel.write(data)
                await stream.takes_more.wait()
        channel.write_eof()
    except OSError:
        return  # the command has ended


async def fetch_logs(
    nodes: Sequence[Node],
    cluster: str,
    remote: Remote,
    *,
    on_lines: Callable[[LogLines], None],
    services: Sequence[str] = (),
    lines: int = 100,
    follow: bool = False,
) -> tuple[HostFailure | None, ...]:
    """Pass the last `lines` of the services' logs (all services if none is named) to `on_lines`.

    With `follow`, new lines too, until the caller cancels. Returns each node's failure, if any.
    """

    async def one(node: Node, session: Session) -> None:
        seconds = remote.deadlines.start
        event = await session.ask(
            "logs", seconds, services=list(services), lines=lines, follow=follow
        )
        while event["event"] == "log":
            on_lines(LogLines(node, event["service"], tuple(event["lines"])))
            event = await (session.event() if follow else session.within(seconds))

    return await with_agent(nodes, cluster, remote, one)


async def stop_services(
    nodes: Sequence[Node], cluster: str, remote: Remote
) -> tuple[HostFailure | None, ...]:
    """End all of a cluster's services on the nodes, which stay ended. Returns each node's failure,
    if any."""

    async def one(_node: Node, session: Session) -> None:
        await session.ask("stop", remote.deadlines.start, services=[], grace=STOP_GRACE)

    return await with_agent(nodes, cluster, remote, one)


async def extend(node: Node, cluster: str, remote: Remote, seconds: int | None) -> float | None:
    """Have the cluster that this node decides on end so much later, for None never. Returns what is
    left of its time in seconds, None if that ends nothing. Raises HostFailure."""
    found: list[float | None] = []

    async def one(_node: Node, session: Session) -> None:
        event = await session.ask("extend", remote.deadlines.start, seconds=seconds)
        found.append(event["left"])

    (failure,) = await with_agent([node], cluster, remote, one)
    if failure:
        raise failure
    return found[0]


async def software(
    hosts: Sequence[HostPlan], cluster: str, remote: Remote
) -> tuple[Event | HostFailure, ...]:
    """What each host measures (also `python` and package `versions`), or its failure."""
    found: dict[str, Event] = {}
    plans = {host.node.instance_id: host for host in hosts}

    async def one(node: Node, session: Session) -> None:
        plan = plans[node.instance_id]
        found[node.instance_id] = await session.ask(
            "measure",
            remote.deadlines.start,
            packages=plan.packages,
            executables=plan.executables,
        )

    nodes = [host.node for host in hosts]
    failures = await with_agent(nodes, cluster, remote, one)
    return tuple(
        failure or found[node.instance_id] for node, failure in zip(nodes, failures, strict=True)
    )


async def with_agent(
    nodes: Sequence[Node],
    cluster: str,
    remote: Remote,
    work: Callable[[Node, Session], Awaitable[None]],
) -> tuple[HostFailure | None, ...]:
    """Run `work` with the agent of every node. Returns each node's failure, if any."""
    keys = PrivateKeys()

    async def one(node: Node) -> HostFailure | None:
        try:
            async with connected(node, remote, keys) as connection:
                host, deadlines = node.instance_id, remote.at_once(len(nodes)).deadlines
                await work(node, await Session.open(connection, cluster, host, deadlines))
        except HostFailure as failure:
            return failure
        return None

    return await on_each(nodes, remote.limit, one)
