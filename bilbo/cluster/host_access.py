"""Single requests to a cluster's hosts: a command, logs, files, a shell."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bilbo.cluster.reach import reach
from bilbo.cluster.whereabouts import Whereabouts
from bilbo.cluster.work import Work
from bilbo.engines import ENVIRONMENT
from bilbo.errors import BilboError, PartlyDone, RemoteError
from bilbo.model import Node
from bilbo.present.report import numbers
from bilbo.profile.naming import expand_key_path
from bilbo.record import Record

if TYPE_CHECKING:
    from bilbo.remote import CommandResult, Copying, HostFailure, LogLines, Remote

# For a machine's SSH server to show its host key, before the system's ssh tries.
_KEY_SECONDS = 4.0

# How long to wait for a host that once ran. A host that is being created gets longer.
PATIENCE_SECONDS = 30.0


# For sh, whatever the login shell is: the services' variables, then the login shell again.
_ENTER = (
    'here="$HOME/.bilbo/{cluster}/{host}"; '
    f'if [ -r "$here/{ENVIRONMENT}" ]; then . "$here/{ENVIRONMENT}"; fi; '
    'exec "${{SHELL:-/bin/sh}}" {how}'
)


def as_a_service(cluster: str, host: str, command: str) -> str:
    """Returns a shell command that runs with the variables of the host's services, so that it finds
    the cluster as a notebook does. Every login shell parses it."""
    from bilbo.remote import in_sh

    how = f"-c {shlex.quote(command)}"
    return in_sh(_ENTER.format(cluster=cluster, host=host, how=how))


def run_command(
    work: Work,
    record: Record,
    nodes: Sequence[Node],
    command: str,
    *,
    on_output: Callable[[Node, bytes, bool], None],
    stdin: AsyncIterable[bytes] | None = None,
) -> tuple[CommandResult, ...]:
    """Runs a shell command on all `nodes` at once; see `remote.run_command`.

    An OSError in `on_output` (the reader has gone) ends the command on all hosts and is raised.
    """
    from bilbo import remote

    async def main() -> tuple[CommandResult, ...]:
        broken: list[OSError] = []

        def pass_on(node: Node, data: bytes, is_stderr: bool) -> None:
            try:
                if not broken:
                    on_output(node, data, is_stderr)
            except OSError as error:
                broken.append(error)
                running.cancel()

        running = asyncio.ensure_future(
            remote.run_command(
                nodes,
                lambda node: as_a_service(record.name, node.instance_id, command),
                reaching_now(work, record),
                on_output=pass_on,
                stdin=stdin,
            )
        )
        try:
            return await running
        except asyncio.CancelledError:
            if broken:
                raise broken[0] from None
            raise

    return asyncio.run(main())


def run_on_terminal(work: Work, record: Record, node: Node, command: str) -> CommandResult:
    """Runs a command with this terminal as its own; see `remote.run_on_terminal`."""
    from bilbo import remote

    words = as_a_service(record.name, node.instance_id, command)
    return asyncio.run(remote.run_on_terminal(node, words, reaching_now(work, record)))


def logs(
    work: Work,
    record: Record,
    nodes: Sequence[Node],
    *,
    on_lines: Callable[[LogLines], None],
    services: Sequence[str] = (),
    lines: int = 100,
    follow: bool = False,
) -> None:
    """The services' logs; see `remote.fetch_logs`. Raises as `all_well` does."""
    from bilbo import remote

    failures = asyncio.run(
        remote.fetch_logs(
            nodes,
            record.name,
            reaching_now(work, record),
            on_lines=on_lines,
            services=services,
            lines=lines,
            follow=follow,
        )
    )
    all_well(record, nodes, failures, "cannot read the logs")


def get(
    work: Work,
    record: Record,
    node: Node,
    source: str,
    target: Path,
    on_copying: Callable[[Copying], None],
) -> None:
    """Copies a file or a folder from a host. Raises RemoteError."""
    from bilbo import remote

    failure = asyncio.run(
        remote.get_files(node, source, target, reaching_now(work, record), on_copying=on_copying)
    )
    all_well(record, [node], [failure], "cannot copy it")


def put(
    work: Work,
    record: Record,
    nodes: tuple[Node, ...],
    source: Path,
    target: str,
    on_copying: Callable[[Copying], None],
) -> None:
    """Copies a file or a folder to hosts. Raises as `all_well` does."""
    from bilbo import remote

    if not source.exists():
        raise BilboError("no such file or folder", where=str(source))
    failures = asyncio.run(
        remote.put_files(nodes, source, target, reaching_now(work, record), on_copying=on_copying)
    )
    all_well(record, nodes, failures, "cannot copy it")


def ssh_command(work: Work, record: Record, node: Node, more: Sequence[str] = ()) -> list[str]:
    """Returns the command that opens a shell on a host with the system's ssh, as bilbo connects.

    `more` are additional ssh options, such as `-L` to forward a port. The shell has the variables
    of the host's services. Raises RemoteError without a private key, BilboError if the known
    hosts cannot be read.
    """
    from bilbo.remote import in_sh

    remote = reaching_now(work, record)
    node = asyncio.run(found_again(node, remote))
    key = expand_key_path(node.ssh_private_key, work.store.home)
    if not key.is_file():
        raise RemoteError(
            f"no private key at {key}", hint="Correct `ssh_private_key` in the profile."
        )
    known_hosts = remote.known_hosts.path
    try:
        known = remote.known_hosts.key(node.instance_id) is not None
    except OSError as error:
        raise BilboError(f"cannot read: {error.strerror}", where=str(known_hosts)) from error
    options = {
        "IdentityFile": _for_ssh(key),  # as -i, ssh would look for it before it reads its % signs
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": _for_ssh(known_hosts),
        "HostKeyAlias": node.instance_id,
        "HashKnownHosts": "no",  # bilbo reads the file too
        "ConnectTimeout": f"{remote.deadlines.connect:.0f}",
        "StrictHostKeyChecking": "yes" if known else "accept-new",
    }
    settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    shell = in_sh(_ENTER.format(cluster=record.name, host=node.instance_id, how="-l"))
    # An option, unlike a command, is ignored by -N; and of options ssh takes the first.
    more = [*more, "-o", f"RemoteCommand={shell.replace('%', '%%')}"]
    if sys.stdin.isatty():
        more += ["-o", "RequestTTY=yes"]
    where = ["-l", node.ssh_user, "--", node.public_ip or node.private_ip]
    return ["ssh", "-p", str(node.ssh_port), *settings, *more, *where]


def _for_ssh(path: Path) -> str:
    """Returns a path as a value of ssh's options: quoted, and none of its signs is a token; see
    ssh_config(5), TOKENS."""
    escaped = path.as_posix().replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def reaching_now(work: Work, record: Record) -> Remote:
    """Returns how to connect to a cluster's hosts, wherever they are now."""
    return reach(work, record.name, where=Whereabouts(record, work))


async def found_again(node: Node, remote: Remote) -> Node:
    """Returns the node at the address at which it is; as it is if nobody knows a better one."""
    from bilbo.remote import is_there

    if await is_there(node, remote, _KEY_SECONDS):
        return node
    return replace(node, public_ip=await remote.where(node) or node.public_ip)


def all_well(
    record: Record, nodes: Sequence[Node], failures: Sequence[HostFailure | None], what: str
) -> None:
    """Raises RemoteError if every host failed, PartlyDone if only some did."""
    failed = [(node, each) for node, each in zip(nodes, failures, strict=True) if each]
    if not failed:
        return
    if len(nodes) == 1:
        ((_, only),) = failed
        raise RemoteError(f"{what}: {only.what}", details=only.details, hint=only.hint)
    numbered = dict(numbers(record.inventory))
    lines = tuple(
        f"[{numbered[node.instance_id]}] {node.role} {node.instance_id}: {failure.what}"
        for node, failure in failed
    )
    kind = RemoteError if len(failed) == len(nodes) else PartlyDone
    raise kind(
        f"{what} on {len(failed)} of {len(nodes)} hosts", details=lines, hint=failed[0][1].hint
    )
