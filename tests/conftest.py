"""What all tests share: one stand-in AWS for the whole session."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo
from filelock import FileLock

from bilbo import local
from bilbo.model import Target

pytest_plugins = ["touching", "teams"]

# The longest first, so that none of them is begun last; much of their time is waiting. `make test`
# says at its end which took longest. test_ray and test_benchmarks wait for each other (`only_ray`).
LONGEST_FIRST = (
    "test_gitops",
    "test_gitops_refusals",
    "test_scale",
    "test_crash_contract",
    "test_pause",
    "test_faults_interrupt",
    "test_ray",
    "test_faults_aws",
    "test_look",
    "test_back_again",
    "test_faults_hosts",
    "test_images",
    "test_walkthrough",
    "test_spot",
    "test_outlived",
    "test_forgotten",
    "test_whose",
    "test_commands",
    "test_faults_records",
    "test_standin",
    "test_pages",
    "test_packer",
    "test_secrets",
    "test_sweep",
    "test_modules",
    "test_account",
    "test_benchmarks",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the files; within one, tests stay in the order in which they are written."""
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The ten slowest files, what their fixtures took included."""
    took: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                took[report.nodeid.partition("::")[0]] += report.duration
    if len(took) > 1:
        terminalreporter.section("slowest files")
        for file in sorted(took, key=lambda file: -took[file])[:10]:
            terminalreporter.write_line(f"{took[file]:7.1f} s  {file}")


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


@pytest.fixture(scope="module")
def bilbo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bilbo]:
    """bilbo with a home and a stand-in of its own, which ends with the module."""
    home = tmp_path_factory.mktemp("home")
    local.start(home)
    try:
        yield Bilbo(home)
    finally:
        local.stop(home)


@pytest.fixture(scope="module")
def only_ray() -> Iterator[None]:
    """For those who run a Ray cluster: a machine holds one, and tests run two files at a time."""
    with FileLock(Path(tempfile.gettempdir()) / "bilbo-tests-ray.lock"):
        yield


@dataclass(frozen=True)
class Cluster:
    """A running cluster of the session's, for tests that leave it as it was.

    It is made by `bilbo create PROFILE -n NAME`: notebook [1], scheduler [2], workers [3] and [4].
    A page that is opened for it is written into `opened`.
    """

    name: str
    profile: str
    bilbo: Bilbo
    opened: Path


@pytest.fixture(scope="session")
def cluster(standin: StandIn) -> Cluster:
    """A cluster that lives as long as the session; it goes with the stand-in."""
    bilbo = Bilbo(standin.home)
    opened = standin.home / "opened"
    browser = standin.home / "browser"
    browser.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> '{opened}'\n", encoding="utf-8")
    browser.chmod(0o700)
    document = {
        "instance": {**INSTANCE, "init_cmd": ["echo said", "echo ran >> init-ran"]},
        "notebook": {},
        "dask": {"worker": {"count": 2, **ONE_PROCESS}},
        "webbrowser": str(browser),
    }
    profile = bilbo.profile("shared", document)
    bilbo("--local", "create", profile, "-n", "shared-cluster")
    return Cluster("shared-cluster", profile, bilbo, opened)
