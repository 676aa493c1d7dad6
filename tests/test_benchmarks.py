"""Every benchmark runs at its smallest size. What they measure is not judged here: it is a busy
machine's business."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
NAMES = sorted(
    path.stem for path in FOLDER.glob("*.py") if "def measure(" in path.read_text(encoding="utf-8")
)


@dataclass
class Started:
    """A benchmark that runs in the background."""

    process: subprocess.Popen[str]
    path: Path

    def result(self) -> dict[str, Any]:
        """What it found; its output where it failed."""
        said, _ = self.process.communicate(timeout=380)
        assert self.process.returncode == 0, said[-4000:]
        found: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return found


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory, only_ray: None
) -> Iterator[dict[str, Started]]:
    """All of them, at the same time: most of their time they wait for Terraform."""
    folder = tmp_path_factory.mktemp("benchmarks")
    running = {}
    for name in NAMES:
        path = folder / f"{name}.json"
        argv = [sys.executable, str(FOLDER / f"{name}.py"), "--smallest", "--json", str(path)]
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        running[name] = Started(process, path)
    try:
        yield running
    finally:
        for each in running.values():
            each.process.terminate()
            each.process.wait()


def the_writer() -> ModuleType:
    """benchmarks/__main__.py as a module."""
    spec = importlib.util.spec_from_file_location("bench_main", FOLDER / "__main__.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.standin
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_at_its_smallest_size(name: str, started: dict[str, Started]) -> None:
    """The benchmark ends well alone, answers its question in a table, and states its bounds."""
    found = started[name].result()
    assert found["question"].endswith("?")
    assert len(found["table"]) > 1
    assert all(len(row) <= len(found["table"][0]) for row in found["table"])
    assert all(isinstance(bound["measured"], int | float) for bound in found["bounds"])


def test_all_benchmarks_are_run() -> None:
    """`make bench` runs every benchmark that there is."""
    assert sorted(the_writer().BENCHMARKS) == NAMES


def test_results_are_written(tmp_path: Path) -> None:
    """RESULTS.md names machine, versions and bounds; results.json has all; plots are SVG."""
    writer = the_writer()
    result = {
        "question": "How?",
        "table": [["a", "b"], ["c", 1.5]],
        "bounds": [
            {"what": "x", "limit": 1, "measured": 2.0, "unmet": "because", "met": False},
            {"what": "y", "limit": 3, "measured": 2.0, "unmet": "", "met": True},
        ],
        "notes": ["A note."],
        "plots": [
            {
                "file": "growth",
                "title": "A <title>",
                "x": "x",
                "y": "y",
                "lines": [{"name": "l", "points": [[2, 5], [1000, 0.5]]}],
            }
        ],
        "raw": {},
        "seconds": 1.0,
        "machine": writer.machine(),
    }
    writer.write(tmp_path, {"startup": result})
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    for words in ("## How?", "| c | 1.5 |", "NOT met: because", "met", "A note.", "asyncssh "):
        assert words in text
    assert json.loads((tmp_path / "results.json").read_text())["results"]["startup"] == result
    svg = ElementTree.parse(tmp_path / "plots" / "growth.svg").getroot()
    assert svg.tag.endswith("svg") and len(list(svg.iter())) > 20
