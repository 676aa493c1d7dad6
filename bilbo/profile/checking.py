"""Checks a profile against `schemas/profile-01.schema.json` and says every mistake in words."""

from __future__ import annotations

import ipaddress
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bilbo.engines import ENGINES
from bilbo.errors import ProfileError
from bilbo.model import HEADS, WORKER
from bilbo.profile.places import KeyPath, Places, dotted, nearest, shown
from bilbo.resources import folder
from bilbo.text import without_credentials

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

SCHEMA_FILE = "profile-01.schema.json"
MAX_SHOWN = 100

_NAMES = {
    "object": "an object",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "boolean": "true or false",
    "number": "a number",
}
# What a TARGET means already.
_RESERVED = ("all", "notebook", *HEADS, "workers")


def check_profile(document: Any, places: Places | None = None) -> None:
    """Raises ProfileError with every mistake of `document` as a line of its `details`.

    A line says where (`places`), which key, what is wrong, and the nearest right key or the
    allowed values.
    """
    places = places or Places()
    found: dict[KeyPath, str] = {}
    for path, words in _all_mistakes(document):
        found.setdefault(path, words)
    if found:
        raise mistakes(found, places)


def _all_mistakes(document: Any) -> Iterator[tuple[KeyPath, str]]:
    yield from _bad_texts(document)
    yield from _schema_mistakes(document)
    yield from _cidrs(document)
    yield from _groups(document)


def mistakes(found: dict[KeyPath, str], places: Places) -> ProfileError:
    """The error that lists what is `found` wrong at each path, in the order of the file."""
    ordered = sorted(found, key=lambda path: (places.line(path), dotted(path)))
    lines = [
        ": ".join(part for part in (places.of(path), dotted(path), found[path]) if part)
        for path in ordered[:MAX_SHOWN]
    ]
    if len(ordered) > MAX_SHOWN:
        lines.append(f"and {len(ordered) - MAX_SHOWN} more")
    count = "a mistake" if len(found) == 1 else f"{len(found)} mistakes"
    return ProfileError(f"{count} in the profile", where=places.where, details=tuple(lines))


def schema() -> dict[str, Any]:
    """The profile's JSON Schema."""
    text = (folder("schemas") / SCHEMA_FILE).read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _bad_texts(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """What no shell, file or other program can take, in any text or key."""
    if isinstance(value, str):
        if "\0" in value:
            yield path, "must not hold a NUL character"
        elif re.search("[\ud800-\udfff]", value):
            yield path, "must not hold half of a surrogate pair (\\ud800 to \\udfff)"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from ((bad, f"the key {words}") for bad, words in _bad_texts(key, (*path, key)))
            yield from _bad_texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _bad_texts(item, (*path, index))


def _schema_mistakes(document: Any) -> Iterator[tuple[KeyPath, str]]:
    error: Any  # its attributes are all typed as perhaps unset
    for error in _validator().iter_errors(document):
        path: KeyPath = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known = error.schema["properties"]
            for key in error.instance.keys() - known.keys():
                yield (*path, key), _unknown(key, path, list(known))
        elif "propertyNames" in error.absolute_schema_path:
            yield (*path, error.instance), error.schema["patternErrorMessage"]
        else:
            yield path, _WORDS.get(str(error.validator), _plain)(error)


def _unknown(key: str, path: KeyPath, known: list[str]) -> str:
    """What to write in place of the unknown `key` of the object at `path`."""
    homes = _homes().get(key)
    if homes:  # it is written right, and in the wrong place
        home = min(homes, key=lambda each: (each[: len(path)] != path, len(each)))
        return f"does not belong here but into {dotted(home)}"
    near = nearest(key, known)
    if near:
        return f"there is no such key; did you mean {near}?"
    return f"there is no such key; there are {', '.join(known)}"


def _type(error: Any) -> str:
    value = error.instance
    hint = ""
    if error.validator_value == "string" and isinstance(value, int | float):
        hint = f'; write "{json.dumps(value)}"'
    allowed = error.validator_value
    names = [_NAMES[name] for name in ([allowed] if isinstance(allowed, str) else allowed)]
    return f"must be {' or '.join(names)}, not {_value(value)}{hint}"


def _pattern(error: Any) -> str:
    words = error.schema["patternErrorMessage"]
    # What may be a list, too, has lists among its examples.
    examples = [each for each in error.schema.get("examples", ()) if isinstance(each, str)]
    such_as = f", such as {shown(examples[0], 120)}" if examples else ""
    return f"{words}{such_as}; it is {_value(error.instance)}"


def _range(error: Any) -> str:
    low, high = error.schema["minimum"], error.schema["maximum"]
    return f"must be from {low} to {high}; it is {_value(error.instance)}"


def _plain(error: Any) -> str:
    return shown(error.message, 200)


def _listed_missing(error: Any) -> str:
    return ", ".join(key for key in error.validator_value if key not in error.instance)


_WORDS: dict[str, Callable[[Any], str]] = {
    "type": _type,
    "pattern": _pattern,
    "minimum": _range,
    "maximum": _range,
    "not": lambda error: f"has both {' and '.join(error.validator_value['required'])}; choose one",
    "minLength": lambda error: "must not be empty",
    "minItems": lambda error: "must not be empty; leave the key out",
    "maxLength": lambda error: f"must not be longer than {error.validator_value} characters",
    "maxItems": lambda error: f"must not have more than {error.validator_value} items",
    "required": lambda error: f"lacks the key {_listed_missing(error)}",
    "maxProperties": lambda error: f"must not have more than {error.validator_value} keys",
}


def _value(value: Any) -> str:
    """A value as it is shown in a message: never long, never dangerous to a terminal."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return shown(without_credentials(json.dumps(value, ensure_ascii=False)))


def _cidrs(document: Any) -> Iterator[tuple[KeyPath, str]]:
    access = document.get("access") if isinstance(document, dict) else None
    cidrs = access.get("cidrs") if isinstance(access, dict) else None
    first: dict[str, int] = {}
    for index, cidr in enumerate(cidrs if isinstance(cidrs, list) else []):
        if not isinstance(cidr, str):
            continue
        problem = _cidr_problem(cidr)
        if first.setdefault(cidr, index) != index:
            problem = f"is there already, as item {first[cidr]}"
        if problem:
            yield ("access", "cidrs", index), problem


def _groups(document: Any) -> Iterator[tuple[KeyPath, str]]:
    """Names of worker groups that cannot be told apart."""
    for engine in ENGINES:
        part = document.get(engine) if isinstance(document, dict) else None
        groups = part.get(WORKER) if isinstance(part, dict) else None
        yield from _same_names((engine, WORKER), groups)


def _same_names(path: KeyPath, groups: Any) -> Iterator[tuple[KeyPath, str]]:
    first: dict[str, int] = {}
    for index, group in enumerate(groups if isinstance(groups, list) else []):
        name = group.get("name") if isinstance(group, dict) else None
        if not isinstance(name, str):
            continue
        if name in _RESERVED:
            yield (*path, index, "name"), f"{name} means other instances already"
        elif first.setdefault(name, index) != index:
            yield (*path, index, "name"), f"is there already, in group {first[name]}"


def _cidr_problem(text: str) -> str | None:
    """What is wrong with `text` as an IPv4 network in the form that Terraform takes."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        example = "such as 203.0.113.7/32"
        return f"must be an IPv4 network, written address/bits, {example}; it is {_value(text)}"
    if network.version != 4:
        return f"must be an IPv4 network; {shown(text)} is IPv6"
    if str(network) == text:
        return None
    address = text.partition("/")[0]
    if "/" not in text or str(network.network_address) == address:
        return f"write {network}, not {shown(text)}"
    return f"write {network} for that network, or {address}/32 for the one address {address}"


@lru_cache(maxsize=1)
def _validator() -> Validator:
    jsonschema = _jsonschema()
    base = jsonschema.Draft202012Validator
    made: Validator = jsonschema.validators.extend(base, {"pattern": _match})(schema())
    return made


def _match(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    """JSON Schema's `pattern`, whose `$` is the very end: Python's admits a newline there."""
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield _jsonschema().ValidationError(f"{instance!r} does not match {pattern!r}")


# Packages for formats that no profile has. jsonschema imports them where they are installed, as
# with JupyterLab, and that takes most of a second.
_UNWANTED = ("isoduration", "rfc3987", "rfc3987_syntax", "uri_template", "webcolors")


def _jsonschema() -> ModuleType:
    """The package, imported without what it does not need."""
    kept_out = [name for name in _UNWANTED if name not in sys.modules]
    if "jsonschema" in sys.modules:
        kept_out = []
    for name in kept_out:
        sys.modules[name] = None  # type: ignore[assignment] # makes its import fail
    try:
        import jsonschema
    finally:
        for name in kept_out:
            del sys.modules[name]
    return jsonschema


@lru_cache(maxsize=1)
def _homes() -> dict[str, list[KeyPath]]:
    """For each key of the schema, the objects that it belongs into."""
    whole = schema()
    homes: dict[str, list[KeyPath]] = {}

    def walk(part: dict[str, Any], path: KeyPath) -> None:
        if "$ref" in part:
            part = whole["$defs"][part["$ref"].rpartition("/")[2]]
        for key, child in part.get("properties", {}).items():
            homes.setdefault(key, []).append(path)
            walk(child, (*path, key))

    walk(whole, ())
    return homes
