"""Pausing and resuming: a cluster that costs only its disks, and comes back as it was."""

from __future__ import annotations

import time
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, client, nothing_is_left
from distributed import Client
from waiting import eventually

from bilbo import local


def computes(record: dict[str, Any]) -> None:
    """Both workers of a recorded cluster compute."""
    with Client(record["dask_scheduler_address"], timeout=20, set_as_default=False) as asked:
        asked.wait_for_workers(2, timeout=60)
        there = list(asked.scheduler_info(n_workers=-1)["workers"])
        each = [asked.submit(pow, 2, 5, pure=False, workers=[one]) for one in there]
        assert [one.result(timeout=20) for one in each] == [32, 32]


def states(bilbo: Bilbo) -> dict[str, str]:
    """The states of all instances that are not terminated, by their names."""
    found = client(bilbo.home, "ec2").describe_instances()["Reservations"]
    return {
        next(tag["Value"] for tag in each["Tags"] if tag["Key"] == "Name"): each["State"]["Name"]
        for reservation in found
        for each in reservation["Instances"]
        if each["State"]["Name"] != "terminated"
    }


AT_REST = {"rest-notebook": "stopped", "rest-dask-scheduler": "stopped"}


@pytest.mark.timeout(600)
def test_a_cluster_rests_and_comes_back(bilbo: Bilbo) -> None:
    """Paused, its plan is clean and its commands say so; resumed, it computes, with the files, the
    token and the private addresses that it had."""
    document = {
        "instance": INSTANCE,
        "notebook": {},
        "dask": {"worker": {"count": 2, **ONE_PROCESS}},
    }
    profile = bilbo.profile("rest", document)
    bilbo("--local", "create", profile)
    before = bilbo.record("rest")
    bilbo("rcmd", "rest", "notebook", "echo kept >file")
    began = time.monotonic()
    done = bilbo("pause", "rest", "-y")
    print(done.stderr, done.stdout, f"paused in {time.monotonic() - began:.1f} s")
    assert states(bilbo) == AT_REST
    plan = bilbo("plan", profile, "--detailed-exitcode", code=None)
    print(plan.stdout, plan.stderr)
    print(bilbo("desc", "rest").stdout)
    began = time.monotonic()
    done = bilbo("resume", "rest")
    print(done.stderr, done.stdout, f"resumed in {time.monotonic() - began:.1f} s")
    after = bilbo.record("rest")
    computes(after)
    assert before and eventually and local and nothing_is_left
