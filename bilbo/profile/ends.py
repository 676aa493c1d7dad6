"""Checks that what a profile says of its cluster's end makes sense together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bilbo.lifetime import DURATION, seconds, words
from bilbo.profile.places import KeyPath

# What `ttl` would always come before.
_WITHIN_TTL = {
    "idle": "the cluster would end before it counts",
    "unreached": "a machine that nobody uses would run longer than the cluster",
}


def lifetime_mistakes(document: Any) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong with `lifetime` although each value is well-formed: a duration of nothing, or
    one beyond `ttl`."""
    part = document.get("lifetime") if isinstance(document, dict) else None
    found: dict[str, int] = {}
    for key, text in part.items() if isinstance(part, dict) else ():
        if key == "then" or not isinstance(text, str) or not DURATION.fullmatch(text):
            continue  # the schema says so
        try:
            found[key] = seconds(text)
        except ValueError:
            yield ("lifetime", key), "must be longer than nothing, such as 90m"
    ttl = found.get("ttl")
    for key, why in _WITHIN_TTL.items():
        if ttl is not None and found.get(key, 0) > ttl:
            beyond = f"must not be longer than ttl ({words(ttl)}): {why}"
            yield ("lifetime", key), f"{beyond}; it is {words(found[key])}"
