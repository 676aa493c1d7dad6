"""The commands about money: `cost` and `prices`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import click

from bilbo.cli.context import Context, default_target, pass_context, target_of, work
from bilbo.cli.output import echo, echo_table, print_json
from bilbo.cli.params import CLUSTER, JSON_OPTION
from bilbo.errors import BilboError, PartlyDone, RecordError, UsageError

if TYPE_CHECKING:
    from bilbo.present.cost_text import Account
    from bilbo.record import Record

_AT_ONCE = 8
_NO_TIME = "is not a duration such as 7d or 12h, nor a date such as 2026-03-01"


def _since(_ctx: click.Context, _param: click.Parameter, word: str | None) -> datetime | None:
    """Parses a duration back from now, or a date. Raises BadParameter."""
    from bilbo.lifetime import seconds

    if word is None:
        return None
    try:
        return datetime.now(timezone.utc) - timedelta(seconds=seconds(word))
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(word)
        return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
    except ValueError:
        raise click.BadParameter(f"{word[:40]!r} {_NO_TIME}.") from None


@click.command(short_help="Show what clusters have cost.")
@click.argument("name", type=CLUSTER, required=False)
@click.option(
    "--since",
    callback=_since,
    metavar="7d|DATE",
    help="Count from so long ago, or from a day (UTC) on.",
)
@JSON_OPTION
@pass_context
def cost(context: Context, name: str | None, since: datetime | None, as_json: bool) -> None:
    """Show what clusters have cost so far in USD: machines, disks and public addresses.

    \b
    With NAME also by group and by day, in UTC. Clusters that were destroyed count.
    Asks AWS for seconds what became of the machines; a machine that ended by
    itself counts exactly while AWS tells its end, or else between two bounds.
    Prices are those of each machine's start, as `bilbo prices show` has them.

    \b
    Examples:
      bilbo cost
      bilbo cost test
      bilbo cost test --since 7d
      bilbo cost --since 2026-03-01 --json
    """
    from bilbo.present.cost_text import account_document, account_text, cost_rows, notes

    found = _accounts(context, name)
    now = datetime.now(timezone.utc)
    if name and not found:
        context.store.load(name)  # raises, and says which name is near
    if as_json:
        print_json([account_document(each, now, since) for each in found])
    elif name:
        echo("\n\n".join(account_text(each, now, since) for each in found))
    elif found:
        echo_table(cost_rows(found, now, since))
        for each in found:
            for line in notes(each):
                echo(f"{each.name}: {line}", err=True)
    else:
        echo("No cluster has a ledger yet.", err=True)


def _accounts(context: Context, name: str | None) -> list[Account]:
    """The clusters and their ledgers, destroyed ones first; AWS is asked for those that exist."""
    from bilbo.cluster.bookkeeping import earlier, load
    from bilbo.model import Target
    from bilbo.present.cost_text import Account

    found = [Account(each, "destroyed", load(path)) for each, path in earlier(context.store, name)]
    records = []
    for each in [name] if name else context.store.names():
        try:
            if record := context.store.known(each):
                records.append(record)
        except RecordError as error:
            echo(f"bilbo: {error}", err=True)
    if not records:
        return found
    with work(context, Target(region="")) as w, ThreadPoolExecutor(_AT_ONCE) as pool:
        return [*found, *pool.map(lambda record: _account(context, record, w), records)]


def _account(context: Context, record: Record, w: object) -> Account:
    from bilbo.cluster.bookkeeping import ledger_of, look_at_machines
    from bilbo.cluster.work import Work
    from bilbo.present.cost_text import Account

    assert isinstance(w, Work)
    try:
        mine = replace(w, target=target_of(context, record))
        ledger = look_at_machines(record, record, mine)
    except (BilboError, OSError) as error:  # a full disk must not hide what is known
        what = error.what if isinstance(error, BilboError) else f"{error.strerror}"
        ledger = ledger_of(context.store, record.name)
        return Account(record.name, record.status, ledger, record.region, what)
    return Account(record.name, record.status, ledger, record.region)


@click.group(short_help="Get AWS's prices.")
def prices() -> None:
    """AWS's prices by region, kept in bilbo's home: machines, spot, disks, public addresses."""


@prices.command(short_help="Ask AWS for its prices.")
@click.option("--region", "regions", multiple=True, help="Of this region; may be repeated.")
@pass_context
def update(context: Context, regions: tuple[str, ...]) -> None:
    """Ask AWS for the prices of regions; default: all that records name, and the default one.

    \b
    bilbo asks by itself once they are 30 days old, beside what a command does.
    That needs the permissions pricing:GetProducts and
    ec2:DescribeSpotPriceHistory. The exit code is 3 if a region failed.

    \b
    Examples:
      bilbo prices update
      bilbo prices update --region ap-northeast-2
    """
    from bilbo.cluster.price_refresh import update as ask

    target = default_target(context)
    failed = 0
    with work(context, target) as w:
        for region in regions or _known_regions(context, target.region):
            w.progress.status(f"Asking for the prices of {region}")
            try:
                found = ask(region, w)
            except BilboError as error:
                failed += 1
                echo(f"bilbo: {error}", err=True)
                continue
            echo(f"{region}: {len(found.machines)} instance types, {len(found.spot)} on spot")
    if failed:
        raise click.exceptions.Exit(PartlyDone.exit_code)


def _known_regions(context: Context, default: str) -> list[str]:
    named = []
    for name in context.store.names():
        try:
            record = context.store.known(name)
        except RecordError:
            continue
        named += [record.region] if record else []
    found = sorted({each for each in (*named, default) if each})
    if not found:
        raise UsageError("no AWS region is known here", hint="Name it with --region.")
    return found


@prices.command(short_help="Show the prices that bilbo knows.")
@click.option("--region", help="Default: the default region.")
@click.argument("types", nargs=-1, metavar="[TYPE]...")
@JSON_OPTION
@pass_context
def show(context: Context, region: str | None, types: tuple[str, ...], as_json: bool) -> None:
    """Show the prices that bilbo knows, of all instance types or of each TYPE. Asks nobody.

    \b
    Examples:
      bilbo prices show m5.xlarge t3.micro
      bilbo prices show --region ap-northeast-2 --json
    """
    from dataclasses import asdict

    from bilbo.cli.context import default_region
    from bilbo.prices import load

    place = region or default_region(context)
    if not place:
        raise UsageError("no AWS region is set", hint="Name it with --region.")
    found = load(context.home, place)
    if as_json:
        print_json(asdict(found))
        return
    if not found.date:
        raise BilboError(
            f"no prices of {place} are known here",
            hint=f"Get them: bilbo prices update --region {place}",
        )
    rows = [("TYPE", "USD/H", "SPOT USD/H")]
    for each in types or sorted(found.machines):
        rows.append((each, _price(found.machines.get(each)), _price(found.spot.get(each))))
    rows.append(("gp3, GiB and month", _price(found.disk), ""))
    rows.append(("public IPv4 address", _price(found.address), ""))
    echo_table(rows)
    echo(f"As AWS told on {found.date}, in USD.", err=True)


def _price(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
