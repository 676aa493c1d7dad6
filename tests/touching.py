"""Which tests need more than Python: looked at, not believed.

`standin`   starts a stand-in AWS, or a Terraform that applies
`programs`  runs Dask, Ray or JupyterLab, or pip; who has `standin` needs not say so

`make quick` runs the tests that have neither. This plugin watches what a test and its fixtures
start, and fails a test whose markers say otherwise. With `BILBO_RECORD_TOUCHING=FILE` it fails none
and writes down what each has touched.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

STANDIN, PROGRAMS = "standin", "programs"
# Whoever uses one of these is marked by that; others that touch are marked where they stand.
FIXTURES = frozenset({"standin", "bilbo", "cluster", "team", "aws", "workshop", "two"})
# Raised by `ssh_hosts` with the name of a service that was started on a host.
SERVICE = "bilbo.tests.service"
ENGINES = ("dask", "ray", "jupyter")


def needed(argv: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """The marker that a test needs that starts this process."""
    name = Path(argv[0]).name
    installs = "pip" in argv or (name == "bash" and Path(argv[-1]).name == "setup.sh")
    if installs or name.startswith(ENGINES):
        return PROGRAMS
    # Benchmarks start a stand-in each.
    if "bilbo.local.server" in argv or any("/benchmarks/" in word for word in argv):
        return STANDIN
    if name in ("terraform", "tofu"):
        return STANDIN if {"apply", "destroy", "test"} & set(argv) else None
    if "bilbo" not in argv and name != "bilbo":
        return None
    home = Path(environment.get("BILBO_HOME", "/nonexistent"))
    standin = (home / "local" / "state.json").is_file()
    on_aws = {"AWS_ENDPOINT_URL", "BILBO_AWS"} & set(environment)
    return STANDIN if "--local" in argv or on_aws or standin else None


class Watcher:
    """Remembers who needs which marker: the test that runs now, and fixtures by place and name."""

    def __init__(self) -> None:
        self.fixtures: dict[tuple[str, str], set[str]] = {}
        self.now: set[str] = set()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == SERVICE and arguments[0].startswith(ENGINES):
            self.now.add(PROGRAMS)
        if event == "subprocess.Popen":
            _, argv, _, environment = arguments
            words = [argv] if isinstance(argv, str | bytes | os.PathLike) else list(argv)
            found = os.environ if environment is None else environment
            texts = {os.fsdecode(key): os.fsdecode(value) for key, value in found.items()}
            marker = needed([os.fsdecode(word) for word in words], texts)
            if marker:
                self.now.add(marker)

    def saw(self, item: pytest.Item) -> set[str]:
        """What the test that runs now needs, by itself or by a fixture."""
        names = getattr(item, "fixturenames", ())
        found = set(self.now)
        for (place, name), markers in self.fixtures.items():
            if name in names and item.nodeid.startswith(place):
                found |= markers
        return found


watcher = Watcher()
sys.addaudithook(watcher)


def pytest_configure(config: pytest.Config) -> None:
    """Makes the markers known."""
    for marker in (STANDIN, PROGRAMS):
        config.addinivalue_line("markers", f"{marker}: see tests/touching.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests whose fixtures are known to touch, before `-m` chooses."""
    for item in items:
        if FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(STANDIN)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """A fixture that touches makes every test touch that uses it."""
    before, watcher.now = watcher.now, set()
    try:
        return (yield)
    finally:
        place = (fixturedef.baseid, fixturedef.argname)
        watcher.fixtures.setdefault(place, set()).update(watcher.now)
        watcher.now |= before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Begins anew for each test."""
    watcher.now = set()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails a test that passed under the wrong marker."""
    report = yield
    if call.when != "call" or report.outcome != "passed":
        return report
    touched = watcher.saw(item)
    marked = {each for each in (STANDIN, PROGRAMS) if item.get_closest_marker(each)}
    if STANDIN in touched & marked:
        touched = marked = {STANDIN}
    record = os.environ.get("BILBO_RECORD_TOUCHING")
    if record:
        with Path(record).open("a", encoding="utf-8") as file:
            file.write(f"{sorted(touched)}\t{sorted(marked)}\t{item.nodeid}\n")
    elif touched != marked:
        report.outcome = "failed"
        does = ", ".join(
            [f"needs the marker `{each}` and lacks it" for each in sorted(touched - marked)]
            + [f"has the marker `{each}` and needs it not" for each in sorted(marked - touched)]
        )
        report.longrepr = f"{item.nodeid} {does}: see tests/touching.py."
    return report
