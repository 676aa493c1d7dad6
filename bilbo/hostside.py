"""What of a specification is in no HCL: how its hosts are reached, and what is done on them.

Terraform's plan is silent about it, so that a review must not be. `init_cmd` and `packages` may
hold secrets: a shared state has no more of them than hashes, by which a team knows that all mean
the same. Pure.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bilbo.model import ClusterSpec

# A group's name and a key; the name is empty for what is the whole cluster's.
Place = tuple[str, str]

# In a shared state by their hashes alone.
HASHED = ("init_cmd", "packages")
# One person's own: in no shared state at all, and nobody else's need agree.
OWN = ("ssh_private_key", "webbrowser")
_OF_MACHINE = ("init_cmd", "packages", "ssh_port", "ssh_private_key", "ssh_user")

# What stands for a value of before that is not known.
UNTOLD = "(not told)"
SAME = "(the same, says the shared state)"
OTHER = "(another, says the shared state)"


@dataclass(frozen=True)
class Setting:
    """A value that HCL does not hold, and what it was. `groups` are those whose it is; none for
    the whole cluster's.

    `before` may be UNTOLD, SAME or OTHER. What is not `changed` is shown all the same where
    nobody but the shared state says so: whoever writes there must not hide a command.
    """

    groups: tuple[str, ...]
    key: str
    before: Any
    after: Any
    changed: bool = True

    @property
    def vouched(self) -> bool:
        """Whether `before` is a value, and not a word for one that is not known."""
        return self.before not in (UNTOLD, SAME, OTHER)


@dataclass(frozen=True)
class Known:
    """What is known of a cluster as it is: nothing where there is none.

    `digests` are the shared state's, by group and key; None where it tells none. `shared` says
    that `values` are what a shared state tells, beside what this machine remembers.
    """

    values: Mapping[Place, Any] = field(default_factory=dict)
    digests: Mapping[str, Mapping[str, str]] | None = None
    shared: bool = False


def values(spec: ClusterSpec) -> dict[Place, Any]:
    """Everything that HCL does not hold, as JSON has it; without what is empty."""
    found: dict[Place, Any] = {
        ("", "access.public"): spec.public,
        ("", "description"): spec.description,
        ("", "webbrowser"): spec.webbrowser,
    }
    for group in spec.groups():
        of_machine = {key: getattr(group.machine, key) for key in _OF_MACHINE}
        own = {**group.settings, "resources": group.resources, **of_machine}
        found |= {(group.name, key): value for key, value in own.items()}
    return {place: _json(value) for place, value in found.items() if not _empty(value)}


def digests(spec: ClusterSpec) -> dict[str, dict[str, str]]:
    """The sha256 of each group's `init_cmd` and `packages`, where it has any."""
    found = values(spec)
    return {
        group.name: {
            key: _digest(spec.name, key, found[group.name, key])
            for key in HASHED
            if (group.name, key) in found
        }
        for group in spec.groups()
    }


def unlike(spec: ClusterSpec, told: Mapping[str, Mapping[str, str]] | None) -> dict[str, list[str]]:
    """The groups by key whose `init_cmd` or `packages` are not those that a state has `told` the
    hashes of."""
    ours, theirs = digests(spec), told or {}
    found = {
        key: [
            group
            for group in ours
            if group in theirs and ours[group].get(key) != theirs[group].get(key)
        ]
        for key in HASHED
    }
    return {key: groups for key, groups in found.items() if groups}


def compare(spec: ClusterSpec, known: Known) -> tuple[Setting, ...]:
    """What of `spec` differs from what is `known`, commands first; and what must be shown though
    it does not: see Setting. Equal ones of several groups are one."""
    merged: dict[str, Setting] = {}
    for found in _settings(spec, known):
        same = json.dumps([found.key, found.before, found.after, found.changed], sort_keys=True)
        groups = merged[same].groups if same in merged else ()
        merged[same] = Setting(
            (*groups, *found.groups), found.key, found.before, found.after, found.changed
        )
    return tuple(
        sorted(
            merged.values(),
            key=lambda each: (not each.changed, each.key not in (*HASHED, "webbrowser"), each.key),
        )
    )


def _settings(spec: ClusterSpec, known: Known) -> Iterator[Setting]:
    ours = values(spec)
    for group in ("", *(group.name for group in spec.groups())):
        hashed = (known.digests or {}).get(group, {})
        there = [key for name, key in (*ours, *known.values) if name == group]
        for key in sorted({*there, *hashed}):
            after = ours.get((group, key))
            before, changed = _before(spec.name, (group, key), after, known)
            if changed or before in (UNTOLD, SAME, OTHER):
                yield Setting((group,) if group else (), key, before, after, changed)


def _before(cluster: str, place: Place, after: Any, known: Known) -> tuple[Any, bool]:
    """What stood at a place, and whether `after` is anything else."""
    group, key = place
    if place in known.values or not known.shared or key not in (*HASHED, *OWN):
        before = known.values.get(place)
        return before, not _same(before, after, composed=known.shared)
    if key in OWN:
        return UNTOLD, False
    if known.digests is None:
        return UNTOLD, after is not None
    there = known.digests.get(group, {}).get(key)
    if there is None:
        return None, after is not None
    same = after is not None and there == _digest(cluster, key, after)
    return (SAME, False) if same else (OTHER, True)


def remembered(known: Known, mine: ClusterSpec) -> Known:
    """`known`, from a shared state, with what this machine remembers beside it: what is a
    person's own, and of the rest what has the state's hash."""
    ours, others = values(mine), unlike(mine, known.digests)
    kept: dict[Place, Any] = {("", "webbrowser"): ours.get(("", "webbrowser"))}
    for group in (group.name for group in mine.groups()):
        kept[group, "ssh_private_key"] = ours.get((group, "ssh_private_key"))
        agreed = [key for key in HASHED if group not in others.get(key, ())]
        if known.digests is None:  # then an empty one may be one that was never told here
            agreed = [key for key in HASHED if (group, key) in ours]
        elif group not in known.digests:
            agreed = []
        kept |= {(group, key): ours.get((group, key)) for key in agreed}
    return Known({**known.values, **kept}, known.digests, known.shared)


def _same(one: Any, other: Any, *, composed: bool) -> bool:
    """Whether two values are equal; `composed`: to Terraform, which keeps texts in NFC."""
    return bool(one == other) or (composed and _nfc(one) == _nfc(other))


def _nfc(value: Any) -> str:
    return unicodedata.normalize("NFC", json.dumps(value, ensure_ascii=False, sort_keys=True))


def _digest(cluster: str, key: str, value: Any) -> str:
    return hashlib.sha256(json.dumps([cluster, key, value], sort_keys=True).encode()).hexdigest()


def _json(value: Any) -> Any:
    return json.loads(json.dumps(dict(value) if isinstance(value, Mapping) else value))


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", (), {})
