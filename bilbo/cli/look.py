"""The commands that only look: `clusters`, `desc`, `notebook`, `dashboard`, `profiles`.

They import little: see the design's decision on late imports.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bilbo import report
from bilbo.cli.context import Context, pass_context
from bilbo.cli.names import CLUSTER
from bilbo.cli.output import echo, echo_table, print_json
from bilbo.errors import BilboError, ProfileError, RecordError
from bilbo.files import private_write
from bilbo.record import Record, Store, to_json

if TYPE_CHECKING:
    from bilbo.cluster.reality import InstanceDifference

# A page on a host: its address or name, and no more than what can be seen.
_PAGE = re.compile(
    r"https?://([A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?([/?][!-~]*)?"
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.command(short_help="List active clusters.")
@JSON_OPTION
@pass_context
def clusters(context: Context, as_json: bool) -> None:
    """List active clusters: a table on a terminal, a name a line elsewhere.

    \b
    Examples:
      bilbo clusters
      bilbo clusters --json
      bilbo clusters | xargs -n 1 bilbo desc
    """
    names = context.store.names()
    if not as_json and not sys.stdout.isatty():
        echo("".join(f"{name}\n" for name in names), nl=False)
        return
    records, damaged = [], []
    for name in names:
        try:
            records.append(context.store.load(name))
        except RecordError:
            damaged.append(name)
    if as_json:
        print_json(report.clusters_document(records, damaged))
    elif names:
        echo_table(report.clusters(records, damaged))
    else:
        echo("There are no clusters.", err=True)


@click.command(short_help="Describe a cluster.")
@click.argument("name", type=CLUSTER)
@click.option("-d", "--detail", "--json", is_flag=True, help="The whole record, as JSON.")
@click.option("--refresh", is_flag=True, help="Look whether AWS agrees.")
@click.option("--state", is_flag=True, help="List Terraform's resources and outputs.")
@pass_context
def desc(context: Context, name: str, detail: bool, refresh: bool, state: bool) -> None:
    """Describe the cluster NAME.

    \b
    Examples:
      bilbo desc test
      bilbo desc test -d
      bilbo desc test --refresh
      bilbo desc test --state --json
    """
    record = context.store.load(name)
    if state:
        _show_state(context, record, as_json=detail)
        return
    found = _look(context, record) if refresh else None
    if detail:
        reality = {} if found is None else {"differences": [asdict(each) for each in found]}
        print_json({**to_json(record), **reality})
        return
    echo(report.summary(record))
    echo(f"\nTerraform's folder:   {record.terraform_dir}", err=True)
    if found is not None:
        rows = [(each.instance_id, each.role, each.state, each.public_ip) for each in found]
        echo("\n" + report.reality(name, rows))


def _show_state(context: Context, record: Record, *, as_json: bool) -> None:
    from bilbo.cli.context import target_of, work
    from bilbo.review.state import state_document, state_text

    with work(context, target_of(context, record)) as w:
        terraform = w.terraform(record.name)
        document = state_document(str(terraform.folder), terraform.state())
    if as_json:
        print_json(document)
    else:
        echo(state_text(document))


def _look(context: Context, record: Record) -> list[InstanceDifference]:
    from bilbo.cli.context import target_of, work
    from bilbo.cluster.reality import differences

    with work(context, target_of(context, record)) as w:
        return differences(record, w)


URL_OPTION = click.option("-u", "--url", is_flag=True, help="Print the URL and open nothing.")


@click.command(short_help="Open notebook.")
@click.argument("name", type=CLUSTER)
@URL_OPTION
@pass_context
def notebook(context: Context, name: str, url: bool) -> None:
    """Open JupyterLab of the cluster NAME in the browser.

    \b
    Examples:
      bilbo notebook test
      bilbo notebook test -u
    """
    open_notebook(context.store, context.store.load(name), only_print=url)


def open_notebook(store: Store, record: Record, *, only_print: bool = False) -> None:
    """Opens or prints JupyterLab's address. Raises BilboError where there is none."""
    _open(store, record, record.notebook_url, "a notebook", only_print)


@click.command(short_help="Open dashboard.")
@click.argument("name", type=CLUSTER)
@URL_OPTION
@pass_context
def dashboard(context: Context, name: str, url: bool) -> None:
    """Open the engine's dashboard of the cluster NAME in the browser.

    \b
    Examples:
      bilbo dashboard test
      bilbo dashboard test -u
    """
    open_dashboard(context.store, context.store.load(name), only_print=url)


def open_dashboard(store: Store, record: Record, *, only_print: bool = False) -> None:
    """Opens or prints the dashboard's address. Raises BilboError where there is none."""
    _open(store, record, record.dashboard_url, "an engine, such as Dask", only_print)


def _open(store: Store, record: Record, url: str | None, what: str, only_print: bool) -> None:
    if url is None:
        raise BilboError(
            f"cluster {record.name!r} has no {what.split(' ', 1)[1]}",
            hint=f"`bilbo desc {record.name}` shows what it has.",
        )
    if only_print:
        echo(url)
        return
    if not _PAGE.fullmatch(url):
        raise BilboError(
            f"this is no address that a browser should open: {url[:80]!r}",
            hint=f"The record of cluster {record.name!r} holds it: `bilbo desc -d {record.name}`.",
        )
    browser = record.profile.get("webbrowser")
    if not _opened(_page(store, record.name, url), browser):
        raise BilboError(
            f"the browser could not be opened{f': {browser}' if browser else ''}",
            hint="Print the address with -u and open it yourself, or correct `webbrowser` in the "
            "profile: the whole path of a program, or its name on PATH.",
        )


def _page(store: Store, name: str, url: str) -> str:
    """A page of our own that leads to `url`: the notebook's token must not stand in argv."""
    import html

    path = store.folder(name) / "open.html"
    target = html.escape(url, quote=True)
    private_write(
        path,
        '<!DOCTYPE html><meta charset="utf-8"><title>bilbo</title>'
        f'<meta http-equiv="refresh" content="0;url={target}"><a href="{target}">Go on</a>\n',
    )
    return path.as_uri()


def _opened(url: str, browser: str | None) -> bool:
    from bilbo.programs import find, folders

    if browser is None:
        import webbrowser

        os.environ["PATH"] = os.pathsep.join(folders(os.environ))  # where it looks for browsers
        return webbrowser.open(url)
    import subprocess

    path = Path(browser).expanduser()
    program = find(browser, os.environ) if path.name == browser else str(path)
    if program is None or not Path(program).is_absolute():
        return False  # a relative path would mean what lies in the current folder
    try:
        subprocess.Popen(
            [program, url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return True


@click.command(short_help="List all profiles.")
@JSON_OPTION
@pass_context
def profiles(context: Context, as_json: bool) -> None:
    """List all profiles of bilbo's home, a name a line.

    \b
    Examples:
      bilbo profiles
      bilbo profiles --json
    """
    paths = sorted((context.home / "profiles").glob("*.json"))
    if as_json:
        print_json([_profile_document(path) for path in paths])
    else:
        echo("".join(f"{path.name}\n" for path in paths), nl=False)


def _profile_document(path: Path) -> dict[str, object]:
    from bilbo.profile.reading import read

    document: dict[str, object] = {"name": path.name, "path": str(path)}
    try:
        document["description"] = read(path).get("description", "")
    except ProfileError as error:
        document["error"] = str(error)
    return document
