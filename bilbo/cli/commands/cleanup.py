"""`sweep`, which removes what no record names."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bilbo.cli.context import Context, default_target, pass_context, work
from bilbo.cli.output import echo, echo_table, print_json
from bilbo.cli.params import JSON_OPTION
from bilbo.errors import BilboError, PartlyDone, UsageError

if TYPE_CHECKING:
    from bilbo.cluster.work import Work
    from bilbo.held import Leftover, Swept

_NO_OWNER = "none"


@click.command(short_help="Find what no cluster here owns.")
@click.option("--region", "asked", multiple=True, help="Look in this region; may be repeated.")
@click.option("--all-regions", is_flag=True, help="Look in every region of the account.")
@click.option(
    "--owner",
    "owners",
    multiple=True,
    metavar="OWNER",
    help="With -y, also remove what has this owner, or `none`; may be repeated.",
)
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    help="A JSON file of USD per hour by instance type, instead of AWS's prices.",
)
@click.option("-y", "--yes", is_flag=True, help="Remove what is yours.")
@JSON_OPTION
@pass_context
def sweep(
    context: Context,
    asked: tuple[str, ...],
    all_regions: bool,
    owners: tuple[str, ...],
    prices: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Find what carries bilbo's tags in AWS but belongs to no cluster that is known here.

    \b
    Looks in the regions that records and profiles name, and in the default one.
    Lists machines, worker groups, launch templates, security groups and unattached
    volumes: whose they are, and since when. Lists images, machines and key pairs of
    builds, too, which it never removes: it prints the commands. The exit code is 3 if
    something is left over, or a region could not be seen.

    \b
    -y removes what is yours: what has the owner of a cluster that was made from
    this home. --owner names another one, such as your own from a deleted home. An
    owner can be a team-mate, whose cluster is in use: look before you remove.

    \b
    Examples:
      bilbo sweep
      bilbo sweep --all-regions --json
      bilbo sweep -y
      bilbo sweep -y --owner 0123456789abcdef
    """
    from bilbo.cli.reviews import read_prices
    from bilbo.cluster.sweep import leftovers
    from bilbo.present.leftovers import leftover_rows, leftovers_document

    given = read_prices(prices)
    with work(context, default_target(context)) as w:
        found = leftovers(w, _regions(context, w, asked, everywhere=all_regions))
        # There may be no default region, and STS is asked in one.
        account = replace(w, target=replace(w.target, region=found.regions[0])).account
    costs = _costs(context, found, given)
    if as_json:
        print_json(leftovers_document(found, account, costs))
    elif found.leftovers or found.built:
        echo_table(leftover_rows(found, costs))
    for region, why in found.unseen.items():
        echo(f"Not seen: {region}: {why}", err=True)
    left = _removed(context, found, owners) if yes else list(found.leftovers)
    _tell(found, left, account, yes=yes)
    if left or found.built or found.unseen:
        raise click.exceptions.Exit(PartlyDone.exit_code)


def _costs(context: Context, found: Swept, given: dict[str, float]) -> dict[str, dict[str, float]]:
    from bilbo.prices import load

    return {each: {**load(context.home, each).machines, **given} for each in found.regions}


def _regions(context: Context, w: Work, asked: tuple[str, ...], *, everywhere: bool) -> list[str]:
    from bilbo import aws
    from bilbo.cluster.sweep import regions

    if everywhere:
        return aws.regions(replace(w.target, region=w.target.region or "us-east-1"))
    found = regions(context.store, w.target.region, _profiles(context), asked)
    if not found:
        raise UsageError(
            "no AWS region is known here", hint="Name it with --region, or pass --all-regions."
        )
    w.progress.status(f"Looking in {', '.join(found)}")
    return found


def _profiles(context: Context) -> Iterator[dict[str, Any]]:
    """The profiles in bilbo's home that can be read."""
    from bilbo.profile.parsing import read

    for path in sorted((context.home / "profiles").glob("*.json")):
        try:
            yield dict(read(path))
        except BilboError:
            continue


def _removed(context: Context, found: Swept, owners: tuple[str, ...]) -> list[Leftover]:
    """Removes what is the caller's, or an owner's in `owners`, and returns what is left over."""
    from bilbo.cluster.destroy import destroy
    from bilbo.cluster.sweep import take_up

    left = []
    for leftover in found.leftovers:
        if not leftover.mine and (leftover.owner or _NO_OWNER) not in owners:
            left.append(leftover)
            continue
        target = replace(default_target(context), region=leftover.region)
        with work(context, target, yes=True) as w:
            try:
                take_up(leftover, w)
                destroy(leftover.cluster, w)
            except BilboError as error:
                if error.exit_code == 130:  # Ctrl-C
                    raise
                echo(f"bilbo: {error}", err=True)
                left.append(leftover)
                continue
        echo(f"Removed what was left of cluster '{leftover.cluster}'.", err=True)
    return left


def _tell(found: Swept, left: list[Leftover], account: str | None, *, yes: bool) -> None:
    from bilbo.present.leftovers import removal_of_builds

    where = ", ".join(each for each in found.regions if each not in found.unseen)
    if found.built:
        echo(
            "No build of this home has made these images and their like. They may be a "
            f"team-mate's, and in use. To remove them:\n{removal_of_builds(found.built)}",
            err=True,
        )
    if not left and where:
        account = account or "unknown"
        echo(f"No cluster's resources are left over in {where} (account {account}).", err=True)
    if left and not yes:
        others = sorted({each.owner or _NO_OWNER for each in left if not each.mine})
        if any(each.mine for each in left):
            echo("To remove what is yours: bilbo sweep -y", err=True)
        if others:
            words = " ".join(f"--owner {shlex.quote(each)}" for each in others)
            echo(
                "What has another owner may be a team-mate's, and in use. If it is yours, as from "
                f"a deleted home: bilbo sweep -y {words}",
                err=True,
            )
