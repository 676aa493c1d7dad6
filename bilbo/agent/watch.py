"""Watches a service: whether it runs, whether it answers, and who has joined it."""

# ruff: noqa: UP006, UP035, UP045 - hosts may have Python 3.6, which knows no newer spelling

import errno
import json
import os
import socket
import time
from typing import Any, Dict, Optional

from bilbo.agent.channel import Client
from bilbo.agent.page import Page, fetch, trouble_with, where_it_is
from bilbo.agent.service import Failure, HostedService

PROBE_PAUSE = 0.1
WATCH_PAUSE = 0.25
TAIL = 20  # lines of a log that go with a failure


def check_free(host: str, port: int) -> None:
    """Raise Failure before a start if the address is in use, rather than leave it to a log."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            why = os.strerror(error.errno or 0)
            if error.errno == errno.EADDRINUSE:
                why = "another process already listens there"
            raise Failure(f"cannot listen on {host}:{port}: {why}") from None


def watch(client: Client, service: HostedService, page: Optional[Page], seconds: float) -> None:
    """Watch a service until it ends (`exited`) or the client sends another request.

    With a page, report once that it answers and where (`ready`), or that it did not answer in time
    (`timeout`). Raises Open.
    """
    end = time.monotonic() + seconds
    while True:
        if not service.supervisor():
            client.emit("exited", code=service.exit_code(), log=service.tail(TAIL))
            return
        if page:
            there = where_it_is(page, service)
            trouble = trouble_with(there)
            if not trouble:
                client.emit("ready", secure=there["secure"], base=there["base"])
                page = None
            elif time.monotonic() > end:
                client.emit("timeout", cause=trouble, log=service.tail(TAIL))
                return
        if client.wants_more(PROBE_PAUSE if page else WATCH_PAUSE):
            return


def call_roll(client: Client, service: HostedService, roll: Dict[str, Any]) -> None:
    """Report who joins and leaves the engine's head, while its service runs."""
    known: Dict[str, str] = {}
    pause = 0.0
    while not client.wants_more(pause):
        if not service.supervisor():
            client.emit("exited", code=service.exit_code(), log=service.tail(TAIL))
            return
        began = time.monotonic()
        present = present_members(roll)
        if present is not None:  # a head too busy to answer is still running
            joined = {name: at for name, at in present.items() if known.get(name) != at}
            left = [name for name in known if name not in present]
            if joined or left:
                client.emit("roll", joined=joined, left=left)
            known = present
        # With a thousand workers the page is megabytes: leave the head most of its time.
        pause = max(PROBE_PAUSE, 5 * (time.monotonic() - began))


def present_members(roll: Dict[str, Any]) -> Optional[Dict[str, str]]:
    """Who has joined the engine's head, name to address; None if it gives no such answer."""
    try:
        return members(json.loads(fetch(roll["page"])[1].decode()), roll)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def members(document: Any, roll: Dict[str, Any]) -> Dict[str, str]:
    """The members in a head's document, name to address, found by the keys in `roll`."""
    for key in roll["items"]:
        document = document[key]
    return {str(each[roll["name"]]): str(each[roll["address"]]) for each in document}
