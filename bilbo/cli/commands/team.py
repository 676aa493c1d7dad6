"""The commands for teams: `render`, `attach`, `unlock` and `state-bucket`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bilbo.cli.context import (
    Context,
    default_region,
    default_target,
    pass_context,
    target_of,
    work,
)
from bilbo.cli.output import echo
from bilbo.cli.params import CLUSTER, PROFILE
from bilbo.errors import BilboError, UsageError
from bilbo.model import SharedState
from bilbo.permissions import STEPS

if TYPE_CHECKING:
    from bilbo.model import Target


_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.+?))?/?")


# -- render --------------------------------------------------------------------------------


@click.command(short_help="Write only the Terraform files.")
@click.argument("profile", type=PROFILE)
@click.option("-n", "--name", type=CLUSTER, help="The cluster's name; default: the profile's.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to write to."
)
@pass_context
def render(context: Context, profile: str, name: str | None, output: Path) -> None:
    """Write PROFILE's Terraform files into a folder, for use with terraform alone.

    The same profile gives the same bytes on any machine. If the profile has shared
    state, bilbo reads the cluster's owner from it.

    \b
    Examples:
      bilbo render test.json -o infrastructure/test
    """
    from bilbo.cluster.export import export
    from bilbo.profile import loading

    # Any region will do: `export` refuses a profile that names none.
    spec = loading.load(profile, context.home, cluster=name, region="us-east-1")

    def target() -> Target:
        record = context.store.known(spec.name)
        found = target_of(context, record) if record else default_target(context)
        return replace(found, region=spec.region)

    for path in export(spec, output, target):
        echo(output / path)


# -- permissions ---------------------------------------------------------------------------


@click.command(short_help="Print the IAM policy that a profile needs.")
@click.argument("profile", type=PROFILE)
@click.option("-n", "--name", type=CLUSTER, help="The cluster's name; default: the profile's.")
@click.option(
    "--step", type=click.Choice(STEPS), help="For one step alone; default: all that PROFILE needs."
)
@click.option("--json", "as_json", is_flag=True, help="Print each step's policy, in one document.")
@pass_context
def permissions(
    context: Context, profile: str, name: str | None, step: str | None, as_json: bool
) -> None:
    """Print the IAM policy under which bilbo can create, change and destroy PROFILE's cluster.

    It is narrowed by region and tags where AWS allows it, and by the owner once the
    cluster exists. Calls nothing.

    \b
    Examples:
      bilbo permissions test.json > policy.json
      bilbo permissions team.json --step plan
    """
    from bilbo.permissions import policy
    from bilbo.profile import loading

    spec = loading.load(profile, context.home, cluster=name, region=default_region(context))
    if record := context.store.known(spec.name):
        spec = replace(spec, region=record.region, owner=record.owner)
    found: dict[str, object] = policy(spec, step)
    if as_json:
        found = {each: policy(spec, each) for each in (STEPS if step is None else (step,))}
    echo(json.dumps(found, indent=2))


# -- shared state --------------------------------------------------------------------------


@click.command(short_help="Work on a team-mate's cluster.")
@click.argument("name", type=CLUSTER)
@click.argument("source", metavar="PROFILE|s3://BUCKET/PREFIX")
@click.option(
    "-i", "--key", type=click.Path(path_type=Path), help="The private key of the cluster's hosts."
)
@click.option("--region", "bucket_region", help="The bucket's region, for an s3:// address.")
@pass_context
def attach(
    context: Context, name: str, source: str, key: Path | None, bucket_region: str | None
) -> None:
    """Work on the cluster NAME from this machine, through its team's shared state.

    \b
    Give its profile, or the address of its state: s3://BUCKET/PREFIX.

    \b
    Examples:
      bilbo attach test test.json -i ~/.ssh/team.pem
      bilbo attach test s3://my-team-bilbo-state/bilbo -i ~/.ssh/team.pem
    """
    from bilbo.cluster import attach as attaching
    from bilbo.present import report
    from bilbo.profile import building, checking

    target = default_target(context)
    state, mine = _source(context, name, source, bucket_region or target.region)
    path = str(key.expanduser().absolute()) if key else None
    with work(context, replace(target, region=target.region or state.region)) as w:
        document = attaching.shared_document(name, state, w, mine=mine, key=path)
        checking.check_profile(document)
        spec = building.build(document, name)
        w = replace(w, target=replace(target, region=spec.region))
        record = attaching.attach(spec, w)
    echo(report.summary(record))
    if record.status == "ready" and record.inventory.notebook and not record.notebook_url:
        echo("Could not read the token on the notebook's host; check the key (-i).", err=True)


def _source(
    context: Context, name: str, source: str, bucket_region: str
) -> tuple[SharedState, Mapping[str, object] | None]:
    """Returns where the state is, and this machine's profile if one was given."""
    if source.startswith("s3://"):
        found = _ADDRESS.fullmatch(source)
        if found is None:
            raise UsageError(f"{source[:100]!r} is not of the form s3://BUCKET/PREFIX")
        if not bucket_region:
            raise UsageError("the bucket's region is unknown; pass --region")
        return SharedState(found[1], bucket_region, found[2] or "bilbo"), None
    from bilbo.profile import loading

    spec = loading.load(source, context.home, cluster=name, region=bucket_region or None)
    if spec.state is None:
        raise BilboError(
            "the profile has no shared state, so only the machine that created the cluster can "
            "work on it",
            where=source,
            hint="Add `state` to the profile, and run `bilbo create` on that machine.",
        )
    return spec.state, spec.profile


@click.command(short_help="Remove a stale lock from shared state.")
@click.argument("name", type=CLUSTER)
@click.argument("lock_id")
@pass_context
def unlock(context: Context, name: str, lock_id: str) -> None:
    """Remove the lock LOCK_ID from the shared state of the cluster NAME.

    Do this only if the process that holds it is certainly gone: two processes at
    once corrupt the state.

    \b
    Examples:
      bilbo unlock test 6638d010-8fbc-be29-bbb4-3bc1b1eaa6f1
    """
    from bilbo.cluster.shared_state import take_lock_away

    record = context.store.load(name)
    with work(context, target_of(context, record)) as w:
        take_lock_away(record, lock_id, w)
    echo(f"The state of cluster '{name}' is unlocked.", err=True)


@click.group("state-bucket", short_help="Create a bucket for shared state.")
def state_bucket() -> None:
    """The S3 bucket that holds a team's shared state."""


@state_bucket.command(short_help="Create a bucket for shared state.")
@click.argument("bucket", metavar="NAME")
@click.option("--region", "bucket_region", help="Its region; default: the environment's.")
@pass_context
def create(context: Context, bucket: str, bucket_region: str | None) -> None:
    """Create the S3 bucket NAME: versioned, encrypted, private, and never destroyed by bilbo.

    \b
    Examples:
      bilbo state-bucket create my-team-bilbo-state --region ap-northeast-2
    """
    from bilbo.cluster.state_bucket import create_bucket

    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
        raise UsageError(
            f"{bucket[:80]!r} is not a bucket name: use 3 to 63 lower-case letters, digits, - or ."
        )
    target = default_target(context)
    where = bucket_region or target.region
    if not where:
        raise UsageError("the region is unknown; pass --region")
    with work(context, replace(target, region=where)) as w:
        changed = create_bucket(bucket, w)
    echo(f"The bucket '{bucket}' is ready." if changed else "Nothing to do.")
    part = json.dumps({"state": {"bucket": bucket, "region": where}})
    echo(f"To share state in it, add to a profile: {part[1:-1]}", err=True)
