"""Workers cannot be retired by a head that does not answer: the programs say so in one line."""

from __future__ import annotations

import io
import socket
import sys

import dask
import pytest

from bilbo.agent import leave_dask, leave_ray

ASKED = '{"groups": [{"hosts": ["i-1"], "leave": 1}], "must": false}'


def nobody() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def test_a_dead_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's client finds nobody: a line of words, no traceback."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(ASKED))
    monkeypatch.setattr(leave_dask, "PATIENCE", 0.5)
    address = f"tcp://127.0.0.1:{nobody()}"
    with dask.config.set({"scheduler-address": address}), pytest.raises(SystemExit) as ended:
        leave_dask.main()
    assert str(ended.value.code).startswith("the scheduler does not answer: ")


def test_a_dead_ray_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard refuses connections: a line of words, no traceback."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(ASKED))
    monkeypatch.setattr(leave_ray, "DASHBOARD_PORT", nobody())
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    with pytest.raises(SystemExit) as ended:
        leave_ray.main()
    assert str(ended.value.code).startswith("the head does not answer: ")
