"""Whatever an agent answers is taken for what it is, or named as the failure of its host."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bilbo.remote.agent_session import LONGEST_LINE, Lines, Session
from bilbo.remote.answers import misfit
from bilbo.remote.terms import HostFailure

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["event", "id", "cpus", "memory", "log", "code", "cause", "x"]), inner
        )
    ),
)


class Channel:
    """Takes what is sent, and sends nothing back."""

    def write(self, data: bytes) -> None:
        """Nobody reads it."""


def answered(line: bytes, op: str = "measure") -> Any:
    """What `ask` makes of one line, after which the host falls silent for good."""

    async def ask() -> Any:
        lines = Lines()
        session = Session(Channel(), lines, "c")  # type: ignore[arg-type]
        lines.data_received(line + b"\n", None)
        lines.connection_lost(None)
        return await session.ask(op, 5)

    return asyncio.run(ask())


GOOD = {
    "id": 1, "event": "measured", "cpus": 2, "threads_per_core": 1, "memory": 1 << 30, "gpus": [],
    "executables": {"dask": None}, "elsewhere": {}, "python": "3.11.1", "versions": {"dask": "1"},
}  # fmt: skip


def test_an_honest_answer() -> None:
    """What the agent says is taken."""
    assert answered(json.dumps(GOOD).encode()) == GOOD


@pytest.mark.parametrize("key", sorted(GOOD.keys() - {"id"}))
@pytest.mark.parametrize("value", [None, -1, True, [], {}, "x" * 100_000, [[1]], {"a": 1}])
def test_a_wrong_value(key: str, value: Any) -> None:
    """A value of another type, or none at all, is the host's failure."""
    changed = {**GOOD, key: value}
    if not misfit("measure", changed) and key != "event":
        return  # a text may be long, and a map empty
    with pytest.raises(HostFailure):
        answered(json.dumps(changed).encode())
    del changed[key]
    with pytest.raises(HostFailure):
        answered(json.dumps(changed).encode())


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"id": 1, "event": ' + b"[" * 50_000,
        b'{"id": 1, "event": "failed"}',
        b'{"id": 1, "event": "failed", "cause": {}}',
        b'{"id": 1, "event": {}}',
        b'{"event": "measured"}',
        b'{"id": 1, "event": "done"}',
        b"null",
        b"",
    ],
)
def test_garbage(line: bytes) -> None:
    """Deep, of the wrong type, without the asked key, not UTF-8: a named failure."""
    with pytest.raises(HostFailure):
        answered(line)


def test_a_line_without_end() -> None:
    """A host cannot fill this machine's memory."""
    lines = Lines()
    piece = b"x" * (8 << 20)
    for _ in range(LONGEST_LINE // len(piece) + 1):
        lines.data_received(piece, None)
    assert len(lines._rest) <= LONGEST_LINE
    assert lines.lines.get_nowait() is None


@given(VALUES, st.sampled_from(["measure", "init", "start", "logs", "program", "status"]))
def test_any_answer(value: Any, op: str) -> None:
    """No answer at all is a traceback."""
    line = json.dumps({"id": 1, "event": "measured", **value} if isinstance(value, dict) else value)
    with contextlib.suppress(HostFailure):
        answered(line.encode(), op)
