"""Progress on stderr: a live line on a terminal, a line a step elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from logging import Logger
from typing import Any

import click

from bilbo.cli.output import ask, echo, live_line
from bilbo.errors import BilboError

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TICK_SECONDS = 0.1
_VERBS = {
    "create": ("Creating", "Created"),
    "update": ("Changing", "Changed"),
    "delete": ("Destroying", "Destroyed"),
}


class Console:
    """Tells on stderr what goes on; results are printed by the commands, on stdout."""

    def __init__(
        self, log: Logger, *, yes: bool = False, verbose: int = 0, live: bool = True
    ) -> None:
        self._log = log
        self._yes = yes
        self._verbose = verbose
        self._live = live and sys.stderr.isatty()
        self._status = ""
        self._since = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._busy: dict[str, str] = {}
        self._done = 0
        self._total = 0
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Console:
        if self._live:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if kind is not None and not issubclass(kind, click.exceptions.Exit):
            told = error.logged() if isinstance(error, BilboError) else error
            self._log.error("%s: %s", kind.__name__, told)
        self._stop.set()
        if self._ticker:
            self._ticker.join()
        self._clear()

    # -- what operations call ------------------------------------------------------------

    def say(self, text: str) -> None:
        """A line that stays."""
        self._log.info("%s", text.strip())
        with self._lock:
            self._erase()
            echo(text, err=True)

    def terraform(self, event: Mapping[str, Any]) -> None:
        """Follows Terraform's stream: what it plans, makes and removes."""
        if self._verbose and "@message" in event:
            self.say(f"  terraform: {event['@message']}")
            return
        match event["type"]:  # of what each type has, the stream's reader has made sure
            case "bilbo_interrupt":
                self.say("Interrupted: waiting for Terraform to write its state …")
            case "version":
                self._done = self._total = 0
                self._set("Terraform looks at AWS")
            case "change_summary" if event["changes"].get("operation") == "plan":
                counted = event["changes"]
                self._total = sum(counted.get(key, 0) for key in ("add", "change", "remove"))
            case "apply_start" if event["hook"]["action"] != "read":
                self._begun(event["hook"])
            case "apply_complete" if event["hook"]["action"] != "read":
                self._ended(event["hook"])
            case "apply_progress" if not self._live:
                hook = event["hook"]
                self.say(f"  still {self._doing(hook)}: {int(hook['elapsed_seconds'])} s")

    def host(self, instance_id: str, role: str, stage: str, message: str) -> None:
        """A host reached a stage of the SSH stage."""
        line = f"{role} {instance_id}: {message or stage}"
        if self._live and not self._verbose:
            self._set(line)
        else:
            self.say(f"  {line}")

    def confirm(self, question: str) -> bool:
        """Asks on a terminal. Raises BilboError where nobody can be asked."""
        if self._yes:
            return True
        if not sys.stdin.isatty():
            raise BilboError(
                f"{question} Nobody can be asked here, and nothing was changed",
                hint="Say yes beforehand with -y.",
            )
        with self._lock:
            self._erase()
            self._status = ""
            return ask(question)

    def status(self, text: str) -> None:
        """What goes on now; off a terminal it is a line of its own."""
        if self._live:
            self._set(text)
        else:
            self.say(f"  {text}")

    # -- the live line -------------------------------------------------------------------

    def _begun(self, hook: Mapping[str, Any]) -> None:
        self._busy[hook["resource"]["addr"]] = hook["action"]
        self._show()

    def _ended(self, hook: Mapping[str, Any]) -> None:
        address = hook["resource"]["addr"]
        self._busy.pop(address, None)
        self._done += 1
        if not self._live:
            done = _VERBS.get(hook["action"], ("", hook["action"]))[1]
            of = f" [{self._done}/{self._total}]" if self._total else ""
            self.say(f"  {done} {address}{of}")
        self._show()

    def _doing(self, hook: Mapping[str, Any]) -> str:
        verb = _VERBS.get(hook["action"], (hook["action"], ""))[0].lower()
        return f"{verb} {hook['resource']['addr']}"

    def _show(self) -> None:
        if not self._busy:
            return
        address, action = next(reversed(self._busy.items()))
        more = f" and {len(self._busy) - 1} more" if len(self._busy) > 1 else ""
        of = f"[{self._done}/{self._total}] " if self._total else ""
        self._set(f"{of}{_VERBS.get(action, (action, ''))[0]} {address}{more}")

    def _set(self, text: str) -> None:
        with self._lock:
            if not self._status:
                self._since = time.monotonic()
            self._status = text

    def _clear(self) -> None:
        with self._lock:
            self._status = ""
            self._erase()

    def _erase(self) -> None:
        if self._live:
            live_line()

    def _tick(self) -> None:
        frame = 0
        while not self._stop.wait(_TICK_SECONDS):
            with self._lock:
                if self._status:
                    seconds = int(time.monotonic() - self._since)
                    line = f"{_SPINNER[frame % len(_SPINNER)]} {self._status} ({seconds} s)"
                    live_line(line)
            frame += 1
