"""What is told of a cluster with a lifetime, and `extend` where no machine is asked; pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import Bilbo

from bilbo.cluster import lifetimes
from bilbo.cluster.lifetimes import begins_anew, watched
from bilbo.model import HostPlan, Inventory, Node, StagePlan
from bilbo.present.condition import condition_document
from bilbo.present.ending import end_cell, end_of
from bilbo.present.keeping_awake import awake_lines
from bilbo.profile import building
from bilbo.reality import MachineReality, Reality
from bilbo.record import NEVER, Record, Store, ends_after
from bilbo.remote.answers import is_watch
from bilbo.status import HostStatus, Watch

INSTANCE = {
    "ami": "ami-0f49fa254e1806b72",
    "ec2type": "t3.micro",
    "keyname": "local",
    "ssh_user": "ubuntu",
    "ssh_private_key": "~/key.pem",
}


def node(role: str, group: str = "") -> Node:
    number = {"scheduler": 1, "notebook": 2, "worker": 3}[role] + len(group)
    place = f"10.0.0.{number}"
    return Node(
        role, group or role, f"i-{number}", place, place, "", "t3.micro", "ami-1", "local",
        "ubuntu", "~/key.pem", 22,
    )  # fmt: skip


def record(**more: Any) -> Record:
    profile = {"lifetime": {"ttl": "2h", "idle": "30m"}, **more.pop("profile", {})}
    base: dict[str, Any] = {
        "name": "test", "status": "ready", "region": "us-east-1", "type": "dask",
        "created_time": "2026-01-01T00:00:00+00:00", "terraform_dir": "",
        "inventory": Inventory(head=node("scheduler")), "profile": profile,
    }  # fmt: skip
    return Record(**{**base, **more})


def test_when_its_time_begins() -> None:
    """When it is ready for the first time, and again after its end; not while it lasts, and not for
    a cluster that nothing is to end."""
    ready = "2026-01-01T00:00:00+00:00"
    assert begins_anew(record())
    assert begins_anew(record(ready_time=ready, ends=ends_after(-60)))
    assert not begins_anew(record(ready_time=ready, ends=ends_after(60)))
    assert not begins_anew(record(ready_time=ready, ends=NEVER))
    assert not begins_anew(record(ready_time=ready))


def test_no_worker_ends_that_aws_would_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is watched only in a group in which AWS launches nothing; the others are named. The
    head decides, must have heard the notebook, and gets what is left of the time as it is sent."""
    document = {
        "region": "us-east-1",
        "instance": INSTANCE,
        "notebook": {},
        "lifetime": {"ttl": "2h", "idle": "30m"},
        "dask": {"worker": [{"name": "cpu", "count": 1}, {"name": "gpu", "count": 1}]},
    }
    spec = building.build(document, "test", "us-east-1")
    found = Inventory(
        node("notebook"), node("scheduler"), (node("worker", "cpu"), node("worker", "gpu"))
    )
    head, notebook, *workers = (
        HostPlan(each, "x", lambda _: None)  # type: ignore[arg-type, return-value]
        for each in (found.head, found.notebook, *found.workers)
        if each
    )
    plan = StagePlan("test", head=head, notebook=notebook, workers=tuple(workers))
    # What AWS says of its groups is asked for real in test_outlived; here it is only judged.
    monkeypatch.setattr(lifetimes, "closed_groups", lambda *_: frozenset({"cpu"}))
    said: list[str] = []

    class Telling:
        class progress:
            say = said.append

    kept = record(inventory=found, ready_time="2026-01-01T00:00:00+00:00", ends=ends_after(100))
    there = watched(plan, spec, kept, Telling())  # type: ignore[arg-type]
    assert [bool(each.watches) for each in there.workers] == [True, False]
    assert len(said) == 1 and "group 'gpu'" in said[0]
    assert there.head and there.notebook
    told = there.head.watches["deciding"]()
    assert told["leads"] and told["led"] and told["members"] == ["notebook i-2"]
    assert 0 < told["left"] <= 100 and told["idle"] == 1800 and not told["never"]
    theirs = there.notebook.watches["deciding"]()
    assert theirs["leader"]["host"] == found.head.private_ip if found.head else ""
    assert not theirs["leads"] and theirs["jupyter"]["port"] == 8888
    assert 8786 in theirs["leader"]["doors"] and 22 in theirs["leader"]["doors"]


def seen(watch: Watch | None) -> Reality:
    status = HostStatus(watch=watch)
    return Reality((MachineReality(node("scheduler"), "dask-scheduler", "running", "", status),))


@pytest.mark.parametrize(
    ("watch", "lines"),
    [
        (None, []),
        (Watch(3), ["Nothing ends it as things are."]),
        (Watch(3, ("a task",)), ["Kept awake:", "  a task"]),
        (
            Watch(3, (), 90, "its time is over", "not heard"),
            [
                "As things are it ends in 1m30s: its time is over.",
                "  scheduler i-1: not heard",
            ],
        ),
    ],
)
def test_what_is_said_of_it(watch: Watch | None, lines: list[str]) -> None:
    """In words and for programs, what keeps it awake or when it would end."""
    assert awake_lines(seen(watch)) == lines
    document = condition_document(seen(watch))["awake"]
    if watch is None:
        assert document is None
    else:
        assert document["by"] == list(watch.awake)
        assert document["ends_in"] == watch.ends_in


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {},
        {"age": 1, "awake": [], "ends_in": None, "why": "", "trouble": 1},
        {"age": -1, "awake": [], "ends_in": None, "why": "", "trouble": ""},
        {"age": 1, "awake": [1], "ends_in": None, "why": "", "trouble": ""},
        {"age": 1, "awake": [], "ends_in": "soon", "why": "", "trouble": ""},
    ],
)
def test_a_host_may_tell_anything(found: Any) -> None:
    """What is not what a watcher finds is not taken for it."""
    assert not is_watch(found)


def test_never_in_words() -> None:
    """`desc` and `clusters` say of a cluster that it does not end."""
    kept = record(ends=NEVER)
    assert (end_of(kept), end_cell(kept)) == ("never (`bilbo extend`)", "-")


@pytest.mark.parametrize(
    ("more", "words", "code", "why"),
    [
        ({"profile": {"lifetime": None}}, ("2h",), 1, "nothing ends cluster 'test' by itself"),
        ({"status": "paused"}, ("2h",), 1, "cluster 'test' is paused: no machine runs"),
        ({}, (), 2, "give either a duration, such as 2h, or --never"),
        ({}, ("2h", "--never"), 2, "give either a duration, such as 2h, or --never"),
        ({}, ("soon",), 2, "'soon' is not a duration such as 90m"),
    ],
)
def test_what_extend_refuses(
    tmp_path: Path, more: dict[str, Any], words: tuple[str, ...], code: int, why: str
) -> None:
    """It says why, and what to do."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    store = Store(home)
    store.prepare()
    store.save(record(**more))
    assert why in Bilbo(home)("extend", "test", *words, code=code).stderr
