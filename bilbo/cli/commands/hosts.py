"""The commands that reach into a cluster: `rcmd`, `ssh`, `get`, `put`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bilbo.cli.context import Context, pass_context
from bilbo.cli.copying import CopyProgress
from bilbo.cli.output import echo
from bilbo.cli.params import (
    CLUSTER,
    TARGET,
    TIMEOUT_OPTION,
    complete_target,
)
from bilbo.cli.reaching import numbers_of, reaching
from bilbo.record import Record

if TYPE_CHECKING:
    from bilbo.cluster.work import Work
    from bilbo.model import Node
    from bilbo.remote import CommandResult


@click.command(
    short_help="Command to a cluster instance.", context_settings={"allow_interspersed_args": False}
)
@click.argument("name", type=CLUSTER)
@click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="[TARGET] [--] COMMAND...",
    shell_complete=complete_target,
)
@TIMEOUT_OPTION
@pass_context
def rcmd(context: Context, name: str, words: tuple[str, ...], timeout: float | None) -> None:
    """Run COMMAND on instances of the cluster NAME, and show its output as it comes.

    \b
    TARGET is a number as `bilbo desc` prints it, a role (notebook, scheduler,
    head, workers, all), a worker group, an instance id or an address; without one
    it is the notebook, else the head. The first word is taken for a TARGET if it
    is one, or if `--` follows it; a leading `--` says that there is none. The words of COMMAND
    are put together and given to the shell there, as ssh does.

    \b
    On one instance, input is passed on, and with a terminal at both ends COMMAND
    gets one too. With several, each line has its instance's number before it.
    The exit code is COMMAND's, the highest of several; 1 if a host cannot be
    reached, 130 after Ctrl-C, which ends COMMAND.

    \b
    Examples:
      bilbo rcmd test nvidia-smi
      bilbo rcmd test 3 htop
      bilbo rcmd test workers 'df -h / | tail -1'
      bilbo rcmd test all -- uptime -p
      tar c data | bilbo rcmd test notebook tar x
    """
    from bilbo.cluster import host_access, targets

    record = context.store.load(name)
    nodes, command = targets.split(record, words)
    with reaching(context, record, timeout) as w:
        if len(nodes) == 1 and _has_terminal():
            results: tuple[CommandResult, ...] = (
                host_access.run_on_terminal(w, record, nodes[0], command),
            )
        else:
            results = _streamed(w, record, nodes, command)
    raise click.exceptions.Exit(_exit_code(record, results))


def _has_terminal() -> bool:
    from bilbo import remote

    return remote.has_terminal()


def _streamed(
    w: Work, record: Record, nodes: tuple[Node, ...], command: str
) -> tuple[CommandResult, ...]:
    from bilbo.cli.streams import HostStreams, standard_input
    from bilbo.cluster import host_access

    streams = HostStreams(numbers_of(record, nodes))
    try:
        return host_access.run_command(
            w,
            record,
            nodes,
            command,
            on_output=lambda node, data, is_err: streams.write(node.instance_id, data, is_err),
            stdin=standard_input() if len(nodes) == 1 else None,
        )
    except BrokenPipeError:
        # Whoever read the output has enough of it. What is still buffered must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(0) from None
    finally:
        streams.end()


def _exit_code(record: Record, results: tuple[CommandResult, ...]) -> int:
    """The highest exit code; what kept a host from running the command is told, and is 1."""
    numbered = numbers_of(record, tuple(result.node for result in results))
    codes = []
    for result in results:
        if result.failure:
            place = f"[{numbered[result.node.instance_id]}] {result.node.role}"
            echo(f"bilbo: {place} {result.node.instance_id}: {result.failure}", err=True)
        codes.append(1 if result.exit_code is None else result.exit_code)
    return max(codes)


@click.command(short_help="Open a shell on an instance.")
@click.argument("name", type=CLUSTER)
@click.argument("target", type=TARGET, required=False)
@click.argument("options", nargs=-1, metavar="[-- OPTION...]")
@pass_context
def ssh(context: Context, name: str, target: str | None, options: tuple[str, ...]) -> None:
    """Open a shell on an instance of the cluster NAME, through the system's ssh.

    \b
    TARGET is a number as `bilbo desc` prints it, a role (notebook, scheduler, head),
    an instance id or an address; without one it is the notebook, else the head.
    What stands after -- is given to ssh: the last example makes Dask's dashboard
    answer at localhost:8787, through SSH alone, until Ctrl-C.

    \b
    Examples:
      bilbo ssh test
      bilbo ssh test scheduler
      bilbo ssh test 3
      bilbo ssh test scheduler -- -N -L 8787:10.0.0.7:8787
    """
    from bilbo.cluster import host_access, targets
    from bilbo.errors import BilboError
    from bilbo.programs import find

    record = context.store.load(name)
    if target and target.startswith("-"):
        options, target = (target, *options), None
    node = targets.only(record, target)
    with reaching(context, record, None) as w:
        command = host_access.ssh_command(w, record, node, options)
    program = find(command[0], os.environ)
    if program is None:
        raise BilboError(
            "there is no ssh on this machine's PATH",
            hint="Install OpenSSH's client (Debian: openssh-client). Without it, single commands "
            f"run by `bilbo rcmd {name} COMMAND`.",
        )
    _become(program, command)


def _become(program: str, command: list[str]) -> None:
    """Replaces this process by another program, or waits for it where that cannot be."""
    if os.name == "posix":
        os.execv(program, command)
    import subprocess

    raise click.exceptions.Exit(subprocess.call([program, *command[1:]]))


TARGET_OPTION = click.option(
    "-t", "--target", type=TARGET, help="The instance; else the notebook, or the scheduler."
)


@click.command(short_help="Copy files from an instance.")
@click.argument("name", type=CLUSTER)
@click.argument("remote")
@click.argument("local", type=click.Path(path_type=Path), default=Path())
@TARGET_OPTION
@TIMEOUT_OPTION
@pass_context
def get(
    context: Context,
    name: str,
    remote: str,
    local: Path,
    target: str | None,
    timeout: float | None,
) -> None:
    """Copy the file or folder REMOTE of the cluster NAME to LOCAL, else to the current folder.

    \b
    REMOTE is relative to the home folder there. An existing folder LOCAL is what
    REMOTE is copied into. Times and permissions are kept.

    \b
    Examples:
      bilbo get test result.csv
      bilbo get test data/run-7 runs/
      bilbo get test /var/log/syslog -t scheduler
    """
    from bilbo.cluster import host_access, targets

    record = context.store.load(name)
    node = targets.only(record, target)
    with reaching(context, record, timeout, live=True) as w, CopyProgress(w.progress) as progress:
        host_access.get(w, record, node, remote, local, progress.copying)


@click.command(short_help="Copy files to instances.")
@click.argument("name", type=CLUSTER)
@click.argument("local", type=click.Path(path_type=Path))
@click.argument("remote", default="")
@TARGET_OPTION
@TIMEOUT_OPTION
@pass_context
def put(
    context: Context,
    name: str,
    local: Path,
    remote: str,
    target: str | None,
    timeout: float | None,
) -> None:
    """Copy the file or folder LOCAL to REMOTE on the cluster NAME, else to the home folder there.

    \b
    REMOTE is relative to the home folder there; an existing folder is what LOCAL
    is copied into. A TARGET may be several instances. Times and permissions are kept.

    \b
    Examples:
      bilbo put test analysis.ipynb
      bilbo put test data input/
      bilbo put test model.bin -t workers
    """
    from bilbo.cluster import host_access, targets

    record = context.store.load(name)
    nodes = targets.resolve(record, target)
    with reaching(context, record, timeout, live=True) as w, CopyProgress(w.progress) as progress:
        host_access.put(w, record, nodes, local, remote, progress.copying)
