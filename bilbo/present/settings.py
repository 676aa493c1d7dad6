"""What HCL does not hold, as a reviewer reads it: complete, and with invisible characters escaped.

User names and passwords in URLs are removed; `bilbo.text` explains why no command can hide there.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from bilbo.hostside import HASHED, Setting
from bilbo.text import visible, without_credentials

# How to connect to a machine. The text form omits these for new machines.
_REACH = ("ssh_port", "ssh_private_key", "ssh_user")


def changed(settings: Sequence[Setting]) -> list[Setting]:
    """Returns the settings that change."""
    return [each for each in settings if each.changed]


def counted(settings: Sequence[Setting]) -> str:
    """Returns how many change, in words; empty for none."""
    count = len(changed(settings))
    return f"{count} setting{'s' * (count > 1)} of the hosts to change" if count else ""


def redacted(value: Any) -> Any:
    """Returns a value without the credentials in its URLs."""
    return json.loads(without_credentials(json.dumps(value)))


def title(setting: Setting) -> str:
    """Returns the key and its groups."""
    return f"{setting.key} ({', '.join(setting.groups) or 'cluster'})"


def diff(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yields marks and lines: `-` for what was, `+` for what will be, a space for what stays."""
    before, after = _items(setting.before), _items(setting.after)
    if not setting.vouched:
        yield "-" if setting.changed else " ", str(setting.before)
        yield from (("+" if setting.changed else " ", _shown(item)) for item in after)
        return
    matcher = difflib.SequenceMatcher(None, before, after)
    for number, group in enumerate(matcher.get_grouped_opcodes()):
        if number:
            yield " ", "…"
        for what, start, end, new_start, new_end in group:
            mark = " " if what == "equal" else "-"
            yield from ((mark, _shown(item)) for item in before[start:end])
            if what != "equal":
                yield from (("+", _shown(item)) for item in after[new_start:new_end])


def settings_text(settings: Sequence[Setting]) -> str:
    """Returns the settings for a terminal; empty if there are none to show."""
    lines = [line for setting in settings if _worth(setting) for line in _lines(setting)]
    if late := only_at_restart(settings):
        lines.append(f"    {late}")
    return "\n".join(["  On the hosts, outside Terraform:", *lines]) if lines else ""


def only_at_restart(settings: Sequence[Setting]) -> str:
    """Returns which changed keys running services see only after `bilbo restart`; empty for none.

    A changed script or environment restarts workers at once; what is installed restarts nothing.
    """
    # Every group has a user to log in as, so it is new where it had none.
    new = {
        group
        for each in settings
        if each.key == "ssh_user" and each.before is None
        for group in each.groups
    }
    late = [
        each.key
        for each in changed(settings)
        if each.key in HASHED and each.key != "args" and not new.issuperset(each.groups)
    ]
    if not late:
        return ""
    return (
        f"What runs sees the new {', '.join(dict.fromkeys(late))} only after `bilbo restart` "
        "(JupyterLab: with --notebook)."
    )


def overrides_text(overrides: Sequence[str]) -> str:
    """Returns the values of `-p` for a terminal."""
    lines = [f"    {shown_override(each)}" for each in overrides]
    return "\n".join(["  Changed by -p:", *lines]) if lines else ""


def shown_override(text: str) -> str:
    """Returns a value of `-p`, safe to display."""
    key, equals, value = text.partition("=")
    if ".env." in f".{key}." and equals:
        value = "***"
    return visible(without_credentials(key + equals + value))


def _worth(setting: Setting) -> bool:
    return not (setting.key in _REACH and setting.before is None)


def _lines(setting: Setting) -> Iterator[str]:
    found = list(diff(setting))
    if isinstance(setting.before, list) or isinstance(setting.after, list):
        yield f"    {title(setting)}:"
        yield from (f"      {mark} {text}" for mark, text in found)
    else:
        yield f"    {title(setting)}: {' -> '.join(text for _, text in found)}"


def _items(value: Any) -> list[str]:
    """Returns a list's items, or a single value, as JSON; empty for None."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    return [json.dumps(item, ensure_ascii=False, sort_keys=True) for item in items]


def _shown(item: str) -> str:
    return visible(without_credentials(item))
