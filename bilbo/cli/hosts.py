"""The commands that reach into a cluster: `rcmd`, `logs`, `ssh`, `restart`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from bilbo.cli.context import Context, pass_context, target_of, work
from bilbo.cli.names import (
    CLUSTER,
    SECONDS,
    STAGE_TIMEOUT_OPTION,
    TARGET,
    complete_target,
)
from bilbo.cli.output import echo
from bilbo.record import Record

if TYPE_CHECKING:
    from bilbo.cluster.work import Work
    from bilbo.model import Node
    from bilbo.remote import CommandResult

TIMEOUT_OPTION = click.option(
    "--timeout", type=SECONDS, help="Seconds to wait for a host.  [default: 30]"
)


@contextmanager
def reaching(
    context: Context, record: Record, timeout: float | None, *, live: bool = False
) -> Iterator[Work]:
    """What reaching hosts needs, in the AWS that the cluster lives in."""
    from bilbo.cluster.hosts import PATIENCE_SECONDS

    timeout = timeout or PATIENCE_SECONDS
    with work(context, target_of(context, record), timeout=timeout, live=live) as w:
        yield w


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
    from bilbo.cluster import hosts, targets

    record = context.store.load(name)
    nodes, command = targets.split(record, words)
    with reaching(context, record, timeout) as w:
        if len(nodes) == 1 and _has_terminal():
            results: tuple[CommandResult, ...] = (
                hosts.run_on_terminal(w, record, nodes[0], command),
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
    from bilbo.cluster import hosts

    streams = HostStreams(_numbers(record, nodes))
    try:
        return hosts.run_command(
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


def _numbers(record: Record, nodes: tuple[Node, ...]) -> dict[str, int]:
    from bilbo import report

    chosen = {node.instance_id for node in nodes}
    return {key: number for key, number in report.numbers(record.inventory) if key in chosen}


def _exit_code(record: Record, results: tuple[CommandResult, ...]) -> int:
    """The highest exit code; what kept a host from running the command is told, and is 1."""
    numbered = _numbers(record, tuple(result.node for result in results))
    codes = []
    for result in results:
        if result.failure:
            place = f"[{numbered[result.node.instance_id]}] {result.node.role}"
            echo(f"bilbo: {place} {result.node.instance_id}: {result.failure}", err=True)
        codes.append(1 if result.exit_code is None else result.exit_code)
    return max(codes)


def _checked_services(
    _ctx: click.Context, _param: click.Parameter, services: tuple[str, ...]
) -> tuple[str, ...]:
    """Names that are files on the host: never paths. Raises a usage error."""
    for name in services:
        if not re.fullmatch("[a-z][a-z0-9-]{0,40}", name):
            raise click.BadParameter(f"{name[:40]!r} is no service; one is dask-worker.")
    return services


@click.command(short_help="Show the services' logs.")
@click.argument("name", type=CLUSTER)
@click.argument("target", type=TARGET, required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0, 100_000), default=100, show_default=True,
    help="How many of the last lines.",
)  # fmt: skip
@click.option(
    "-s",
    "--service",
    multiple=True,
    callback=_checked_services,
    help="Only this service's, such as dask-worker; init is init_cmd's.",
)
@TIMEOUT_OPTION
@pass_context
def logs(
    context: Context,
    name: str,
    target: str | None,
    follow: bool,
    lines: int,
    service: tuple[str, ...],
    timeout: float | None,
) -> None:
    """Show the logs of JupyterLab, head and workers of the cluster NAME.

    \b
    TARGET is a number as `bilbo desc` prints it, a role (notebook, scheduler,
    head, workers, all), a worker group, an instance id or an address; without one it is all. With
    several instances, each line has its instance's number before it.

    \b
    Examples:
      bilbo logs test
      bilbo logs test scheduler -f
      bilbo logs test 3 -n 1000
      bilbo logs test -s init
    """
    from bilbo.cli.streams import HostStreams
    from bilbo.cluster import hosts, targets
    from bilbo.remote import LogLines

    record = context.store.load(name)
    nodes = targets.resolve(record, target, otherwise="all")
    streams = HostStreams(_numbers(record, nodes))
    seen: list[bool] = []

    def show(found: LogLines) -> None:
        seen.extend([True] * bool(found.lines))
        text = "".join(f"{line}\n" for line in found.lines)
        streams.write(found.node.instance_id, text.encode(errors="replace"), False)

    with reaching(context, record, timeout) as w:
        hosts.logs(w, record, nodes, on_lines=show, services=service, lines=lines, follow=follow)
    if not seen:
        echo("Nothing is logged there.", err=True)


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
    from bilbo.cluster import hosts, targets
    from bilbo.errors import BilboError
    from bilbo.programs import find

    record = context.store.load(name)
    if target and target.startswith("-"):
        options, target = (target, *options), None
    node = targets.only(record, target)
    with reaching(context, record, None) as w:
        command = hosts.ssh_command(w, record, node, options)
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


@click.command(short_help="Restart cluster.")
@click.argument("name", type=CLUSTER)
@click.option("--notebook", is_flag=True, help="JupyterLab too, which ends its kernels.")
@STAGE_TIMEOUT_OPTION
@pass_context
def restart(context: Context, name: str, notebook: bool, timeout: float | None) -> None:
    """Restart head (Dask: scheduler) and workers of the cluster NAME. Its notebook stays.

    \b
    Examples:
      bilbo restart test
      bilbo restart test --notebook
      bilbo restart test --timeout 300
    """
    from bilbo import report
    from bilbo.cluster.restart import restart as restart_cluster

    record = context.store.load(name)
    with work(context, target_of(context, record), timeout=timeout) as w:
        restarted = restart_cluster(name, w, notebook=notebook)
    if restarted:
        echo("\n" + report.summary(restarted))
    else:
        echo(f"Cluster '{name}' has no engine: there is nothing to restart.")
