"""Opens JupyterLab and dashboards in the user's browser."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bilbo.cli.output import echo
from bilbo.errors import BilboError
from bilbo.files import private_write
from bilbo.record import Record, Store

# A page on a host: an address or a name, and printable ASCII only.
_PAGE = re.compile(
    r"https?://([A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?([/?][!-~]*)?"
)


def open_notebook(store: Store, record: Record, *, only_print: bool = False) -> None:
    """Opens or prints JupyterLab's URL. Raises BilboError if there is none."""
    _open(store, record, record.notebook_url, "a notebook", only_print)


def open_dashboard(store: Store, record: Record, *, only_print: bool = False) -> None:
    """Opens or prints the dashboard's URL. Raises BilboError if there is none."""
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
            f"not a URL that bilbo opens in a browser: {url[:80]!r}",
            hint=f"It comes from the record of cluster {record.name!r}: see "
            f"`bilbo desc -d {record.name}`.",
        )
    browser = record.profile.get("webbrowser")
    if not _opened(_page(store, record.name, url), browser):
        raise BilboError(
            f"cannot open the browser{f': {browser}' if browser else ''}",
            hint="Print the URL with -u and open it yourself, or correct `webbrowser` in the "
            "profile: a program's full path, or its name on PATH.",
        )


def _page(store: Store, name: str, url: str) -> str:
    """Writes a local page that redirects to `url`, to keep the notebook's token out of argv."""
    import html

    path = store.folder(name) / "open.html"
    target = html.escape(url, quote=True)
    private_write(
        path,
        '<!DOCTYPE html><meta charset="utf-8"><title>bilbo</title>'
        f'<meta http-equiv="refresh" content="0;url={target}"><a href="{target}">Continue</a>\n',
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
        return False  # a relative path would run a file from the current folder
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
