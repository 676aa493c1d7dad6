"""Runs a command on one host with this terminal, like `ssh -t`. POSIX only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator

import asyncssh

from bilbo.model import Node
from bilbo.remote.agent_session import open_channel
from bilbo.remote.commands import CommandResult, Stream
from bilbo.remote.connection import PrivateKeys, connected
from bilbo.remote.terms import HostFailure, Remote

# Full-screen programs do not know every terminal type; they all know this one.
USUAL_TERM = "xterm-256color"


def has_terminal() -> bool:
    """Whether standard input and output are both terminals."""
    return os.name == "posix" and sys.stdin.isatty() and sys.stdout.isatty()


async def run_on_terminal(node: Node, command: str, remote: Remote) -> CommandResult:
    """Run a shell command on a terminal of the host that mirrors this one.

    Sends raw keys, including Ctrl-C, and changes of the window's size. Restores this terminal when
    the command ends, however it ends. The command has no deadline.
    """
    try:
        async with connected(node, remote, PrivateKeys()) as connection:
            code = await attached(connection, node, command, remote.deadlines.start)
            return CommandResult(node, code)
    except HostFailure as failure:
        return CommandResult(node, failure=failure)


async def attached(
    connection: asyncssh.SSHClientConnection, node: Node, command: str, seconds: float
) -> int:
    """Run a command on a terminal and return its exit code. Raises HostFailure.

    The host has `seconds` to begin.
    """
    stream = Stream(node, lambda _node, data, _is_stderr: write_all(sys.stdout.fileno(), data))
    channel = await open_channel(
        connection,
        stream,
        command,
        seconds,
        term_type=os.environ.get("TERM") or USUAL_TERM,
        term_size=shutil.get_terminal_size(),
    )
    with raw_input(), keys_and_size(channel):
        await stream.ended.wait()
    if stream.exit_code is None:
        raise HostFailure("the connection was lost while the command ran")
    return stream.exit_code


def write_all(descriptor: int, data: bytes) -> None:
    """Write to a terminal, bypassing Python's buffers."""
    with contextlib.suppress(OSError):  # the terminal is gone; the end of input reports it
        while data:
            data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def raw_input() -> Iterator[None]:
    """Within it, keys arrive one by one and have no special meaning here."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def keys_and_size(channel: asyncssh.SSHClientChannel[bytes]) -> Iterator[None]:
    """Forward keys and changes of the window's size."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def typed() -> None:
        try:
            data = os.read(descriptor, 4096)
        except OSError:
            data = b""
        with contextlib.suppress(OSError):
            if data:
                channel.write(data)
            else:  # the terminal was closed
                loop.remove_reader(descriptor)
                channel.close()

    def resized() -> None:
        with contextlib.suppress(OSError):
            channel.change_terminal_size(*os.get_terminal_size(sys.stdout.fileno()))

    loop.add_reader(descriptor, typed)
    loop.add_signal_handler(signal.SIGWINCH, resized)
    resized()  # the size may have changed since it was read
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        loop.remove_signal_handler(signal.SIGWINCH)
