"""Checks a profile against `schemas/profile-01.schema.json` and explains every mistake."""

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
from bilbo.profile.ends import lifetime_mistakes
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
    "string": "a string",
    "integer": "a whole number",
    "boolean": "true or false",
    "number": "a number",
    "null": "null",
}
# Names that already mean something as a TARGET.
_RESERVED = ("all", "notebook", *HEADS, "workers")


def check_profile(document: Any, places: Places | None = None) -> None:
    """Raises ProfileError with every mistake of `document` as a line of its `details`.

    A line says where (`places`), which key, what is wrong, and the nearest known key or the
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
    yield from lifetime_mistakes(document)


def mistakes(found: dict[KeyPath, str], places: Places) -> ProfileError:
    """The error that lists the mistakes `found`, by path, in the order of the file."""
    ordered = sorted(found, key=lambda path: (places.line(path), dotted(path)))
    lines = [
        ": ".join(part for part in (places.of(path), dotted(path), found[path]) if part)
        for path in ordered[:MAX_SHOWN]
    ]
    if len(ordered) > MAX_SHOWN:
        lines.append(f"and {len(ordered) - MAX_SHOWN} more")
    count = "a mistake" if len(found) == 1 else f"{len(found)} mistakes"
    return ProfileError(f"{count} in {places.what}", where=places.where, details=tuple(lines))


def schema() -> dict[str, Any]:
    """The profile's JSON Schema."""
    text = (folder("schemas") / SCHEMA_FILE).read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _bad_texts(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Characters in strings and keys that shells, files and other programs cannot handle."""
    if isinstance(value, str):
        if "\0" in value:
            yield path, "must not contain a NUL character"
        elif re.search("[\ud800-\udfff]", value):
            yield path, "must not contain half of a surrogate pair (\\ud800 to \\udfff)"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from ((bad, f"the key {words}") for bad, words in _bad_texts(key, (*path, key)))
            yield from _bad_texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _bad_texts(item, (*path, index))


def _schema_mistakes(document: Any) -> Iterator[tuple[KeyPath, str]]:
    error: Any  # jsonschema types all its attributes as possibly unset
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
    """What to write instead of the unknown `key` of the object at `path`."""
    homes = _homes().get(key)
    if homes:  # spelled right, but in the wrong place
        home = min(homes, key=lambda each: (each[: len(path)] != path, len(each)))
        return f"belongs {f'in {dotted(home)}' if home else 'at the top level'}, not here"
    near = nearest(key, known)
    if near:
        return f"unknown key; did you mean {near}?"
    return f"unknown key; the keys here are {', '.join(known)}"


def _type(error: Any) -> str:
    value = error.instance
    hint = ""
    if error.validator_value == "string" and isinstance(value, int | float):
        hint = f'; write "{json.dumps(value)}"'
        if not re.search(error.schema.get("pattern", ""), json.dumps(value)):
            hint = f"; it {error.schema['patternErrorMessage']}"
    allowed = error.validator_value
    names = [_NAMES[name] for name in ([allowed] if isinstance(allowed, str) else allowed)]
    return f"must be {' or '.join(names)}, not {_value(value)}{hint}"


def _pattern(error: Any) -> str:
    words = error.schema["patternErrorMessage"]
    # What may be a list, too, has lists among its examples.
    examples = [each for each in error.schema.get("examples", ()) if isinstance(each, str)]
    shows = examples and "such as" not in words
    such_as = f", such as {shown(examples[0], 120)}" if shows else ""
    return f"{words}{such_as}; it is {_value(error.instance)}"


def _enum(error: Any) -> str:
    allowed = " or ".join(json.dumps(each) for each in error.validator_value)
    return f"must be {allowed}; it is {_value(error.instance)}"


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
    "enum": _enum,
    "minimum": _range,
    "maximum": _range,
    "not": lambda error: f"has both {' and '.join(error.validator_value['required'])}; choose one",
    "minLength": lambda error: "must not be empty",
    "minItems": lambda error: "must not be empty; leave the key out",
    "maxLength": lambda error: f"must not be longer than {error.validator_value} characters",
    "maxItems": lambda error: f"must not have more than {error.validator_value} items",
    "required": lambda error: f"the key {_listed_missing(error)} is missing",
    "maxProperties": lambda error: f"must not have more than {error.validator_value} keys",
}


def _value(value: Any) -> str:
    """A value as a message shows it: short, and safe for a terminal."""
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
            problem = f"repeats item {first[cidr]}"
        if problem:
            yield ("access", "cidrs", index), problem


def _groups(document: Any) -> Iterator[tuple[KeyPath, str]]:
    """Worker groups with reserved or duplicate names."""
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
            yield (*path, index, "name"), f"{name} is reserved; choose another name"
        elif first.setdefault(name, index) != index:
            yield (*path, index, "name"), f"is already the name of group {first[name]}"


def _cidr_problem(text: str) -> str | None:
    """What is wrong with `text` as an IPv4 network; None if Terraform accepts it."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        example = "such as 203.0.113.7/32"
        return f"must be an IPv4 network in CIDR notation, {example}; it is {_value(text)}"
    if network.version != 4:
        return f"must be an IPv4 network; {shown(text)} is IPv6"
    if str(network) == text:
        return None
    address = text.partition("/")[0]
    if "/" not in text or str(network.network_address) == address:
        return f"write {network}, not {shown(text)}"
    return f"write {network} for the network, or {address}/32 for the single address"


@lru_cache(maxsize=1)
def _validator() -> Validator:
    jsonschema = _jsonschema()
    base = jsonschema.Draft202012Validator
    made: Validator = jsonschema.validators.extend(base, {"pattern": _match})(schema())
    return made


def _match(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    """JSON Schema's `pattern`, whose `$` is the very end: Python's `$` also allows a newline."""
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield _jsonschema().ValidationError(f"{instance!r} does not match {pattern!r}")


# Packages for formats that no profile uses. jsonschema imports them where they are installed, as
# they are with JupyterLab, which takes most of a second.
_UNWANTED = ("isoduration", "rfc3987", "rfc3987_syntax", "uri_template", "webcolors")


def _jsonschema() -> ModuleType:
    """The package, imported without the packages that bilbo does not need."""
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
    """The objects that each key of the schema belongs in."""
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
