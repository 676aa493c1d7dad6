"""Arguments and options that several commands share: validated on input, completed by the
shell."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from bilbo.cli.context import home
from bilbo.errors import BilboError
from bilbo.model import HEADS
from bilbo.record import Store

if TYPE_CHECKING:
    TextType = click.ParamType[str]
    NumberType = click.ParamType[float]
else:  # click before 8.4 has no generic types
    TextType = NumberType = click.ParamType


ROLES = ("notebook", *HEADS, "workers", "all")
LONGEST_TIMEOUT = 86400.0


def _starting(words: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


class ClusterName(TextType):
    """A cluster's name, never a path. Raises UsageError for an invalid one."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the validated name."""
        from bilbo.profile.naming import check_cluster_name

        check_cluster_name(value)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the known clusters."""
        return _starting(Store(home()).names(), incomplete)


class ProfileName(TextType):
    """A profile: a name in bilbo's home or the current folder, or a path."""

    name = "profile"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the name unchanged; the command looks it up."""
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the profiles in bilbo's home and the current folder, or else files."""
        folders = (home() / "profiles", Path())
        names = sorted({path.name for folder in folders for path in folder.glob("*.json")})
        return _starting(names, incomplete) or [CompletionItem(incomplete, type="file")]


class TargetName(TextType):
    """A TARGET; the cluster's record says which instances it names."""

    name = "target"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the target unchanged; the command looks it up."""
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the numbers, roles and instance ids of the cluster named before it."""
        return complete_target(ctx, param, incomplete)


def complete_target(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Returns the targets of the cluster on the command line; none if its record is damaged."""
    if ctx.params.get("words"):
        return []  # the command for the host has begun
    try:
        nodes = list(Store(home()).load(ctx.params["name"]).inventory.nodes())
    except (BilboError, KeyError, TypeError):
        return []
    items = [CompletionItem(role, help="role") for role in ROLES]
    groups = dict.fromkeys(node.group for node in nodes if node.role == "worker")
    items += [CompletionItem(name, help="worker group") for name in groups if name != "worker"]
    for number, node in enumerate(nodes, start=1):
        items.append(CompletionItem(str(number), help=f"{node.role} {node.public_ip}"))
        items.append(CompletionItem(node.instance_id, help=node.role))
    return [item for item in items if str(item.value).startswith(incomplete)]


class Digest(TextType):
    """The sha256 of a reviewed plan: 64 hex digits, with or without the prefix `sha256:`."""

    name = "digest"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the digits in lower case. Fails with a usage error for any other text."""
        digits = value.lower().removeprefix("sha256:")
        if not re.fullmatch("[0-9a-f]{64}", digits):
            self.fail(f"{value[:80]!r} is not a digest: it must be 64 hex digits.", param, ctx)
        return digits


class Seconds(NumberType):
    """A time in seconds, above 0 and at most a day."""

    name = "seconds"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the number. Fails with a usage error for any other text."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds <= LONGEST_TIMEOUT:  # this form refuses NaN too
            self.fail(
                f"{str(value)[:40]!r} must be greater than 0 and at most "
                f"{LONGEST_TIMEOUT:.0f} seconds.",
                param,
                ctx,
            )
        return seconds


CLUSTER = ClusterName()
DIGEST = Digest()
PROFILE = ProfileName()
TARGET = TargetName()
SECONDS = Seconds()
STAGE_TIMEOUT_OPTION = click.option(
    "--timeout",
    type=SECONDS,
    help="Seconds per stage and host.  [default: connect 180, start 60, ready 120]",
)
FORMATS = ("text", "json", "markdown")
FORMAT_OPTION = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", help="Output format."
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
TIMEOUT_OPTION = click.option(
    "--timeout", type=SECONDS, help="Seconds to wait for a host.  [default: 30]"
)
