"""Reads `terraform show -json PLAN`, and removes secrets before anyone sees them.

Source of the format: Terraform's documentation, "JSON Output Format", "Change Representation".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bilbo.model import ROLE_TAG

SENSITIVE = "(sensitive)"
UNKNOWN = "(known after apply)"

_ACTIONS = {
    ("create",): "create",
    ("update",): "update",
    ("delete",): "delete",
    ("delete", "create"): "replace",
    ("create", "delete"): "replace",
    ("forget",): "forget",
}
# Repeats what another attribute says.
_ECHOES = ("tags_all",)
# What bilbo changes while it works, and Terraform's configuration ignores: attribute by type.
_TENDED = {"aws_autoscaling_group": "suspended_processes"}


@dataclass(frozen=True)
class Attribute:
    """One value that differs, with its path, such as `root_block_device[0].encrypted`.

    `forces` means that it cannot change in place, so the resource is replaced.
    """

    path: str
    before: Any
    after: Any
    forces: bool = False


@dataclass(frozen=True)
class ResourceChange:
    """What happens to one resource. `action` is create, update, replace, delete, forget or none.

    `before` and `after` are its values without the sensitive ones; empty if there are none.
    """

    address: str
    kind: str
    action: str
    reason: str
    attributes: tuple[Attribute, ...]
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def module(self) -> str:
        """The module's address, shared by all resources of one machine or group."""
        return self.address.rpartition(f".{self.kind}.")[0]

    @property
    def role(self) -> str:
        """The role in bilbo's tag; empty if there is none."""
        return _tag(self, ROLE_TAG)

    @property
    def forced_by(self) -> tuple[str, ...]:
        """The attributes that force its replacement."""
        return tuple(attribute.path for attribute in self.attributes if attribute.forces)


@dataclass(frozen=True)
class Review:
    """A whole plan. `resources` are all resources, including unchanged ones; `changes` are those
    that change; `drift` is what was changed outside Terraform.
    """

    resources: tuple[ResourceChange, ...] = ()
    drift: tuple[ResourceChange, ...] = ()

    @property
    def changes(self) -> tuple[ResourceChange, ...]:
        """The resources that change."""
        return tuple(change for change in self.resources if change.action != "none")

    def count(self, *actions: str) -> int:
        """Returns how many resources have one of these actions."""
        return sum(change.action in actions for change in self.resources)


def read(document: Mapping[str, Any]) -> Review:
    """Returns the review of `terraform show -json PLAN`."""
    resources = (_change(each) for each in document.get("resource_changes", []) if _managed(each))
    drift = (_change(each) for each in _drifted(document))
    # What AWS merely writes differently (null for an empty list) is not a change.
    drift = (change for change in drift if change.attributes or change.action != "update")
    return Review(
        resources=tuple(sorted(resources, key=lambda change: change.address)),
        drift=tuple(sorted(drift, key=lambda change: change.address)),
    )


def drift_digests(document: Mapping[str, Any]) -> dict[str, str]:
    """Returns `{address: sha256}` of what changed outside Terraform, to compare two moments."""
    return {
        each["address"]: hashlib.sha256(
            json.dumps(each["change"], sort_keys=True).encode()
        ).hexdigest()
        for each in _drifted(document)
        if each["change"].get("before") != each["change"].get("after")
    }


def _drifted(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields what changed outside Terraform, without what bilbo itself changes there."""
    for each in document.get("resource_drift", []):
        if _managed(each):
            name = _TENDED.get(each["type"])
            change = dict(each["change"])
            for side in ("before", "after"):
                if isinstance(change.get(side), Mapping):
                    change[side] = {k: v for k, v in change[side].items() if k != name}
            yield {**each, "change": change}


def _managed(resource: Mapping[str, Any]) -> bool:
    return resource.get("mode") == "managed"


def _change(resource: Mapping[str, Any]) -> ResourceChange:
    change = resource["change"]
    before = redacted(change.get("before"), change.get("before_sensitive"), SENSITIVE)
    known = redacted(change.get("after"), change.get("after_sensitive"), SENSITIVE)
    after = unknown_marked(known, change.get("after_unknown"))
    forcing = [_path(steps) for steps in change.get("replace_paths", [])]
    both = change.get("before") is not None and change.get("after") is not None
    return ResourceChange(
        address=resource["address"],
        kind=resource["type"],
        action=_ACTIONS.get(tuple(change["actions"]), "none"),
        reason=resource.get("action_reason", ""),
        attributes=tuple(_differences(change, before, after, forcing)) if both else (),
        before=before if isinstance(before, Mapping) else {},
        after=after if isinstance(after, Mapping) else {},  # it may be unknown or secret as a whole
    )


def redacted(value: Any, marks: Any, word: str) -> Any:
    """Returns `value` with `word` wherever `marks`, of the same shape, is True."""
    if marks is True:
        return word
    if isinstance(value, Mapping) and isinstance(marks, Mapping):
        return {key: redacted(value[key], marks.get(key), word) for key in value}
    if isinstance(value, list) and isinstance(marks, list):
        padded = [*marks, *[None] * (len(value) - len(marks))]
        return [redacted(item, mark, word) for item, mark in zip(value, padded, strict=False)]
    return value


def unknown_marked(value: Any, marks: Any) -> Any:
    """Returns `value` with `UNKNOWN` for what Terraform cannot know yet, including missing keys."""
    if marks is True:
        return UNKNOWN
    if isinstance(marks, Mapping) and (value is None or isinstance(value, Mapping)):
        held = dict(value or {})
        marked = {key for key, mark in marks.items() if _any(mark)}
        return {
            key: unknown_marked(held.get(key), marks.get(key)) for key in [*held, *marked - {*held}]
        }
    if isinstance(marks, list) and isinstance(value, list):
        padded = [*marks, *[None] * (len(value) - len(marks))]
        return [unknown_marked(item, mark) for item, mark in zip(value, padded, strict=False)]
    return value


def _any(marks: Any) -> bool:
    if isinstance(marks, Mapping):
        return any(_any(mark) for mark in marks.values())
    if isinstance(marks, list):
        return any(_any(mark) for mark in marks)
    return marks is True


def _differences(
    change: Mapping[str, Any], before: Any, after: Any, forcing: Sequence[str]
) -> Iterator[Attribute]:
    """Yields what differs, judged by the true values: all secrets show as the same word."""
    true_before = dict(flat(change["before"]))
    true_after = dict(flat(unknown_marked(change["after"], change.get("after_unknown"))))
    shown_before, shown_after = dict(flat(before)), dict(flat(after))
    for path in sorted(true_before.keys() | true_after.keys()):
        if path.split(".")[0].split("[")[0] in _ECHOES:
            continue
        if _same(true_before.get(path), true_after.get(path)):
            continue
        yield Attribute(
            path,
            _shown(shown_before, path),
            _shown(shown_after, path),
            any(path == steps or path.startswith((f"{steps}.", f"{steps}[")) for steps in forcing)
            or any(steps.startswith((f"{path}.", f"{path}[")) for steps in forcing),
        )


def _same(one: Any, other: Any) -> bool:
    return one == other or (one in (None, "", [], {}) and other in (None, "", [], {}))


def _shown(values: Mapping[str, Any], path: str) -> Any:
    """Returns the value at `path`, or the word that replaced a value above it."""
    if path in values:
        return values[path]
    above = (held for at, held in values.items() if path.startswith((f"{at}.", f"{at}[")))
    return next((held for held in above if held in (SENSITIVE, UNKNOWN)), None)


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields `(path, value)` of everything but objects. A list is one value, except a single
    block."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        yield from flat(value[0], f"{path}[0]")
    elif isinstance(value, list):
        yield path, sorted(value, key=lambda item: json.dumps(item, sort_keys=True))
    else:
        yield path, value


def _path(steps: Sequence[Any]) -> str:
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else str(step)
    return text


def _tag(change: ResourceChange, key: str) -> str:
    for values in (change.after, change.before):
        tags = values.get("tags")
        if isinstance(tags, Mapping) and isinstance(tags.get(key), str):
            return str(tags[key])
        group = values.get("tag")  # an Auto Scaling group's
        for tag in group if isinstance(group, list) else ():
            if isinstance(tag, Mapping) and tag.get("key") == key:
                return str(tag.get("value", ""))
    return ""
