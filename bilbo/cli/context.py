"""What the commands share: bilbo's home, and which AWS a cluster lives in."""

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
    """The options before the command's name, and what follows from them."""

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
    """bilbo's home as an absolute path: BILBO_HOME, else `~/.bilbo`."""
    named = os.environ.get("BILBO_HOME")
    return Path(named).expanduser().absolute() if named else Path.home() / ".bilbo"


def target_of(context: Context, record: Record) -> Target:
    """The AWS that an existing cluster lives in. Raises LocalError for a stopped stand-in."""
    from bilbo import local
    from bilbo.model import Target

    if record.endpoint_url is None:
        return Target(region=record.region)
    if not local.owns(context.home, record.endpoint_url):
        environment = {"AWS_ENDPOINT_URL": record.endpoint_url}
        return Target(record.region, record.endpoint_url, environment)
    running = local.target(context.home)
    if running is None:
        raise LocalError(
            f"cluster {record.name!r} lives in the stand-in AWS, which is not running",
            hint="Its machines went with it. Start it again with `bilbo local start`; then "
            f"`bilbo destroy {record.name}` clears up, or `bilbo create` makes it anew.",
        )
    return replace(running, region=record.region)


def load(
    context: Context, profile: str, name: str | None, overrides: tuple[str, ...] = ()
) -> tuple[ClusterSpec, Target]:
    """The profile's specification and its AWS: the cluster's own where it exists already."""
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
                f"cluster {cluster!r} does not live in the stand-in AWS",
                hint="Leave out --local, or choose another name with -n.",
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
    """The AWS of what belongs to no cluster yet; its region is empty where nothing names one."""
    from bilbo.model import Target

    if context.local:
        return _started(context)
    return Target(region=_region() or "", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))


def _started(context: Context) -> Target:
    from bilbo import local

    if local.target(context.home) is None:
        echo("Starting the stand-in AWS …", err=True)
    return local.start(context.home, region=_region() or "us-east-1")


def _region() -> str | None:
    """The region that Terraform's provider would use: environment, then AWS's configuration."""
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if os.environ.get(variable):
            return os.environ[variable]
    if not (Path.home() / ".aws" / "config").is_file() and "AWS_CONFIG_FILE" not in os.environ:
        return None
    import botocore.session

    region: str | None = botocore.session.Session().get_config_variable("region")
    return region


def named(ctx: click.Context) -> str:
    """A command's name and the names of the options that were given, and never an argument: a
    command for a host, or the value of an option, may hold a secret."""
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
    """What an operation needs, with progress shown while it lasts.

    `live` False keeps a terminal free for what the operation itself prints.
    """
    from bilbo.cli.console import Console
    from bilbo.cli.logfile import open_log
    from bilbo.cluster.work import Work

    log = open_log(context.home)
    log.info("bilbo %s", named(click.get_current_context()))
    with Console(log, yes=yes, verbose=context.verbose, live=live) as console:
        yield Work(context.store, target, console, timeout)
