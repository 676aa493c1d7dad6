"""A command on one host with this terminal as its own, as `ssh -t` does it. POSIX only."""

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
from bilbo.remote.commands import CommandResult, Stream
from bilbo.remote.connection import PrivateKeys, connected
from bilbo.remote.terms import HostFailure, Remote

# Programs that draw do not know every terminal's name; all know this one.
USUAL_TERM = "xterm-256color"


def has_terminal() -> bool:
    """Whether a person sits at both ends: standard input and output are terminals."""
    return os.name == "posix" and sys.stdin.isatty() and sys.stdout.isatty()


async def run_on_terminal(node: Node, command: str, remote: Remote) -> CommandResult:
    """Run a shell command on a terminal of the host's that this one stands for.

    Keys go there raw, Ctrl-C among them, and the window's size follows. This terminal is as it
    was when the command ends, however it does. The command itself has no deadline.
    """
    try:
        async with connected(node, remote, PrivateKeys()) as connection:
            return CommandResult(node, await attached(connection, node, command))
    except HostFailure as failure:
        return CommandResult(node, failure=failure)


async def attached(connection: asyncssh.SSHClientConnection, node: Node, command: str) -> int:
    """Run a command over a connection, on a terminal, to its exit code. Raises HostFailure."""
    stream = Stream(node, lambda _node, data, _is_stderr: write_all(sys.stdout.fileno(), data))
    try:
        channel, _ = await connection.create_session(
            lambda: stream,
            command,
            encoding=None,
            term_type=os.environ.get("TERM") or USUAL_TERM,
            term_size=shutil.get_terminal_size(),
        )
    except asyncssh.Error as error:
        raise HostFailure(f"the host gives no terminal: {error}") from None
    with raw_input(), keys_and_size(channel):
        await stream.ended.wait()
    if stream.exit_code is None:
        raise HostFailure("the connection was lost while the command ran")
    return stream.exit_code


def write_all(descriptor: int, data: bytes) -> None:
    """Write to a terminal past Python's buffers."""
    with contextlib.suppress(OSError):  # the terminal has gone, and the keys' end says so
        while data:
            data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def raw_input() -> Iterator[None]:
    """Keys come one by one and mean nothing here, until the end."""
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
    """Pass keys and changes of the window's size on."""
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
    resized()  # it may have changed since it was asked
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        loop.remove_signal_handler(signal.SIGWINCH)
