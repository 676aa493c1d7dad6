"""Which tests need more than Python: looked at, not believed.

A test needs the marker `standin` if it, or a fixture of its, starts a stand-in AWS, runs a
Terraform that applies, or starts Dask, Ray or JupyterLab on a host of `ssh_hosts`. `make quick`
runs the others. This plugin watches what is started, and fails a test whose marker says otherwise.
With `BILBO_RECORD_TOUCHING=FILE` it fails none and writes down what each has touched.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

MARKER = "standin"
# Whoever uses one of these is marked by that; others that touch are marked where they stand.
FIXTURES = frozenset({"standin", "bilbo", "cluster", "team", "aws", "workshop", "two"})
# Raised by `ssh_hosts` with the name of a service that was started on a host.
SERVICE = "bilbo.tests.service"
ENGINES = ("dask", "ray", "jupyter")


def touches(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a process is a stand-in, a Terraform that applies, a benchmark (they start both), or
    a bilbo that uses either."""
    if "bilbo.local.server" in argv or any("/benchmarks/" in word for word in argv):
        return True
    if Path(argv[0]).name in ("terraform", "tofu"):
        return bool({"apply", "destroy", "test"} & set(argv))
    if "bilbo" not in argv and Path(argv[0]).name != "bilbo":
        return False
    home = Path(environment.get("BILBO_HOME", "/nonexistent"))
    standin = (home / "local" / "state.json").is_file()
    return "--local" in argv or "AWS_ENDPOINT_URL" in environment or standin


class Watcher:
    """Remembers what touched: the test that runs now, and fixtures by their place and name."""

    def __init__(self) -> None:
        self.fixtures: set[tuple[str, str]] = set()
        self.now = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == SERVICE and arguments[0].startswith(ENGINES):
            self.now = True
        if event == "subprocess.Popen":
            _, argv, _, environment = arguments
            words = [argv] if isinstance(argv, str | bytes | os.PathLike) else list(argv)
            found = os.environ if environment is None else environment
            texts = {os.fsdecode(key): os.fsdecode(value) for key, value in found.items()}
            if touches([os.fsdecode(word) for word in words], texts):
                self.now = True

    def saw(self, item: pytest.Item) -> bool:
        """Whether the test that runs now, or a fixture that it uses, has touched."""
        names = getattr(item, "fixturenames", ())
        return self.now or any(
            name in names and item.nodeid.startswith(place) for place, name in self.fixtures
        )


watcher = Watcher()
sys.addaudithook(watcher)


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    config.addinivalue_line("markers", f"{MARKER}: see tests/touching.py; `make quick` skips it")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests whose fixtures are known to touch, before `-m` chooses."""
    for item in items:
        if FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """A fixture that touches makes every test touch that uses it."""
    before, watcher.now = watcher.now, False
    try:
        return (yield)
    finally:
        if watcher.now:
            watcher.fixtures.add((fixturedef.baseid, fixturedef.argname))
        watcher.now = watcher.now or before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Begins anew for each test."""
    watcher.now = False
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
    marked = item.get_closest_marker(MARKER) is not None
    record = os.environ.get("BILBO_RECORD_TOUCHING")
    if record:
        with Path(record).open("a", encoding="utf-8") as file:
            file.write(f"{touched}\t{marked}\t{call.duration:.2f}\t{item.nodeid}\n")
    elif touched != marked:
        report.outcome = "failed"
        does = "needs" if touched else "does not need"
        report.longrepr = (
            f"{item.nodeid} {does} the marker `{MARKER}`, and "
            f"{'has' if marked else 'lacks'} it. tests/touching.py says what needs it."
        )
    return report
