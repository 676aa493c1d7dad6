"""Progress on stderr: a live region on a terminal, a line a step elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from logging import Logger
from typing import TYPE_CHECKING, Any

import click

from bilbo.cli.bars import VERBS, Hosts, Resources
from bilbo.cli.output import ask, can_move, echo_lines
from bilbo.errors import BilboError

if TYPE_CHECKING:
    from bilbo.cli.screen import Display


class Console:
    """Tells on stderr what goes on; results are printed by the commands, on stdout."""

    def __init__(
        self, log: Logger, *, yes: bool = False, verbose: int = 0, live: bool = True
    ) -> None:
        self._log = log
        self._yes = yes
        self._verbose = verbose
        self._display: Display | None = None
        if live and can_move(sys.stderr):
            from bilbo.cli.screen import Display

            self._display = Display()
        self._since = time.monotonic()
        self._resources = Resources()
        self._hosts: Hosts | None = None
        self._bar: Resources | Hosts | None = None

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if kind is not None and not issubclass(kind, click.exceptions.Exit):
            told = error.logged() if isinstance(error, BilboError) else error
            self._log.error("%s: %s", kind.__name__, told)
        if self._display:
            self._display.clear()

    # -- what operations call ------------------------------------------------------------

    def say(self, text: str) -> None:
        """A line that stays."""
        self._log.info("%s", text.strip())
        if self._display:
            self._display.print(text)
        else:
            echo_lines(text, err=True)

    def terraform(self, event: Mapping[str, Any]) -> None:
        """Follows Terraform's stream: what it plans, makes and removes."""
        if self._verbose and "@message" in event:
            self.say(f"  terraform: {event['@message']}")
            return
        match event["type"]:  # of what each type has, the stream's reader has made sure
            case "bilbo_interrupt":
                self.say("Interrupted: waiting for Terraform to write its state …")
            case "version":
                self._resources = Resources()
                self._begin(self._resources)
                self._show("Terraform looks at AWS")
            case "change_summary" if event["changes"].get("operation") == "plan":
                counted = event["changes"]
                total = sum(counted.get(key, 0) for key in ("add", "change", "remove"))
                self._resources.total = max(0, total)
            case "apply_start" if event["hook"]["action"] != "read":
                self._resources.begun(event["hook"]["resource"]["addr"], event["hook"]["action"])
                self._show(self._resources.doing)
            case "apply_complete" if event["hook"]["action"] != "read":
                self._ended(event["hook"])
            case "apply_errored":
                self._resources.ended(event["hook"]["resource"]["addr"], well=False)
                self._show(self._resources.doing)
            case "apply_progress" if not self._display:
                hook = event["hook"]
                verb = VERBS.get(hook["action"], (hook["action"], ""))[0].lower()
                address = hook["resource"]["addr"]
                self.say(f"  still {verb} {address}: {int(hook['elapsed_seconds'])} s")

    def hosts(self, count: int) -> None:
        """The SSH stage begins, with so many hosts."""
        self._hosts = Hosts(count)
        self._begin(self._hosts)

    def host(
        self, instance_id: str, role: str, stage: str, message: str, milestone: str = ""
    ) -> None:
        """A host reached a stage of the SSH stage, and perhaps a milestone with it."""
        if self._hosts and milestone:
            self._hosts.reached(instance_id, milestone)
        line = f"{role} {instance_id}: {message or stage}"
        if self._display and not self._verbose:
            self._show(line)
        else:
            self.say(f"  {line}")
            if self._hosts:
                self._show("")

    def confirm(self, question: str) -> bool:
        """Asks on a terminal. Raises BilboError where stdin is none."""
        if self._yes:
            return True
        if not sys.stdin.isatty():
            raise BilboError(
                f"{question} Not a terminal, so bilbo cannot ask.",
                hint="Nothing changed; pass -y.",
            )
        self._begin(None)
        return ask(question)

    def status(self, text: str) -> None:
        """What goes on now; off a terminal it is a line of its own."""
        if not self._display:
            self.say(f"  {text}")
            return
        if self._bar:
            self._begin(None)
        self._show(text)

    # -- the live region -----------------------------------------------------------------

    def _begin(self, bar: Resources | Hosts | None) -> None:
        """Something else goes on from now, and what was shown goes."""
        self._bar = bar
        self._since = time.monotonic()
        if self._display:
            self._display.clear()

    def _ended(self, hook: Mapping[str, Any]) -> None:
        address = hook["resource"]["addr"]
        resources = self._resources
        resources.ended(address)
        if not self._display:
            done = VERBS.get(hook["action"], ("", hook["action"]))[1]
            of = f" [{resources.done}/{resources.total}]" if resources.total else ""
            self.say(f"  {done} {address}{of}")
        self._show(resources.doing)

    def _show(self, note: str) -> None:
        """Shows the bar and what goes on now; with neither, what was shown stays."""
        bar = self._bar.bar() if self._bar else None
        if self._display and (bar or note):
            self._display.show(note, bar, self._since)
