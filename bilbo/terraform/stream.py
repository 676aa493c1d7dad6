"""Reads what Terraform writes with `-json`: a JSON object a line.

Source of the format: Terraform's documentation, "Machine-Readable UI".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bilbo.errors import TerraformError
from bilbo.terraform.hints import LOCKED, STALE, hint_for, lock_hint

Event = Mapping[str, Any]
# Told of each event; says True when Terraform is to stop, as it does at Ctrl-C.
OnEvent = Callable[[Event], "bool | None"]

# What a change does to a machine that runs.
DESTRUCTIVE = frozenset({"delete", "replace"})


@dataclass(frozen=True)
class Change:
    """One resource change: Terraform's address, resource type, and action.

    `action` is `create`, `update`, `replace`, `delete`, `import` or `move`; reading a data
    source is no change.
    """

    address: str
    resource_type: str
    action: str
    reason: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """An error or warning of Terraform's."""

    severity: str
    summary: str
    detail: str = ""
    address: str = ""


@dataclass(frozen=True)
class Outcome:
    """What one run of Terraform came to.

    `changes` are the planned ones, `drift` those made outside; `outputs` is `{name: value}`
    where the run ended by applying. `finished` says that Terraform reached its own end,
    which is all that is known of a run that another process started; `summarised` that it said
    which version it is, and how much it would change or has changed: all that is Terraform does.
    """

    exit_code: int
    changes: tuple[Change, ...] = ()
    drift: tuple[Change, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)
    finished: bool = False
    interrupted: bool = False
    summarised: bool = False

    @property
    def ok(self) -> bool:
        """Whether it did all that it was asked."""
        return self.exit_code in (0, 2) and not self.interrupted

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The diagnostics that are errors."""
        return tuple(d for d in self.diagnostics if d.severity == "error")

    @property
    def refused(self) -> bool:
        """Whether nothing was done because another process holds or has moved the state."""
        return any(
            sign in error.summary + error.detail
            for error in self.errors
            for sign in (LOCKED, STALE)
        )

    @property
    def destructive(self) -> tuple[Change, ...]:
        """The planned changes that end something that exists."""
        return tuple(change for change in self.changes if change.action in DESTRUCTIVE)


def parse(line: str) -> dict[str, Any] | None:
    """One line as an event; None for a line that is not one (a crash, a plugin's noise)."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None


def outcome(events: Iterable[Event], exit_code: int | None, interrupted: bool = False) -> Outcome:
    """What the whole stream says. An `exit_code` of None is not known, and told from the end."""
    changes: dict[str, Change] = {}
    drift: dict[str, Change] = {}
    diagnostics: list[Diagnostic] = []
    outputs: dict[str, Any] = {}
    finished = versioned = summarised = False
    for event in events:
        match event["type"]:
            case "planned_change":
                change = _change(event["change"])
                changes[change.address] = change
            case "resource_drift":
                change = _change(event["change"])
                drift[change.address] = change
            case "diagnostic":
                diagnostics.append(_diagnostic(event["diagnostic"]))
            case "outputs":
                outputs = {
                    name: output["value"]
                    for name, output in event["outputs"].items()
                    if "value" in output
                }
            case "version":
                versioned = True
            case "change_summary":
                summarised = True
                finished = finished or event["changes"].get("operation") in ("apply", "destroy")
    if exit_code is None:
        failed = any(d.severity == "error" for d in diagnostics)
        exit_code = 0 if finished and not failed else 1
    return Outcome(
        exit_code=exit_code,
        changes=tuple(change for change in changes.values() if change.action != "read"),
        drift=tuple(drift.values()),
        diagnostics=tuple(dict.fromkeys(diagnostics)),
        outputs=outputs,
        finished=finished,
        interrupted=interrupted,
        summarised=versioned and summarised,
    )


def _change(change: Mapping[str, Any]) -> Change:
    resource = change["resource"]
    return Change(
        address=resource["addr"],
        resource_type=resource["resource_type"],
        action=change["action"],
        reason=change.get("reason", ""),
    )


def _diagnostic(diagnostic: Mapping[str, Any]) -> Diagnostic:
    return Diagnostic(
        severity=diagnostic["severity"],
        summary=diagnostic["summary"].strip(),
        detail=diagnostic.get("detail", "").strip(),
        address=diagnostic.get("address", ""),
    )


def to_error(outcome: Outcome, what: str, log: str) -> TerraformError:
    """The outcome's errors as one error that says what failed, why, and what to do."""
    # Terraform works on several things at once: their order is not the same every time.
    errors = sorted(outcome.errors, key=lambda diagnostic: diagnostic.address)
    lines = [line for diagnostic in errors for line in explain(diagnostic)]
    hint = lock_hint("\n".join(lines), Path(log).name) or hint_for("\n".join(lines))
    if not lines:
        lines = [f"Terraform ended with exit code {outcome.exit_code} and no message."]
    return TerraformError(what, details=tuple(lines), hint=hint or f"Terraform's output: {log}")


def explain(diagnostic: Diagnostic) -> list[str]:
    """The lines that tell one diagnostic: address, summary, and all of the detail."""
    place = f"{diagnostic.address}: " if diagnostic.address else ""
    detail = [line.rstrip() for line in diagnostic.detail.splitlines() if line.strip()]
    return [place + diagnostic.summary, *(f"  {line}" for line in detail)]
