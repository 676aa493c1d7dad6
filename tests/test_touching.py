"""The markers `standin` and `programs` are held true: pytest runs tests whose markers are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import subprocess, sys
import pytest

def start(*words):
    subprocess.run([sys.executable, "-c", "", *words], check=True)

@pytest.fixture(scope="module")
def server():
    start("-m", "bilbo.local.server")

def test_right_without(): start("-m", "bilbo", "--help")

def test_right_by_a_fixture_of_its_own(bilbo): start("bilbo", "--local")

def test_wrong_without(): start("bilbo", "--local")

@pytest.mark.standin
def test_wrong_with(): start("bilbo")

@pytest.mark.standin
def test_right_by_a_shared_fixture(server): pass

@pytest.mark.standin
def test_right_by_a_shared_fixture_again(server): pass

def test_wrong_by_a_shared_fixture(server): pass

def test_wrong_by_a_service(): sys.audit("bilbo.tests.service", "dask-worker")

def test_right_by_a_service_of_no_engine(): sys.audit("bilbo.tests.service", "sleeper")

@pytest.mark.programs
def test_right_by_a_service(): sys.audit("bilbo.tests.service", "dask-worker")

def test_wrong_by_an_engine():
    with pytest.raises(OSError): subprocess.run(["/nowhere/ray", "start", "--help"])

def test_right_by_a_fixture_and_pip(bilbo): start("bilbo", "--local"); start("-m", "pip")

def test_wrong_by_terraform():
    with pytest.raises(OSError): subprocess.run(["/nowhere/terraform", "apply"])

def test_right_by_terraform():
    with pytest.raises(OSError): subprocess.run(["/nowhere/terraform", "validate"])

@pytest.fixture
def bilbo(): pass
"""


@pytest.fixture
def tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with the tests, and with no word of the surrounding run in the environment."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take long to import
    monkeypatch.delenv("BILBO_RECORD_TOUCHING", raising=False)
    pytester.makepyfile(TESTS)
    return pytester


def test_wrong_markers_are_failures(tests: pytest.Pytester) -> None:
    """Who touches without the marker, or has it and touches nothing, fails, and nobody else."""
    done = tests.runpytest_subprocess("-p", "touching", "--strict-markers", "-rA")
    wrong, right = TESTS.count("def test_wrong_"), TESTS.count("def test_right_")
    done.assert_outcomes(failed=wrong, passed=right)
    assert not [line for line in done.outlines if line.startswith("FAILED") and "_right_" in line]
    done.stdout.fnmatch_lines(["*test_wrong_without needs the marker `standin` and lacks it*"])
    done.stdout.fnmatch_lines(["*test_wrong_with has the marker `standin` and needs it not*"])


def test_the_marker_chooses(tests: pytest.Pytester) -> None:
    """`-m` leaves out those who have it by a fixture, too."""
    done = tests.runpytest_subprocess(
        "-p", "touching", "-m", "not standin and not programs", "-k", "right"
    )
    done.assert_outcomes(passed=3, deselected=TESTS.count("def test_") - 3)
