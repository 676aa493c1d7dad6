"""What differs between two places, what of it breaks, and how it is told. No host is asked."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wheels import wheel

from bilbo.agent import software as agent
from bilbo.cluster.compatibility import local_software
from bilbo.engines import ENGINES
from bilbo.engines.dask import DASK
from bilbo.errors import BilboError
from bilbo.present import report
from bilbo.versions import Software, VersionDifference, differences, mend, minor, rows

DOCS = Path(__file__).parents[1] / "docs" / "images.md"
PACKAGES = {
    "dask": "2026.8.0",
    "distributed": "2026.8.0",
    "cloudpickle": "3.1.2",
    "msgpack": "1.2.4",
    "numpy": "2.5.5",
    "pandas": "3.1.1",
    "pyarrow": "26.0.1",
    "lz4": "4.4.5",
    "s3fs": "2026.9.0",
}
SCHEDULER = Software("[1] scheduler", "3.12.3", PACKAGES)


def changed(where: str = "local", python: str = "3.12.3", **packages: str | None) -> Software:
    return Software(where, python, {**PACKAGES, **packages})


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (changed(), []),
        (changed(python="3.12.9"), [("python", False)]),
        (changed(python="3.11.3"), [("python", True)]),
        (changed(python="3.1.3"), [("python", True)]),
        (changed(distributed="2026.7.0"), [("distributed", True)]),
        (changed(msgpack="1.2.3", cloudpickle="3.0.0"), [("cloudpickle", True), ("msgpack", True)]),
        (changed(distributed=None), [("distributed", True)]),
        (changed(dask="2026.7.0", s3fs=None), [("dask", False), ("s3fs", False)]),
        (
            changed(numpy="2.0.0", pandas="2.0.0", pyarrow="1.0", lz4="1"),
            [("lz4", False), ("numpy", False), ("pandas", False), ("pyarrow", False)],
        ),
    ],
)
def test_what_breaks_and_what_does_not(other: Software, expected: list[tuple[str, bool]]) -> None:
    """Python's minor version, distributed, msgpack and cloudpickle break; nothing else does."""
    found = differences(SCHEDULER, other, DASK.breaking)
    assert [(each.package, each.breaks) for each in found] == expected
    assert {each.where for each in found} <= {"local"}


def test_a_package_that_only_one_side_has_differs_in_both_directions() -> None:
    """Not installed is a version of its own, here and there."""
    without = changed("[2] worker", lz4=None)
    (there,) = differences(SCHEDULER, without, DASK.breaking)
    assert (there.version, there.expected) == (None, "4.4.5")
    (here,) = differences(without, SCHEDULER, DASK.breaking)
    assert (here.version, here.expected) == ("4.4.5", None)
    assert mend([here]) == []
    assert mend([there]) == ["lz4==4.4.5"]


_VERSIONS = st.sampled_from((None, "1.0", "2.0"))
_SOFTWARE = st.builds(
    Software,
    st.just("x"),
    st.sampled_from(("3.11.1", "3.11.2", "3.12.1")),
    st.fixed_dictionaries(dict.fromkeys(PACKAGES, _VERSIONS)),
)


@given(_SOFTWARE, _SOFTWARE)
def test_what_mends_a_place_leaves_no_difference_that_pip_can_mend(
    reference: Software, other: Software
) -> None:
    """Installing what `mend` says leaves only Python, and what the reference has not."""
    found = differences(reference, other, DASK.breaking)
    assert differences(reference, reference, DASK.breaking) == []
    pinned = dict(each.split("==") for each in mend(found))
    after = Software("x", other.python, {**other.packages, **pinned})
    left = differences(reference, after, DASK.breaking)
    assert all(each.package == "python" or each.expected is None for each in left)
    assert [each.package for each in found] == sorted(
        (each.package for each in found), key=lambda name: (name != "python", name)
    )


def test_every_engine_names_what_must_match() -> None:
    """What breaks an engine is among what is compared for it."""
    for engine in ENGINES.values():
        assert set(engine.breaking) <= set(engine.packages)
    assert set(DASK.packages) == set(PACKAGES)


def test_the_same_difference_of_many_hosts_is_one_line() -> None:
    """A table stays short, however many workers there are; what breaks comes first."""
    found = [
        VersionDifference(f"[{n}] worker", "numpy", "2.4.0", "2.5.5", False) for n in range(2, 102)
    ] + [VersionDifference("[7] worker", "msgpack", "1.0.0", "1.2.4", True)]
    assert rows(found, "[1] scheduler") == [
        ("PACKAGE", "[1] SCHEDULER", "DIFFERS", "WHERE", "BREAKS"),
        ("msgpack", "1.2.4", "1.0.0", "[7] worker", "yes"),
        ("numpy", "2.5.5", "2.4.0", "[2] worker, [3] worker, [4] worker and 97 more", "no"),
    ]


def test_the_documented_table_is_what_is_printed() -> None:
    """The page on images shows the table of a local environment that differs on purpose."""
    local = changed(
        python="3.11.7", dask="2025.1.0", distributed="2025.1.0", pandas="2.3.3", s3fs=None
    )
    found = differences(SCHEDULER, local, DASK.breaking)
    text = "\n".join([report.versions_text(SCHEDULER.where, found), *report.mending(found)])
    shown = re.findall(r"\$ bilbo check test[^\n]*\n\n(.+?)\n```", DOCS.read_text(), re.DOTALL)
    assert text in [each.strip("\n") for each in shown], text


def test_equal_places_are_told_in_a_line() -> None:
    """No difference, no table; a matching local environment is not warned of."""
    assert report.versions_text("[1] scheduler", []) == "All versions match [1] scheduler."
    assert report.local_warning("[1] scheduler", []) == ""
    assert report.mending([]) == []
    assert minor("3.12.3") == "3.12"


def test_a_local_python_is_asked_itself(tmp_path: Path) -> None:
    """`--python` compares another environment than bilbo's own, and refuses what is no Python."""
    environment = tmp_path / "a venv"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    import zipfile

    zipfile.ZipFile(wheel(tmp_path, "distributed", "2025.1.0")).extractall(site)
    found = local_software(str(python), DASK.packages)
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.packages["distributed"] == "2025.1.0"
    assert found.packages["dask"] is None
    own = local_software(None, DASK.packages)
    assert own.packages["distributed"] not in (None, "2025.1.0")
    with pytest.raises(BilboError, match="not a working Python"):
        local_software("/bin/false", DASK.packages)


def test_a_host_is_asked_for_the_python_behind_its_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line of `dask` tells which Python counts, not the PATH's `python3`; pip's way
    around long paths and `env` are understood."""
    python = tmp_path / "venv" / "bin" / "python3.11"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    texts = {
        "plain": f"#!{python}\nprint()\n",
        "long": f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
        "unquoted": f"#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n",
        "env": "#!/usr/bin/env python3.11\n",
        "shell": "#!/bin/sh\nexec true\n",
        "gone": "#!/no/such/python\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{python.parent}:/usr/bin:/bin")
    for name in ("plain", "long", "unquoted", "env"):
        assert agent.interpreter([name]) == str(python), name
    for name in ("shell", "gone", "ls", "no-such-program"):
        assert agent.interpreter([name]) == sys.executable, name
    assert agent.interpreter(["shell", "plain"]) == str(python)
    found = agent.installed(str(python), ["no-such-package"])
    assert found["versions"] == {"no-such-package": None}
    assert subprocess.run(
        [str(python), "-V"], check=True, capture_output=True, text=True
    ).stdout == (f"Python {found['python']}\n")
