"""Checks an agent's answers: it runs on a host, and a host may send anything. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bilbo.services import BASE

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return isinstance(value, int) and 0 < value < 1 << 60 and not isinstance(value, bool)


def _code(value: Any) -> bool:
    return value is None or (isinstance(value, int) and -(1 << 31) <= value < 1 << 32)


def _ran(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 20


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _base(value: Any) -> bool:
    """A path that is safe in an address as it is."""
    return _text(value) and BASE.fullmatch(value) is not None


def is_texts(value: Any) -> bool:
    """Whether it is a list of strings."""
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _found(value: Any) -> bool:
    """Strings by name, None for what is missing."""
    return isinstance(value, dict) and all(each is None or _text(each) for each in value.values())


def _text_map(value: Any) -> bool:
    return isinstance(value, dict) and is_texts(list(value.values()))


def _age(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 <= value < 1 << 40)


def _services(value: Any) -> bool:
    return isinstance(value, list) and all(map(_service, value))


# What a service's status must tell, and what it may.
_STATUS: Mapping[str, Check] = {"service": _text, "running": _flag, "code": _code}
_DETAILS: Mapping[str, Check] = {
    "age": _age,
    "rebooted": _flag,
    "restarting": _flag,
    "unsupervised": _flag,
    "restarts": _ran,
    "log": is_texts,
}


def _service(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(key in value and check(value[key]) for key, check in _STATUS.items())
        and all(check(value[key]) for key, check in _DETAILS.items() if key in value)
    )


def _members(value: Any) -> bool:
    return value is None or _text_map(value)


def is_watch(value: Any) -> bool:
    """Whether it is what a watcher has found."""
    return (
        isinstance(value, dict)
        and _age(value.get("age", ""))
        and _age(value.get("ends_in", ""))
        and is_texts(value.get("awake"))
        and _text(value.get("why"))
        and _text(value.get("trouble"))
    )


_EXITED: Mapping[str, Check] = {"code": _code, "log": is_texts}
# By request: the events that may answer it, and the fields that each must have.
_EVENTS: Mapping[str, Mapping[str, Mapping[str, Check]]] = {
    "measure": {
        "measured": {
            "cpus": _count,
            "threads_per_core": _count,
            "memory": _count,
            "gpus": is_texts,
            "executables": _found,
            "elsewhere": _text_map,
            "python": _text,
            "versions": _found,
        }
    },
    "reach": {"reached": {"why": _text}},
    "grow": {"grown": {"done": _flag, "why": _text}},
    "boot": {"waiting": {"cause": _text}, "timeout": {"cause": _text}, "done": {"ran": _ran}},
    "init": {"done": {"ran": _ran}, "exited": {**_EXITED, "number": _count}},
    "packages": {"done": {"ran": _ran}, "exited": {**_EXITED, "python": _text}},
    "start": {
        "started": {"changed": _ran},
        "already": {"changed": _ran},
        "ready": {"secure": _flag, "base": _base},
        "open": {"cause": _text, "ended": _flag, "log": is_texts},
        "timeout": {"cause": _text, "log": is_texts},
        "exited": _EXITED,
    },
    "keep": {"kept": {"way": _text, "why": _text}},
    "roll": {"roll": {"joined": _text_map, "left": is_texts}, "exited": _EXITED},
    "watch": {"watched": {}},
    "stop": {"done": {}},
    "extend": {"extended": {"left": _age}},
    "status": {"status": {"services": _services, "members": _members}},
    "logs": {"log": {"service": _text, "lines": is_texts}, "done": {}},
    "program": {"ran": {"code": _code, "output": _text, "log": is_texts}},
}


def misfit(op: str, event: Mapping[str, Any]) -> str:
    """Why `event` does not answer the request `op`; empty if it does."""
    shape = _EVENTS[op].get(event["event"] if isinstance(event["event"], str) else "")
    if shape is None:
        return f"{str(event['event'])[:40]!r} does not answer {op!r}"
    for key, check in shape.items():
        if key not in event:
            return f"it lacks {key!r}"
        if not check(event[key]):
            return f"its {key!r} is {str(event[key])[:40]!r}"
    return ""
