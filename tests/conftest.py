"""What all tests share: one stand-in AWS for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bilbo import local
from bilbo.model import Target


@dataclass(frozen=True)
class StandIn:
    """A running stand-in AWS: the bilbo home it belongs to, and how it is reached."""

    home: Path
    target: Target


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """A stand-in that lives as long as the session; name what you make in it after your test."""
    home = tmp_path_factory.mktemp("standin")
    try:
        yield StandIn(home, local.start(home))
    finally:
        local.stop(home)
