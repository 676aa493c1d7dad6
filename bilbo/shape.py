"""Checks the structure of foreign documents before bilbo reads them. Pure.

A check takes a value and returns why it does not fit, or an empty string if it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], str]

MAX_DEPTH = 100


def anything(value: Any) -> str:
    """Any JSON value."""
    return ""


def string(value: Any) -> str:
    """A string."""
    return "" if isinstance(value, str) else _is(value, "a string")


def whole(value: Any) -> str:
    """A whole number of 64 bits."""
    good = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    return "" if good else _is(value, "a whole number")


def number(value: Any) -> str:
    """A finite number."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return "" if good and abs(value) < 1e300 and math.isfinite(value) else _is(value, "a number")


def boolean(value: Any) -> str:
    """True or false."""
    return "" if isinstance(value, bool) else _is(value, "true or false")


def maybe(check: Check) -> Check:
    """None, or what `check` accepts."""
    return lambda value: "" if value is None else check(value)


def either(*checks: Check) -> Check:
    """What any of the checks accepts; the message is the first one's."""
    return lambda value: "" if any(not check(value) for check in checks) else checks[0](value)


def listed(check: Check) -> Check:
    """A list of values that `check` accepts."""

    def misfit(value: Any) -> str:
        if not isinstance(value, list):
            return _is(value, "a list")
        return next((f"[{n}] {why}" for n, each in enumerate(value) if (why := check(each))), "")

    return misfit


def mapped(check: Check) -> Check:
    """An object whose values `check` accepts."""

    def misfit(value: Any) -> str:
        if not isinstance(value, dict):
            return _is(value, "an object")
        return next((_at(key, why) for key, each in value.items() if (why := check(each))), "")

    return misfit


def having(required: Mapping[str, Check], **optional: Check) -> Check:
    """An object with the `required` keys, maybe the `optional` ones, and any others."""

    def misfit(value: Any) -> str:
        if not isinstance(value, dict):
            return _is(value, "an object")
        if missing := next((key for key in required if key not in value), None):
            return f"lacks {missing!r}"
        for key, check in {**required, **optional}.items():
            if key in value and (why := check(value[key])):
                return _at(key, why)
        return ""

    return misfit


def shallow(value: Any) -> str:
    """A document that is not nested too deep to be read recursively, and has only JSON's numbers:
    Python also accepts NaN and Infinity."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return f"is nested more than {MAX_DEPTH} levels deep"
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, float) and not math.isfinite(each):
                return "contains a number that JSON does not allow"
        level = inner
    return ""


def _at(key: str, why: str) -> str:
    return f"{key[:60]!r} {why}"


def _is(value: Any, what: str) -> str:
    return f"must be {what}, not {_short(value)}"


def _short(value: Any) -> str:
    """A value in a few characters. Python cannot print a number of thousands of digits."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value.bit_length() > 100:
        return "a number of many digits"
    return repr(value[:40] if isinstance(value, str) else value)
