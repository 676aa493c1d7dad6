"""A command that a client of an instance runs: a real process, on pipes or on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

import asyncssh

Process = asyncssh.SSHServerProcess[bytes]

CHUNK = 65536


@dataclass
class Running:
    """A command that runs: where its input goes, and where its output comes from.

    `terminal` is a descriptor of ours to set its window size by; `close_after` are descriptors
    to close when it has ended.
    """

    child: asyncio.subprocess.Process
    stdin: asyncio.StreamWriter
    outputs: list[tuple[asyncio.StreamReader, asyncssh.SSHWriter[bytes]]]
    transports: list[asyncio.ReadTransport]
    terminal: int | None = None
    close_after: tuple[int, ...] = ()


async def run(process: Process, environment: dict[str, str], home: Path) -> None:
    """Run what the client asked for, in `home`, until it and its output end or the client goes."""
    if process.subsystem:
        process.exit(1)
        return
    argv = ["/bin/bash", "-c", process.command] if process.command else ["/bin/bash", "-l"]
    start = _start_on_terminal if process.term_type else _start_on_pipes
    try:
        running = await start(process, argv, environment, home)
    except OSError as error:  # the machine is out of processes or files, or the home is gone
        process.stderr.write(f"{error}\n".encode())
        process.exit(255)
        return
    try:
        await _until_done(process, running)
    finally:
        if running.child.returncode is None:
            _signal(running.child, signal.SIGHUP)


async def _until_done(process: Process, running: Running) -> None:
    feeding = asyncio.ensure_future(_feed(process, running))
    pumps = [asyncio.ensure_future(_pump(*output)) for output in running.outputs]
    ended = asyncio.ensure_future(running.child.wait())
    gone = asyncio.ensure_future(process.channel.wait_closed())
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        running.terminal = None
        _close(*running.close_after)
        if gone.done():
            return
        # A terminal is taken away from whoever still holds it; a pipe is waited for.
        told = asyncio.ensure_future(asyncio.wait(pumps, timeout=1 if process.term_type else None))
        await asyncio.wait({told, gone}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        code = running.child.returncode or 0
        with contextlib.suppress(OSError):  # the client went meanwhile
            if code < 0:
                process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
            else:
                process.exit(code)
    finally:
        for task in (feeding, ended, gone, *pumps):
            task.cancel()
        await asyncio.gather(feeding, *pumps, return_exceptions=True)
        if not running.stdin.is_closing():
            running.stdin.transport.abort()
        for transport in running.transports:
            transport.close()


async def _feed(process: Process, running: Running) -> None:
    """Give the command what the client sends: input, signals, window sizes."""
    with contextlib.suppress(ConnectionError):
        while not process.stdin.at_eof():
            try:
                running.stdin.write(await process.stdin.read(CHUNK))
                await running.stdin.drain()
            except asyncssh.TerminalSizeChanged as event:
                if running.terminal is not None:
                    _resize(running.terminal, event.term_size)
            except asyncssh.BreakReceived:
                _signal(running.child, signal.SIGINT)
            except asyncssh.SignalReceived as event:
                with contextlib.suppress(KeyError):
                    _signal(running.child, signal.Signals[f"SIG{event.signal}"])
        if running.terminal is None:
            running.stdin.close()


async def _pump(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    """Give the client what the command writes. A terminal ends with EIO."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()


async def _start_on_pipes(
    process: Process, argv: list[str], environment: dict[str, str], home: Path
) -> Running:
    stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
    theirs, ours = (stdin[0], stdout[1], stderr[1]), (stdin[1], stdout[0], stderr[0])
    try:
        child = await _spawn(argv, environment, home, *theirs)
    except BaseException:
        _close(*ours)
        raise
    finally:
        _close(*theirs)
    (out, from_out), (err, from_err) = await _reader(ours[1]), await _reader(ours[2])
    outputs = [(out, process.stdout), (err, process.stderr)]
    return Running(child, await _writer(ours[0]), outputs, [from_out, from_err])


async def _start_on_terminal(
    process: Process, argv: list[str], environment: dict[str, str], home: Path
) -> Running:
    ours, theirs = os.openpty()
    _resize(ours, process.term_size)
    # A session leader that opens a terminal gets it as its controlling one. The shell does
    # that; doing it between fork and exec is not safe in a process that has threads.
    takes_terminal = ["/bin/sh", "-c", 'exec <>"$0" >&0 2>&0; exec "$@"', os.ttyname(theirs)]
    environment = {**environment, "SSH_TTY": os.ttyname(theirs)}  # as sshd(8) has it
    try:
        nothing = asyncio.subprocess.DEVNULL
        child = await _spawn(takes_terminal + argv, environment, home, nothing, nothing, nothing)
    except BaseException:
        _close(ours, theirs)
        raise
    control, output = os.dup(ours), os.dup(ours)
    out, from_out = await _reader(output)
    stdin, outputs = await _writer(ours), [(out, process.stdout)]
    # While their end is open here too, the last output is not lost.
    return Running(child, stdin, outputs, [from_out], control, (theirs, control))


async def _spawn(
    argv: list[str],
    environment: dict[str, str],
    home: Path,
    stdin: int,
    stdout: int,
    stderr: int,
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=home,
        start_new_session=True,
    )


async def _reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=4 * CHUNK)
    file = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), file
    )
    return reader, transport


async def _writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    file = os.fdopen(descriptor, "wb", buffering=0)
    unread = asyncio.StreamReader()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(unread), file
    )
    return asyncio.StreamWriter(transport, protocol, unread, loop)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _resize(terminal: int, size: tuple[int, int, int, int]) -> None:
    import fcntl
    import termios

    columns, rows, width, height = size
    with contextlib.suppress(OSError, struct.error):
        window = struct.pack("HHHH", rows, columns, width, height)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, window)


def _signal(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal to the command and its children; not to what they detached."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
