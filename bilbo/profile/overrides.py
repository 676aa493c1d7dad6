"""`-p KEY.PATH=VALUE`: overrides single values of a profile on the command line."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from bilbo.errors import ProfileError
from bilbo.profile.parsing import DuplicateKeyError, parse
from bilbo.profile.places import KeyPath, dotted, shown
from bilbo.text import without_credentials

MAX_STEPS = 16
_EXAMPLE = "Write -p KEY.PATH=VALUE, such as -p dask.worker.count=4."


def override_with_paths(
    document: Any, overrides: Sequence[str]
) -> tuple[Any, tuple[tuple[KeyPath, str], ...]]:
    """A new document with each `KEY.PATH=VALUE` of `overrides` set, in order; and for each override
    the path that it set, with its text.

    VALUE is JSON; anything else is a string. In a list, a number in the path is an index, and the
    index one past the end appends. Missing objects are created, and missing lists where the next
    step is a number. Raises ProfileError that names the `-p` at fault.
    """
    result = copy.deepcopy(document)
    set_by = []
    for text in overrides:
        steps, value = _split(text)
        set_by.append((_set(result, steps, value, text), text))
    return result, tuple(set_by)


def _split(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    steps = key.split(".")
    if not equals:
        raise _refused("has no =", text)
    if not all(steps):
        raise _refused("has an empty key", text)
    if len(steps) > MAX_STEPS:
        raise _refused("is nested deeper than any profile", text)
    return steps, _value(value, text)


def _value(text: str, whole: str) -> Any:
    try:
        return parse(text, _label(whole)).document
    except DuplicateKeyError:
        raise
    except ProfileError:
        return text


def _set(document: Any, steps: list[str], value: Any, text: str) -> KeyPath:
    """Sets `value` in `document` itself; returns the path that it set."""
    path: list[str | int] = []
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        key = _key(document, step, tuple(path), text)
        path.append(key)
        if following is None:
            new = value
        else:
            new = _child(document, key, [] if _is_index(following) else {})
        if isinstance(key, int) and key == len(document):
            document.append(new)
        else:
            document[key] = new
        document = new
    return tuple(path)


def _child(parent: Any, key: str | int, otherwise: Any) -> Any:
    try:
        return parent[key]
    except LookupError:
        return otherwise


def _key(parent: Any, step: str, path: KeyPath, text: str) -> str | int:
    """`step` as a key or an index of `parent`, which is at `path`."""
    name = dotted(path) or "the profile"
    if isinstance(parent, dict):
        return step
    if not isinstance(parent, list):
        raise _refused(f"goes into {name}, which is neither an object nor a list", text)
    if not _is_index(step):
        raise _refused(f"needs an index after {name}, which is a list", text)
    if int(step) > len(parent):
        has = f"has {len(parent)} item{'s' * (len(parent) != 1)}"
        raise _refused(f"is past the end of {name}, which {has}; the first is 0", text)
    return int(step)


def _is_index(step: str) -> bool:
    return re.fullmatch("[0-9]{1,6}", step) is not None


def _refused(problem: str, text: str) -> ProfileError:
    return ProfileError(f"the override {problem}", where=_label(text), hint=_EXAMPLE)


def _label(text: str) -> str:
    return f"-p {shown(without_credentials(text), 80)}"
