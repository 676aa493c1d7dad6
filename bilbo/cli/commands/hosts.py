"""The commands that connect to hosts: `rcmd`, `ssh`, `get` and `put`."""

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
from bilbo.cli.reaching import awake, numbers_of, reaching
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
    """Run COMMAND on instances of the cluster NAME, and stream its output.

    \b
    TARGET is a number from `bilbo desc`, a role (notebook, scheduler, head,
    workers, all), a worker group, an instance id or an address. The default is
    the notebook, or else the head. The first word is the TARGET if it names one
    or if `--` follows it; start with `--` to give no TARGET. The words of COMMAND
    are joined and passed to the remote shell, as ssh does.

    \b
    On one instance, COMMAND reads your input, and runs on a terminal if you do.
    With several instances, each line starts with its instance's number.
    The exit code is COMMAND's, the highest of several; 1 if a host is
    unreachable; 130 after Ctrl-C, which ends COMMAND.

    \b
    Examples:
      bilbo rcmd test nvidia-smi
      bilbo rcmd test 3 htop
      bilbo rcmd test workers 'df -h / | tail -1'
      bilbo rcmd test all -- uptime -p
      tar c data | bilbo rcmd test notebook tar x
    """
    from bilbo.cluster import host_access, targets

    record = awake(context, name)
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
        # The reader closed the pipe. What is still buffered must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(0) from None
    finally:
        streams.end()


def _exit_code(record: Record, results: tuple[CommandResult, ...]) -> int:
    """Returns the highest exit code. A host that failed to run the command is reported, as 1."""
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
    """Open a shell on an instance of the cluster NAME, with the system's ssh.

    \b
    TARGET is a number from `bilbo desc`, a role (notebook, scheduler, head), an
    instance id or an address. The default is the notebook, or else the head.
    Options after -- are passed to ssh: the last example forwards Dask's dashboard
    to localhost:8787 over SSH, until Ctrl-C.

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

    record = awake(context, name)
    if target and target.startswith("-"):
        options, target = (target, *options), None
    node = targets.only(record, target)
    with reaching(context, record, None) as w:
        command = host_access.ssh_command(w, record, node, options)
    program = find(command[0], os.environ)
    if program is None:
        raise BilboError(
            "ssh is not on PATH",
            hint="Install OpenSSH's client (Debian: openssh-client). Single commands work without "
            f"it: `bilbo rcmd {name} COMMAND`.",
        )
    _become(program, command)


def _become(program: str, command: list[str]) -> None:
    """Replaces this process with another program, or on Windows waits for it."""
    if os.name == "posix":
        os.execv(program, command)
    import subprocess

    raise click.exceptions.Exit(subprocess.call([program, *command[1:]]))


TARGET_OPTION = click.option(
    "-t", "--target", type=TARGET, help="The instance; default: the notebook, or else the head."
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
    """Copy the file or folder REMOTE of the cluster NAME to LOCAL, or to the current folder.

    \b
    REMOTE is relative to the remote home folder. If LOCAL is an existing folder,
    REMOTE is copied into it. Times and permissions are kept.

    \b
    Examples:
      bilbo get test result.csv
      bilbo get test data/run-7 runs/
      bilbo get test /var/log/syslog -t scheduler
    """
    from bilbo.cluster import host_access, targets

    record = awake(context, name)
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
    """Copy the file or folder LOCAL to REMOTE on the cluster NAME, or to the remote home folder.

    \b
    REMOTE is relative to the remote home folder. If it is an existing folder, LOCAL
    is copied into it. TARGET may name several instances. Times and permissions are
    kept.

    \b
    Examples:
      bilbo put test analysis.ipynb
      bilbo put test data input/
      bilbo put test model.bin -t workers
    """
    from bilbo.cluster import host_access, targets

    record = awake(context, name)
    nodes = targets.resolve(record, target)
    with reaching(context, record, timeout, live=True) as w, CopyProgress(w.progress) as progress:
        host_access.put(w, record, nodes, local, remote, progress.copying)
