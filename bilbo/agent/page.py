"""A service's page: does it answer, and only to those with the token?"""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import json
from typing import Any, Dict, Tuple

from bilbo.agent.service import HostedService

Page = Dict[str, Any]  # the fields of the client's model.Page


class Open(Exception):
    """A page that should require a token answered without one."""


def fetch(page: Page) -> Tuple[int, bytes]:
    """The status and body of a page. Raises OSError if it does not answer.

    On 404, tries the page's path in services that an earlier bilbo started, if it has one.
    """
    status, body = _get(page, page["path"], page["headers"])
    if status == 404 and page.get("earlier"):
        status, body = _get(page, page["earlier"], page["headers"])
    return status, body


def _get(page: Page, path: str, headers: Dict[str, str]) -> Tuple[int, bytes]:
    import http.client  # a third of the import time, and workers have no page

    if page.get("secure"):
        import ssl

        # The host asks itself by an address that its certificate does not name.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            page["host"], page["port"], timeout=page.get("seconds", 5), context=context
        )  # type: http.client.HTTPConnection
    else:
        connection = http.client.HTTPConnection(
            page["host"], page["port"], timeout=page.get("seconds", 5)
        )
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"it does not answer in HTTP: {error!r}") from None
    finally:
        connection.close()


def where_it_is(page: Page, service: HostedService) -> Page:
    """The page with the TLS setting and base path that the running service reports."""
    secure, base = False, "/"
    if page.get("described"):
        for path in service.folder.glob(page["described"]):
            # A file left by a killed server names a process that is not the service's.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                told = json.loads(path.read_text())
                if service.owns(int(told["pid"])):
                    secure, base = bool(told["secure"]), str(told["base_url"])
    return dict(page, path=base.rstrip("/") + page["path"], secure=secure, base=base)


def trouble_with(page: Page) -> str:
    """What is wrong with a page's answer; empty if nothing. Raises Open."""
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
    return "" if missing.encode() in body else f"{where}: it does not list {missing} yet"


def _trouble_without(page: Page, where: str) -> str:
    """What is wrong with the answer to a request without a token. Raises Open and OSError."""
    status, _ = _get(page, page["path"], {})
    if 200 <= status < 300:
        raise Open(f"{where}: HTTP status {status} without the token: anyone can use it")
    return "" if status in (401, 403) else f"{where}: HTTP status {status} without the token"
