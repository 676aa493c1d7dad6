"""Workers cannot be retired by a head that does not answer: the programs say so in one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ASKED = '{"groups": [{"hosts": ["i-1"], "leave": 1}], "must": false}'
# On an address of its own nobody listens on the engines' ports.
NOBODY = "127.93.81.7"


@pytest.mark.parametrize(
    ("engine", "address", "said"),
    [
        (
            "dask",
            {"DASK_SCHEDULER_ADDRESS": f"tcp://{NOBODY}:8786"},
            "the scheduler does not answer: ",
        ),
        ("ray", {"RAY_ADDRESS": f"ray://{NOBODY}:10001"}, "the head does not answer: "),
    ],
)
def test_a_dead_head(engine: str, address: dict[str, str], said: str) -> None:
    """Nobody answers: a line of words and exit code 1, no traceback."""
    # What is said is tested, not how long it takes (30 s).
    program = f"from bilbo.agent import leave_{engine} as it; it.PATIENCE = 2.0; it.main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **address}, input=ASKED, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(said), done.stderr
    assert len(done.stderr.splitlines()) == 1
