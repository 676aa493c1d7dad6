"""What the commands share: bilbo's home, and the target of a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from bilbo.cli.output import echo
from bilbo.errors import LocalError

if TYPE_CHECKING:
    from bilbo.cluster.work import Work
    from bilbo.model import ClusterSpec, Target
    from bilbo.record import Record, Store


@dataclass
class Context:
    """The global options, and what depends on them."""

    verbose: int
    local: bool
    home: Path

    @cached_property
    def store(self) -> Store:
        """The records in bilbo's home."""
        from bilbo.record import Store

        return Store(self.home)


pass_context = click.make_pass_decorator(Context)


def home() -> Path:
    """Returns bilbo's home as an absolute path: BILBO_HOME, or `~/.bilbo`."""
    named = os.environ.get("BILBO_HOME")
    return Path(named).expanduser().absolute() if named else Path.home() / ".bilbo"


def target_of(context: Context, record: Record) -> Target:
    """Returns the target of an existing cluster. Raises LocalError if the stand-in is stopped."""
    found = target_at(context, record.region, record.endpoint_url)
    if found is None:
        raise LocalError(
            f"cluster {record.name!r} is in the stand-in AWS, which is not running",
            hint="Its machines stopped with it. Run `bilbo local start`, then "
            f"`bilbo destroy {record.name}` to clean up or `bilbo create` to create it again.",
        )
    return found


def target_at(context: Context, region: str, endpoint_url: str | None) -> Target | None:
    """Returns the target at an endpoint, None for AWS's own; None if it is the stand-in, and that
    is stopped."""
    from bilbo import local
    from bilbo.model import Target

    if endpoint_url is None:
        return Target(region=region)
    if not local.owns(context.home, endpoint_url):
        return Target(region, endpoint_url, {"AWS_ENDPOINT_URL": endpoint_url})
    running = local.target(context.home)
    return replace(running, region=region) if running else None


def load(
    context: Context, profile: str, name: str | None, overrides: tuple[str, ...] = ()
) -> tuple[ClusterSpec, Target]:
    """Returns the profile's specification and its target: the cluster's own if it exists."""
    from bilbo.model import Target
    from bilbo.profile import loading, naming

    cluster = naming.cluster_name(naming.find(profile, context.home)) if name is None else name
    naming.check_cluster_name(cluster)
    record = context.store.known(cluster)
    standin = _started(context) if context.local else None
    if record:
        target = target_of(context, record)
        if standin and record.endpoint_url != standin.endpoint_url:
            raise LocalError(
                f"cluster {cluster!r} is not in the stand-in AWS",
                hint="Omit --local, or choose another name with -n.",
            )
    elif standin:
        target = standin
    else:
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        target = Target(region=_region() or "", endpoint_url=endpoint)
    spec = loading.load(
        profile,
        context.home,
        cluster=cluster,
        overrides=overrides,
        region=target.region or None,
    )
    return spec, replace(target, region=spec.region)


def default_target(context: Context) -> Target:
    """Returns the target for what belongs to no cluster; its region is empty if none is set."""
    from bilbo.model import Target

    if context.local:
        return _started(context)
    return Target(region=_region() or "", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))


def default_region(context: Context) -> str | None:
    """Returns the region of a cluster whose profile names none; starts no stand-in."""
    return (_region() or "us-east-1") if context.local else _region()


def _started(context: Context) -> Target:
    from bilbo import local

    if local.target(context.home) is None:
        echo("Starting the stand-in AWS …", err=True)
    return local.start(context.home, region=_region() or "us-east-1")


def _region() -> str | None:
    """The region that Terraform's provider would use: environment, then AWS configuration."""
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if os.environ.get(variable):
            return os.environ[variable]
    if not (Path.home() / ".aws" / "config").is_file() and "AWS_CONFIG_FILE" not in os.environ:
        return None
    import botocore.session

    region: str | None = botocore.session.Session().get_config_variable("region")
    return region


def named(ctx: click.Context) -> str:
    """Returns a command's name and the names of its given options, but no arguments or values:
    they may hold secrets."""
    given = [
        max(param.opts, key=len)
        for param in ctx.command.params
        if isinstance(param, click.Option)
        and ctx.get_parameter_source(param.name or "") == ParameterSource.COMMANDLINE
    ]
    return " ".join([*ctx.command_path.split()[1:], *given])


@contextmanager
def work(
    context: Context,
    target: Target,
    *,
    yes: bool = False,
    timeout: float | None = None,
    live: bool = True,
) -> Iterator[Work]:
    """Yields what an operation needs, and shows its progress.

    With `live` False the terminal stays free for the operation's own output.
    """
    from bilbo.cli.console import Console
    from bilbo.cli.logfile import open_log
    from bilbo.cluster.work import Work

    log = open_log(context.home)
    log.info("bilbo %s", named(click.get_current_context()))
    with Console(log, yes=yes, verbose=context.verbose, live=live) as console:
        yield Work(context.store, target, console, timeout)
