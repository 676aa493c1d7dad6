"""The part of a specification that is not in HCL: how to connect to hosts, and what is done there.

Terraform's plan does not show it, so a review must. `init_cmd`, `packages` and `env` may hold
secrets, and whoever can write a shared state must not choose options for a team-mate: it has only
hashes of what is in HASHED, with which a team checks that all use the same. Pure.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bilbo.lifetime import Lifetime, words
from bilbo.model import ClusterSpec, digest

# A group's name and a key; the name is empty for settings of the whole cluster.
Place = tuple[str, str]

# A shared state holds only their hashes.
HASHED = ("init_cmd", "packages", "env", "args", "config")
# Personal: not in a shared state, and free to differ between people.
OWN = ("ssh_private_key", "webbrowser")
_OF_MACHINE = ("init_cmd", "packages", "ssh_port", "ssh_private_key", "ssh_user")

# Placeholders for an earlier value that is unknown.
UNTOLD = "(not told)"
SAME = "(the same, says the shared state)"
OTHER = "(another, says the shared state)"


@dataclass(frozen=True)
class Setting:
    """A value that HCL does not hold, and its earlier value. `groups` are the groups that have it;
    empty for a setting of the whole cluster.

    `before` may be UNTOLD, SAME or OTHER. An unchanged value is still shown if only the shared
    state says that it is unchanged: whoever can write there must not be able to hide a command.
    """

    groups: tuple[str, ...]
    key: str
    before: Any
    after: Any
    changed: bool = True

    @property
    def vouched(self) -> bool:
        """Whether `before` is a value rather than a placeholder."""
        return self.before not in (UNTOLD, SAME, OTHER)


@dataclass(frozen=True)
class Known:
    """What is known of an existing cluster; empty if there is none.

    `digests` are the shared state's, by group and key; None if it has none. `shared` means that
    `values` come from a shared state, combined with this machine's record.
    """

    values: Mapping[Place, Any] = field(default_factory=dict)
    digests: Mapping[str, Mapping[str, str]] | None = None
    shared: bool = False


def values(spec: ClusterSpec) -> dict[Place, Any]:
    """Returns everything that HCL does not hold, as JSON values, without empty ones. The values of
    `env`, which are secret everywhere, are hashes."""
    found: dict[Place, Any] = {
        ("", "access.public"): spec.public,
        ("", "description"): spec.description,
        ("", "webbrowser"): spec.webbrowser,
        **_ends(spec.lifetime),
    }
    for group in spec.groups():
        of_machine = {key: getattr(group.machine, key) for key in _OF_MACHINE}
        env = {
            name: f"sha256:{digest(spec.name, name, value)[:16]}"
            for name, value in group.machine.env.items()
        }
        own = {**group.settings, "resources": group.resources, "env": env, **of_machine}
        found |= {(group.name, key): value for key, value in own.items()}
    return {place: _json(value) for place, value in found.items() if not _empty(value)}


def _ends(found: Lifetime | None) -> dict[Place, Any]:
    """The lifetime as a profile has it: the machines count it, HCL holds little of it."""
    return {
        ("", f"lifetime.{key}"): words(value) if isinstance(value, int) else value
        for key, value in (asdict(found) if found else {}).items()
    }


def digests(spec: ClusterSpec) -> dict[str, dict[str, str]]:
    """Returns the sha256 of each group's settings in HASHED, if it has any."""
    found = values(spec)
    return {
        group.name: {
            key: digest(spec.name, key, found[group.name, key])
            for key in HASHED
            if (group.name, key) in found
        }
        for group in spec.groups()
    }


def unlike(spec: ClusterSpec, told: Mapping[str, Mapping[str, str]] | None) -> dict[str, list[str]]:
    """Returns, by key, the groups whose settings in HASHED do not match the hashes `told` by
    a state."""
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
    """Returns what differs between `spec` and what is `known`, commands first, and what must be
    shown although it does not: see Setting. Equal settings of several groups are merged."""
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
    """Returns the earlier value at a place, and whether `after` differs."""
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
    same = after is not None and there == digest(cluster, key, after)
    return (SAME, False) if same else (OTHER, True)


def remembered(known: Known, mine: ClusterSpec) -> Known:
    """Returns `known`, from a shared state, completed from this machine's record: with personal
    settings, and with other values that match the state's hash."""
    ours, others = values(mine), unlike(mine, known.digests)
    kept: dict[Place, Any] = {("", "webbrowser"): ours.get(("", "webbrowser"))}
    for group in (group.name for group in mine.groups()):
        kept[group, "ssh_private_key"] = ours.get((group, "ssh_private_key"))
        agreed = [key for key in HASHED if group not in others.get(key, ())]
        if known.digests is None:  # an empty value may be one that this machine never had
            agreed = [key for key in HASHED if (group, key) in ours]
        elif group not in known.digests:
            agreed = []
        kept |= {(group, key): ours.get((group, key)) for key in agreed}
    return Known({**known.values, **kept}, known.digests, known.shared)


def _same(one: Any, other: Any, *, composed: bool) -> bool:
    """Whether two values are equal; if `composed`, as Terraform sees it, which stores NFC text."""
    return bool(one == other) or (composed and _nfc(one) == _nfc(other))


def _nfc(value: Any) -> str:
    return unicodedata.normalize("NFC", json.dumps(value, ensure_ascii=False, sort_keys=True))


def _json(value: Any) -> Any:
    return json.loads(json.dumps(dict(value) if isinstance(value, Mapping) else value))


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", (), {})
