"""The page of a service: does it answer, and does it answer only those whom it should."""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import json
from typing import Any, Dict, Tuple

from bilbo.agent.service import HostedService

Page = Dict[str, Any]  # the fields of the client's model.Page


class Open(Exception):
    """A page that ought to ask for its token gave its answer to somebody who showed none."""


def fetch(page: Page) -> Tuple[int, bytes]:
    """The status and body of a page; OSError if it does not answer.

    Where it is not there, its place in a service that an earlier bilbo started is asked, if any.
    """
    status, body = _get(page, page["path"], page["headers"])
    if status == 404 and page.get("earlier"):
        status, body = _get(page, page["earlier"], page["headers"])
    return status, body


def _get(page: Page, path: str, headers: Dict[str, str]) -> Tuple[int, bytes]:
    import http.client  # a third of all imports, and a worker has no page

    if page.get("secure"):
        import ssl

        # The host asks itself, and its certificate bears a name that it is not asked by.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            page["host"], page["port"], timeout=5, context=context
        )  # type: http.client.HTTPConnection
    else:
        connection = http.client.HTTPConnection(page["host"], page["port"], timeout=5)
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"it answers, but not HTTP: {error!r}") from None
    finally:
        connection.close()


def where_it_is(page: Page, service: HostedService) -> Page:
    """The page as the running service describes itself: with TLS or not, below which path."""
    secure, base = False, "/"
    if page.get("described"):
        for path in service.folder.glob(page["described"]):
            # What a killed server has left behind tells of a process that is none of the service's.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                told = json.loads(path.read_text())
                if service.owns(int(told["pid"])):
                    secure, base = bool(told["secure"]), str(told["base_url"])
    return dict(page, path=base.rstrip("/") + page["path"], secure=secure, base=base)


def trouble_with(page: Page) -> str:
    """What is wrong with a page's answer; empty if nothing is. Raises Open."""
    where = f"{'https' if page.get('secure') else 'http'}://{page['host']}:{page['port']}"
    where += page["path"]
    try:
        status, body = fetch(page)
        if page.get("closed") and 200 <= status < 300:
            return _trouble_without(page, where)
    except OSError as error:
        return f"{where}: {error.strerror or error}"
    if page.get("closed") and status in (401, 403):
        return f"{where}: HTTP status {status}: it does not accept the cluster's token"
    if status != 200:
        return f"{where}: HTTP status {status}"
    missing = page.get("contains", "")
    return "" if missing.encode() in body else f"{where}: it does not tell of {missing} yet"


def _trouble_without(page: Page, where: str) -> str:
    """What is wrong with the answer to somebody who shows no token. Raises Open, OSError."""
    status, _ = _get(page, page["path"], {})
    if 200 <= status < 300:
        raise Open(f"{where}: HTTP status {status} without the token: it is open to everybody")
    return "" if status in (401, 403) else f"{where}: HTTP status {status} without the token"
