"""Clusters at rest, decided from data alone: what is rendered, what a state tells, and what AWS
tells of machines that stopped by themselves."""

from __future__ import annotations

import difflib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_reality import INVENTORY, RECORD, SERVICES, WELL

from bilbo import record as states
from bilbo.cluster.epitaph import noted
from bilbo.cluster.host_settings import taken
from bilbo.cluster.planning import Planned
from bilbo.cluster.resting import (
    as_told,
    asleep,
    at_rest,
    awake,
    booted,
    disks,
    is_told_paused,
    known_amis,
    paused,
)
from bilbo.cluster.reviewed import save
from bilbo.cluster.taking_up import not_ending
from bilbo.cluster.work import Work
from bilbo.errors import BilboError, ReviewError
from bilbo.model import ClusterSpec, Inventory, Target
from bilbo.present.condition import amiss
from bilbo.present.report import summary
from bilbo.profile import building
from bilbo.reality import LAUNCH, NOTHING, STOP, Reality, Rest, judged, rest_of
from bilbo.record import Record
from bilbo.render import render
from bilbo.status import Ending
from bilbo.terraform import Outcome

PAUSED = at_rest(RECORD, states.PAUSED, {"worker": 2}, {"since": "2026-01-01T00:00:00+00:00"})
SHARED = json.loads((Path(__file__).parent / "rendered" / "shared.json").read_text("utf-8"))


def spec() -> ClusterSpec:
    """A specification with a notebook, a scheduler, two workers and a shared state."""
    found = building.build(SHARED, "t", "us-east-1")
    return replace(found, root_devices={each.machine.ami: "/dev/sda1" for each in found.workers})


def state_of(document: Any, *addresses: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """A state whose outputs are as given, with resources by module, type and attributes."""
    return {
        "outputs": document,
        "resources": [
            {"module": module, "mode": "managed", "type": kind, "name": "this",
             "instances": [{"attributes": attributes}]}
            for module, kind, attributes in addresses
        ],
    }  # fmt: skip


def test_what_is_rendered_differs_in_its_workers_alone() -> None:
    """A review of a pause shows no more than that; the counts to come back stay in the profile."""
    before, after = (render(each)["main.tf"] for each in (spec(), paused(spec())))
    lines = [
        line
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
        if line[0] in "+-" and line[1:].strip()
    ]
    assert sorted(" ".join(line.split()) for line in lines) == sorted([
        "- instance_count = 2",
        "+ instance_count = 0",
        '+ output "paused" {',
        '+ description = "The cluster is paused: the number of workers that it gets back, by '
        'group."',
        '+ value = { "worker" = 2 }',
        "+ }",
        *[" ".join(line.split()) for line in lines if '"profile"' in line or '"dask"' in line],
    ])  # fmt: skip
    assert '"count" = 2' in after and '"count" = 2' not in before
    assert paused(paused(spec())) == paused(spec())


def test_a_team_mates_pause_is_told_by_the_state() -> None:
    """Whoever resumed or paused last; what AWS showed to this machine alone is not taken back."""
    told, untold = state_of({"paused": {"value": {"worker": 2}}}), state_of({})
    assert is_told_paused(told) and not is_told_paused(untold) and not is_told_paused({})
    assert as_told(RECORD, told).status == "paused"
    assert as_told(RECORD, untold) is RECORD and as_told(PAUSED, told) is PAUSED
    resumed = as_told(PAUSED, untold)
    assert resumed.status == "partial" and not resumed.rest and not resumed.paused_workers
    assert "Status: paused, since " in summary(PAUSED)
    assert "Workers: none; after `bilbo resume t`: 2" in summary(PAUSED)
    assert "since" not in summary(PAUSED.changed(status="creating"))
    itself = PAUSED.changed(rest={"why": "by itself"})
    assert as_told(itself, untold) is itself
    assert "paused" not in taken({**SHARED, "paused": True})


def test_nothing_leads_to_addresses_that_others_have_now() -> None:
    """The record at rest keeps machines and counts, and no address, URL, or end of its lifetime."""
    running = RECORD.changed(
        notebook_url="http://10.0.0.1:8888/?token=t", addresses={"dask_scheduler_address": "tcp://x"},
        ready_time="2026-01-01T00:00:00+00:00", members={"i-3": 2},
    )  # fmt: skip
    found = at_rest(running, states.PAUSED, {"worker": 2}, {"since": "", "why": "by itself"})
    assert [node.instance_id for node in found.inventory.nodes()] == ["i-1", "i-2"]
    assert {node.public_ip for node in found.inventory.nodes()} == {""}
    assert found.notebook_url is None and found.dashboard_url is None and not found.members
    assert found.ready_time is None and found.ends is None
    assert found.rest == {"why": "by itself"} and found.paused_workers == {"worker": 2}


@pytest.mark.parametrize(
    ("status", "what", "hint"),
    [
        ("paused", "cluster 't' is paused since ", "To use it: bilbo resume t"),
        ("pausing", "cluster 't' is being paused", "To finish that: bilbo pause t"),
        ("ended", "cluster 't' has ended since ", "run `bilbo create` with its profile and -n t"),
    ],
)
def test_who_needs_machines_is_told(status: str, what: str, hint: str) -> None:
    """In one place, with an exit code of 1."""
    with pytest.raises(BilboError, match=what) as refused:
        awake(PAUSED.changed(status=status))
    assert hint in refused.value.hint and refused.value.exit_code == 1
    assert awake(RECORD) is RECORD
    with pytest.raises(BilboError, match="is being destroyed"):
        not_ending(RECORD.changed(status="destroying"))


def endings(**there: str) -> dict[str, Ending]:
    """Instances by id, in these states; `itself` after a colon, and when."""
    found = {}
    for name, text in there.items():
        state, _, more = text.partition(" ")
        found[name.replace("_", "-")] = Ending(state, more.startswith("itself"), more[7:])
    return found


@pytest.mark.parametrize(
    ("found", "rest"),
    [
        (endings(i_1="stopped itself", i_2="stopped itself"), Rest(False, True)),
        (endings(i_1="stopped", i_2="stopped human: 2026"), Rest(False, False, "2026")),
        (endings(i_1="stopped", i_2="stopped", i_3="terminated itself"), Rest(False, False)),
        (endings(i_1="terminated itself", i_2="terminated"), Rest(True, True)),
        (endings(i_2="terminated"), Rest(True, False)),
        ({}, Rest(True, False)),
        # One still runs, is about to, or has not stopped yet; or it is neither paused nor ended.
        (endings(i_1="stopped", i_2="stopped", i_3="running"), None),
        (endings(i_1="stopped", i_2="stopped", i_9="pending"), None),
        (endings(i_1="stopped", i_2="stopped", i_3="stopped"), None),
        (endings(i_1="stopped itself", i_2="running"), None),
        (endings(i_1="stopping itself", i_2="stopped"), None),
        (endings(i_1="stopped", i_2="terminated"), None),
    ],
)
def test_a_cluster_without_a_running_machine_is_at_rest(
    found: dict[str, Ending], rest: Rest | None
) -> None:
    """Stopped altogether it is paused, gone altogether it has ended, and nothing between them."""
    assert rest_of(INVENTORY, found) == (
        rest if rest is None else replace(rest, at=rest.at.removeprefix("human: "))
    )
    assert rest_of(Inventory(), found) is None


def seen(**states_: str) -> Reality:
    """A paused cluster whose machines AWS has in these states."""
    told = replace(
        WELL, paused=True, hosts={}, services={name: SERVICES[name] for name in ("i-1", "i-2")},
        instances={name.replace("_", "-"): (state, "") for name, state in states_.items()},
    )  # fmt: skip
    return judged(PAUSED.inventory, told)


def test_a_paused_cluster_is_well_while_nothing_runs() -> None:
    """What runs is billed, and what is gone cannot be resumed."""
    well = seen(i_1="stopped", i_2="stopping")
    assert well.well and amiss(PAUSED, well) == ["AWS and the hosts match the record."]
    runs = seen(i_1="running", i_2="stopped")
    assert [each.mend for each in runs.machines] == [STOP, NOTHING]
    lines = amiss(PAUSED, runs)
    assert "  [1] notebook i-1 is running, and is billed" in lines
    assert lines[-1] == "To stop what is billed: bilbo pause t"
    assert [each.mend for each in seen(i_2="stopped").machines] == [LAUNCH, NOTHING]
    told = replace(WELL, ended=True, hosts={}, instances={"i-2": ("stopped", "")})
    left = judged(INVENTORY, told)
    assert [each.mend for each in left.machines] == [NOTHING, STOP, NOTHING, NOTHING]
    assert amiss(RECORD.changed(status="ended"), left)[-1].endswith("bilbo destroy t")


def test_who_is_woken_and_starts_anew() -> None:
    """All of a cluster at rest; of another one those that stopped. Services start anew, but a head
    that workers have outlived keeps them. A come-back that was killed woke them already."""
    assert list(asleep(None, Reality())) == []
    assert list(asleep(PAUSED, Reality())) == ["i-1", "i-2"]
    assert list(asleep(RECORD.changed(status="ended"), Reality())) == []
    instances = {"i-1": ("stopped", ""), "i-2": ("stopped", ""), "i-3": ("stopped", "")}
    lonely = judged(INVENTORY, replace(WELL, instances=instances))
    assert list(asleep(RECORD, lonely)) == ["i-1", "i-2"]
    assert booted(None, lonely, INVENTORY, ["i-1", "i-2"]) == ["i-1", "i-2"]
    outlived = judged(INVENTORY, replace(WELL, instances={**instances, "i-4": ("running", "")}))
    assert booted(RECORD, outlived, INVENTORY, ["i-1", "i-2"]) == ["i-1"]
    assert booted(RECORD, outlived, INVENTORY, []) == []
    killed = RECORD.changed(status=states.CREATING, rest={"why": "by itself"})
    assert booted(killed, Reality(), INVENTORY, []) == ["i-1", "i-2"]
    assert booted(killed.changed(rest={}), Reality(), INVENTORY, []) == []


def test_what_a_state_tells_of_a_paused_cluster() -> None:
    """Its groups' AMIs, so that a newer image replaces nothing, and its disks; never what is no
    AMI, and nothing of a state that is malformed."""
    told = state_of(
        {},
        ("module.worker", "aws_launch_template", {"image_id": "ami-0a1b"}),
        ("module.notebook", "aws_instance", {"root_block_device": [{"volume_size": 15}]}),
        ("module.scheduler", "aws_instance",
         {"root_block_device": [{"volume_size": 8}], "ebs_block_device": [{"volume_size": 100}]}),
        ("module.other", "aws_instance", {"root_block_device": [{"volume_size": 7}]}),
    )  # fmt: skip
    record = PAUSED.changed(inventory=Inventory(INVENTORY.notebook))
    assert known_amis(spec(), record, told) == {"notebook": "ami-1", "worker": "ami-0a1b"}
    assert disks(spec(), told) == [15, 8, 100]
    assert known_amis(spec(), None, state_of({}, ("module.worker", "aws_launch_template",
                                                  {"image_id": "ami-1\n; x"}))) == {}  # fmt: skip
    for broken in ({}, {"resources": 1}, {"resources": [1, {"type": "aws_instance"}]},
                   state_of({}, ("module.worker", "aws_launch_template", {}))):  # fmt: skip
        assert known_amis(spec(), None, broken) == {} and disks(spec(), broken) == []


def test_the_record_of_a_paused_cluster_is_kept(tmp_path: Path) -> None:
    """As JSON and back."""
    store = states.Store(tmp_path)
    store.prepare()
    store.save(PAUSED)
    found: Record = store.load("t")
    assert (found.status, dict(found.paused_workers)) == ("paused", {"worker": 2})
    assert found.rest == PAUSED.rest and found.inventory == PAUSED.inventory


@pytest.mark.parametrize(
    "words",
    [
        ("notebook", "t"),
        ("dashboard", "t", "-u"),
        ("ssh", "t"),
        ("rcmd", "t", "workers", "true"),
        ("logs", "t", "-f"),
        ("check", "t"),
        ("get", "t", "file"),
        ("put", "t", "file"),
        ("restart", "t", "--notebook"),
        ("scale", "t", "3"),
    ],
    ids=lambda words: str(words[0]),
)
def test_commands_that_need_machines_say_that_it_is_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Before they ask AWS or a host anything."""
    from bilbo.cli import bilbo

    monkeypatch.setenv("BILBO_HOME", str(tmp_path))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    states.Store(tmp_path).prepare()
    states.Store(tmp_path).save(PAUSED.changed(profile=SHARED))
    with pytest.raises(BilboError, match="cluster 't' is paused since") as refused:
        bilbo.main([*words], standalone_mode=False, prog_name="bilbo")
    assert refused.value.hint == "To use it: bilbo resume t" and refused.value.exit_code == 1


def test_a_paused_cluster_has_no_plan_for_review(tmp_path: Path) -> None:
    """It would be a plan of none of its workers, which no profile says."""
    planned = Planned(spec(), Outcome(0), paused=True)
    work = Work(states.Store(tmp_path), Target("us-east-1"), progress=None)  # type: ignore[arg-type]
    with pytest.raises(ReviewError, match="until it runs, there is nothing to review"):
        save(planned, work, tmp_path / "bundle", ())


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b'{"at": 0, "why": "idle for 30m"}', ("1970-01-01T00:00:00+00:00", "idle for 30m")),
        (b'{"at": 0, "why": "a\\u001b[31mb"}', ("1970-01-01T00:00:00+00:00", "a\\u001b[31mb")),
        (b"", None),
        (b"[]", None),
        (b'{"at": 1e300, "why": ""}', None),
        (b'{"at": "soon", "why": ""}', None),
        (b'{"why": ""}', None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_what_a_machine_has_noted_of_its_end(data: bytes, note: tuple[str, str] | None) -> None:
    """A machine may have written anything."""
    assert noted(data) == note
