"""When a cluster ends by itself: durations, and what the profile says."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from bilbo.cluster.host_settings import taken
from bilbo.errors import ProfileError
from bilbo.hostside import Known, compare, values
from bilbo.lifetime import Lifetime, lifetime, seconds, words
from bilbo.model import ClusterSpec
from bilbo.present import report
from bilbo.present.ending import ending, ending_document
from bilbo.present.times import local_time
from bilbo.profile import building, loading
from bilbo.record import Record, ends_after

INSTANCE = {
    "ami": "ami-0f49fa254e1806b72",
    "ec2type": "t3.micro",
    "keyname": "my-keypair",
    "ssh_user": "ubuntu",
    "ssh_private_key": "~/.ssh/my-keypair.pem",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90m", 5400), ("1h30m", 5400), ("2d", 172800), ("1d12h", 129600), ("45s", 45)],
)
def test_durations(text: str, expected: int) -> None:
    """A duration is read as people write it, and shown so that it reads the same."""
    assert seconds(text) == expected
    assert seconds(words(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "0m", "30", "h", "1.5h", "1h 30m", "30m1h", "-1h", "\uff11h", "1H"]
)
def test_no_durations(text: str) -> None:
    """Anything else is refused, a duration of nothing too."""
    with pytest.raises(ValueError, match="is not a duration such as 90m, 1h30m or 2d"):
        seconds(text)


def test_of_a_profile() -> None:
    """What the profile leaves out has its default; without the key nothing ends."""
    assert lifetime(None) is None
    assert lifetime({}) == Lifetime()
    found = lifetime({"ttl": "8h", "idle": "30m", "then": "destroy", "unreached": "30m"})
    assert found == Lifetime(28800, 1800, "destroy", 1800, 600)


# A home's default


def loaded(home: Path, document: dict[str, Any], *overrides: str) -> Lifetime | None:
    """The lifetime of a profile in a home."""
    (home / "profiles").mkdir(exist_ok=True)
    text = json.dumps({"instance": INSTANCE, "notebook": {}, **document})
    (home / "profiles" / "test.json").write_text(text, encoding="utf-8")
    spec = loading.load("test.json", home, overrides=overrides, region="us-east-1")
    assert spec.profile.get("lifetime") == document.get("lifetime", spec.profile.get("lifetime"))
    return spec.lifetime


def test_a_home_has_a_default(tmp_path: Path) -> None:
    """For profiles without the key: a profile's own replaces it as a whole, null sets it aside, and
    an override changes one value of it."""
    assert loaded(tmp_path, {}) is None
    settings = '// mine\n{"lifetime": {"ttl": "12h", "then": "destroy"},}'
    (tmp_path / "config.json").write_text(settings, encoding="utf-8")
    assert loaded(tmp_path, {}) == Lifetime(43200, None, "destroy")
    assert loaded(tmp_path, {"lifetime": {"idle": "30m"}}) == Lifetime(None, 1800)
    assert loaded(tmp_path, {"lifetime": None}) is None
    assert loaded(tmp_path, {}, "lifetime.ttl=2h") == Lifetime(7200, None, "destroy")
    assert loaded(tmp_path, {}, "lifetime=null") is None


@pytest.mark.parametrize(
    ("settings", "line", "says"),
    [
        ('{\n"lifetme": {}}', 2, "lifetme: unknown key; did you mean lifetime?"),
        ('{"region": "us-east-1"}', 1, "region: unknown key; a home has lifetime"),
        ('{"lifetime":\n{"ttl": "soon"}}', 2, "lifetime.ttl: must be a duration such as 90m"),
        ('{"lifetime":\n{"ttl": "1h", "idle": "2h"}}', 2, "must not be longer than ttl (1h)"),
        ("[]", 1, "bilbo's settings must be an object"),
        ('{"lifetime": ', 1, "expected a value"),
    ],
)
def test_mistakes_of_a_home(tmp_path: Path, settings: str, line: int, says: str) -> None:
    """They are told as a profile's are, with the file and the line."""
    (tmp_path / "config.json").write_text(settings, encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        loaded(tmp_path, {})
    assert says in str(caught.value) and f"config.json:{line}" in str(caught.value)
    assert "the profile" not in str(caught.value)


# Words


def spec_of(document: dict[str, Any]) -> ClusterSpec:
    """The specification of a profile."""
    return building.build({"instance": INSTANCE, **document}, "test", "us-east-1")


UNREACHED = "A machine that bilbo has not reached 1h after its first boot powers off."
FOLLOW = "\nA machine that cannot reach the head for 10m ends, too."


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (
            {"dask": {}},
            "Nothing ends this cluster by itself. To have it end: "
            '"lifetime" in the profile, or -p lifetime.ttl=8h',
        ),
        (
            {"lifetime": {"ttl": "8h", "idle": "30m"}, "notebook": {}, "dask": {}},
            "Ends by itself 8h after it is ready, at the latest, or once idle for 30m; then "
            "notebook and scheduler stop (disks stay, and are billed), workers are terminated.\n"
            + UNREACHED + FOLLOW,
        ),
        (
            {"lifetime": {"idle": "30m", "then": "destroy"}, "ray": {}},
            "Ends by itself once idle for 30m; then all of its machines are terminated.\n"
            + UNREACHED + FOLLOW,
        ),
        (
            {"lifetime": {}, "notebook": {}},
            "Ends by itself only if bilbo does not reach it; then notebook stops (disks stay, and "
            "are billed).\n" + UNREACHED,
        ),
    ],
)  # fmt: skip
def test_what_plan_and_create_say(document: dict[str, Any], says: str) -> None:
    """When the cluster ends, at the latest, and how; one line where nothing ends it."""
    spec = spec_of(document)
    assert ending(spec) == says
    assert (ending_document(spec) is None) == (spec.lifetime is None)


def test_what_clusters_and_desc_say() -> None:
    """The end of a cluster that was ready; without `lifetime` as before."""
    record = Record("test", "ready", "us-east-1", "dask", ends_after(0) or "", {}, "/x")
    assert "Ends:" not in report.summary(record)
    assert "Ends by itself:" not in report.next_steps(record)
    assert report.clusters([record])[1][-1] == "-"
    then = datetime.now(timezone.utc) + timedelta(hours=5, minutes=30, seconds=59)
    profile = {"lifetime": {"ttl": "8h", "idle": "30m"}}
    ready = replace(record, profile=profile, ready_time=record.created_time)
    ends = replace(ready, ends=then.isoformat(timespec="seconds"))
    told = f"Ends: {local_time(ends.ends or '')} at the latest, or once idle for 30m; then: pause\n"
    assert told in report.summary(ends) + "\n"
    assert told.replace("Ends: ", "Ends by itself:       ") in report.next_steps(ends)
    assert report.clusters([ends])[1][-1] == "5h30m"
    assert report.clusters([replace(ends, ends=ends_after(-60))])[1][-1] == "due"
    assert report.clusters([ready])[1][-1] == "idle 30m"
    assert report.clusters_document([ends])[0]["ends"] == ends.ends
    assert "Ends: once idle for 30m; then: pause" in report.summary(ready)


def test_a_changed_lifetime_is_a_change() -> None:
    """Terraform knows little of it, so that a plan shows it beside, and a shared state tells it."""
    before, after = (
        spec_of({"dask": {}, "lifetime": {"ttl": ttl, "idle": "30m"}}) for ttl in ("8h", "9h")
    )
    (found,) = compare(after, Known(values(before)))
    assert (found.groups, found.key, found.before, found.after) == ((), "lifetime.ttl", "8h", "9h")
    assert compare(after, Known(values(after))) == ()
    shared = {"dask": {}, "lifetime": {"ttl": "8h", "idle": "30m", "run": "x"}, "instance": {}}
    assert taken(shared)["lifetime"] == {"ttl": "8h", "idle": "30m"}
    assert taken({**shared, "lifetime": None})["lifetime"] is None
