"""Parses Terraform's `-json` output: one JSON object per line.

Source of the format: Terraform's documentation, "Machine-Readable UI".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bilbo.errors import TerraformError
from bilbo.shape import anything, having, mapped, number, shallow, string, whole
from bilbo.terraform.hints import LOCKED, STALE, hint_for, lasts, lock_hint

Event = Mapping[str, Any]
# Called with each event; returns True to stop Terraform as Ctrl-C does.
OnEvent = Callable[[Event], "bool | None"]

# The type of an event that claims a type that bilbo reads, but lacks its structure.
UNREADABLE = "bilbo_unreadable"
_ADDRESSED = having({"addr": string, "resource_type": string})
_CHANGE = having({"change": having({"resource": _ADDRESSED, "action": string}, reason=string)})
_HOOK = having({"hook": having({"resource": _ADDRESSED, "action": string})})
# The structure of the events that bilbo reads, by type. Of others it reads only the type.
_FORMS = {
    "planned_change": _CHANGE,
    "resource_drift": _CHANGE,
    "diagnostic": having(
        {
            "diagnostic": having(
                {"severity": string, "summary": string}, detail=string, address=string
            )
        }
    ),
    "outputs": having({"outputs": mapped(having({}, value=anything))}),
    "change_summary": having(
        {"changes": having({}, operation=string, add=whole, change=whole, remove=whole)}
    ),
    "apply_start": _HOOK,
    "apply_complete": _HOOK,
    "apply_errored": _HOOK,
    "apply_progress": having(
        {"hook": having({"resource": _ADDRESSED, "action": string, "elapsed_seconds": number})}
    ),
}

# The actions that end a running machine.
DESTRUCTIVE = frozenset({"delete", "replace"})


@dataclass(frozen=True)
class PlannedChange:
    """One resource change: Terraform's address, resource type, and action.

    `action` is `create`, `update`, `replace`, `delete`, `import` or `move`; reading a data
    source is not a change.
    """

    address: str
    resource_type: str
    action: str
    reason: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """An error or a warning from Terraform."""

    severity: str
    summary: str
    detail: str = ""
    address: str = ""


@dataclass(frozen=True)
class Outcome:
    """The result of one run of Terraform.

    `changes` are the planned changes, `drift` the ones made outside Terraform; `outputs` is
    `{name: value}` if the run applied. `finished` says that Terraform reached its own end; of a run
    that another process started, nothing else is known. `summarised` says that it reported its
    version and a summary of changes, and nothing unreadable, as only Terraform does.
    """

    exit_code: int
    changes: tuple[PlannedChange, ...] = ()
    drift: tuple[PlannedChange, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)
    finished: bool = False
    summarised: bool = False

    @property
    def ok(self) -> bool:
        """Whether it did everything that it was asked to do."""
        return self.exit_code in (0, 2)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The diagnostics that are errors."""
        return tuple(d for d in self.diagnostics if d.severity == "error")

    @property
    def refused(self) -> bool:
        """Whether it did nothing because another process holds or has changed the state."""
        return any(
            sign in error.summary + error.detail
            for error in self.errors
            for sign in (LOCKED, STALE)
        )

    @property
    def destructive(self) -> tuple[PlannedChange, ...]:
        """The planned changes that destroy something that exists."""
        return tuple(change for change in self.changes if change.action in DESTRUCTIVE)


def parse(line: str) -> dict[str, Any] | None:
    """One line as an event; None for any other line (a crash, a plugin's output).

    An event has the structure of its type; otherwise its type is `UNREADABLE`.
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        return None
    if "@message" in event and not isinstance(event["@message"], str):
        return {"type": UNREADABLE}
    form = _FORMS.get(event["type"], anything)
    return {"type": UNREADABLE} if shallow(event) or form(event) else event


def outcome(events: Iterable[Event], exit_code: int | None) -> Outcome:
    """The result of the whole stream. An unknown `exit_code` (None) is inferred from its end."""
    changes: dict[str, PlannedChange] = {}
    drift: dict[str, PlannedChange] = {}
    diagnostics: list[Diagnostic] = []
    outputs: dict[str, Any] = {}
    finished = versioned = summarised = unreadable = False
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
            case _ if event["type"] == UNREADABLE:
                unreadable = True
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
        summarised=versioned and summarised and not unreadable,
    )


def _change(change: Mapping[str, Any]) -> PlannedChange:
    resource = change["resource"]
    return PlannedChange(
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


def to_error(outcome: Outcome, what: str, cluster_folder: Path) -> TerraformError:
    """The outcome's errors as one error that says what failed, why, and what to do.

    The cluster's name is its folder's.
    """
    # Terraform works on several resources at once, so the order of errors varies.
    errors = sorted(outcome.errors, key=lambda diagnostic: diagnostic.address)
    lines = [line for diagnostic in errors for line in explain(diagnostic)]
    hint = lock_hint("\n".join(lines), cluster_folder.name) or hint_for("\n".join(lines))
    if not lines:
        lines = [f"Terraform ended with exit code {outcome.exit_code} and no message."]
    error = TerraformError(
        what, details=tuple(lines), hint=hint or f"Terraform's output: {cluster_folder}"
    )
    error.lasts = lasts("\n".join(lines))
    return error


def explain(diagnostic: Diagnostic) -> list[str]:
    """The lines that describe one diagnostic: address, summary, and full detail."""
    place = f"{diagnostic.address}: " if diagnostic.address else ""
    detail = [line.rstrip() for line in diagnostic.detail.splitlines() if line.strip()]
    return [place + diagnostic.summary, *(f"  {line}" for line in detail)]
