"""The commands that only look: `clusters`, `desc`, `notebook`, `dashboard`, `profiles`, `version`.

They import little: see the design's decision on late imports.
"""

from __future__ import annotations

import json

import click

from bilbo import __version__, report
from bilbo.cli.context import Context, pass_context
from bilbo.errors import BilboError
from bilbo.files import private_write
from bilbo.record import Record, Store, to_json


@click.command(short_help="List active clusters.")
@pass_context
def clusters(context: Context) -> None:
    """List active clusters, a name a line."""
    for name in context.store.names():
        click.echo(name)


@click.command(short_help="Describe a cluster.")
@click.argument("name")
@click.option("-d", "--detail", is_flag=True, help="The whole record, as JSON.")
@pass_context
def desc(context: Context, name: str, detail: bool) -> None:
    """Describe the cluster NAME.

    \b
    Examples:
      bilbo desc test
      bilbo desc test -d
    """
    record = context.store.load(name)
    if detail:
        click.echo(json.dumps(to_json(record), indent=4, sort_keys=True, ensure_ascii=False))
    else:
        click.echo(report.summary(record))


URL_OPTION = click.option("-u", "--url", is_flag=True, help="Print the URL and open nothing.")


@click.command(short_help="Open notebook.")
@click.argument("name")
@URL_OPTION
@pass_context
def notebook(context: Context, name: str, url: bool) -> None:
    """Open JupyterLab of the cluster NAME in the browser."""
    record = context.store.load(name)
    _open(context.store, record, record.notebook_url, "a notebook", url)


@click.command(short_help="Open dashboard.")
@click.argument("name")
@URL_OPTION
@pass_context
def dashboard(context: Context, name: str, url: bool) -> None:
    """Open Dask's dashboard of the cluster NAME in the browser."""
    record = context.store.load(name)
    _open(context.store, record, record.dask_dashboard_url, "a Dask scheduler", url)


def _open(store: Store, record: Record, url: str | None, what: str, only_print: bool) -> None:
    if url is None:
        raise BilboError(
            f"cluster {record.name!r} has no {what.split(' ', 1)[1]}",
            hint=f"`bilbo desc {record.name}` shows what it has.",
        )
    if only_print:
        click.echo(url)
        return
    browser = record.profile.get("webbrowser")
    if not _opened(_page(store, record.name, url), browser):
        raise BilboError(
            f"the browser could not be opened{f': {browser}' if browser else ''}",
            hint="Print the address with -u and open it yourself.",
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
    if browser is None:
        import webbrowser

        return webbrowser.open(url)
    import subprocess
    from pathlib import Path

    try:
        subprocess.Popen(
            [str(Path(browser).expanduser()), url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return True


@click.command(short_help="List all profiles.")
@pass_context
def profiles(context: Context) -> None:
    """List all profiles of bilbo's home, a name a line."""
    for path in sorted((context.home / "profiles").glob("*.json")):
        click.echo(path.name)


@click.command(short_help="Show bilbo version.")
def version() -> None:
    """Show bilbo version."""
    click.echo(__version__)
