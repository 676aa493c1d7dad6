"""Pausing and resuming: a cluster that costs only its disks, and comes back as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, Running, client, nothing_is_left
from distributed import Client
from reliability import errors, told
from waiting import eventually

from bilbo import local

NEED_MACHINES = (
    ("notebook", "rest"),
    ("dashboard", "rest", "-u"),
    ("ssh", "rest"),
    ("rcmd", "rest", "true"),
    ("logs", "rest"),
    ("restart", "rest"),
    ("check", "rest"),
    ("get", "rest", "file"),
    ("put", "rest", "file"),
    ("scale", "rest", "3"),
)
AT_REST = {"rest-notebook": "stopped", "rest-dask-scheduler": "stopped"}


def computes(record: dict[str, Any], workers: int = 2) -> None:
    """All workers of a recorded cluster compute."""
    with Client(record["dask_scheduler_address"], timeout=60, set_as_default=False) as asked:
        asked.wait_for_workers(workers, timeout=60)
        there = list(asked.scheduler_info(n_workers=-1)["workers"])
        each = [asked.submit(pow, 2, 5, pure=False, workers=[one]) for one in there]
        assert [one.result(timeout=60) for one in each] == [32] * workers


def states(bilbo: Bilbo) -> dict[str, str]:
    """The states of all instances that are not terminated, by their names."""
    found = client(bilbo.home, "ec2").describe_instances()["Reservations"]
    return {
        next(tag["Value"] for tag in each["Tags"] if tag["Key"] == "Name"): each["State"]["Name"]
        for reservation in found
        for each in reservation["Instances"]
        if each["State"]["Name"] != "terminated"
    }


@contextmanager
def fault(bilbo: Bilbo, text: str) -> Iterator[None]:
    """Within it the stand-in shows a fault."""
    local.inject(bilbo.home, text)
    try:
        yield
    finally:
        local.inject(bilbo.home, "clear")


def ids(record: dict[str, Any]) -> list[str]:
    """The machines that a pause stops."""
    return [record["notebook"]["instance_id"], record["scheduler"]["instance_id"]]


class Resting:
    """A cluster of a notebook, a scheduler and two workers."""

    def __init__(self, bilbo: Bilbo) -> None:
        self.bilbo = bilbo
        document = {
            "access": {"cidrs": ["127.0.0.0/8"]},
            "instance": INSTANCE,
            "notebook": {},
            "dask": {"worker": {"count": 2, **ONE_PROCESS}},
        }
        self.profile = bilbo.profile("rest", document)
        bilbo("--local", "create", self.profile)
        self.first = bilbo.record("rest")
        bilbo("rcmd", "rest", "notebook", "echo kept >file")

    def is_back(self, done: str) -> None:
        """It computes, with the machines, the file, the token and the private addresses that it
        had, and public ones that lead to it."""
        now = self.bilbo.record("rest")
        assert now["status"] == "ready" and not now["paused_workers"] and not now["rest"]
        assert ids(now) == ids(self.first) and now["token"] == self.first["token"]
        for role in ("notebook", "scheduler"):
            assert now[role]["private_ip"] == self.first[role]["private_ip"]
        assert f"//{now['notebook']['public_ip']}:" in now["notebook_url"]
        computes(now)
        assert self.bilbo("rcmd", "rest", "notebook", "cat file").stdout == "kept\n"
        assert "earlier settings" not in done and "latest settings" not in done
        assert "Nothing to do." in self.bilbo("create", self.profile).stdout
        self.first = now

    def plan_is_clean(self, code: int = 0) -> str:
        """Terraform has nothing to do, and who plans learns why there are no workers."""
        plan = self.bilbo("plan", self.profile, "--detailed-exitcode", code=code)
        assert "Nothing to do." in plan.stdout and "Count: 2" in plan.stdout
        return plan.stderr


@pytest.fixture(scope="module")
def resting(bilbo: Bilbo) -> Resting:
    """The cluster, which the tests of this file use one after the other."""
    return Resting(bilbo)


@pytest.mark.timeout(600)
def test_a_cluster_rests_and_comes_back(bilbo: Bilbo, resting: Resting) -> None:
    """Paused, its plan is clean and its commands say so; resumed, it computes, with all it had."""
    with fault(bilbo, "deny=ec2:StopInstances"):
        refused = bilbo("pause", "rest", "-y", code=1)
    told("AWS does not let you stop instances, in `pause`", errors(refused.stderr), 1,
         "the cluster, unchanged")  # fmt: skip
    assert bilbo.record("rest")["status"] == "ready"
    paused = bilbo("pause", "rest", "-y")
    assert states(bilbo) == AT_REST
    assert "Workers: none; after `bilbo resume rest`: 2" in paused.stdout
    assert "Stays billed:         the volumes of its machines (15 GiB, 15 GiB)" in paused.stderr
    said = resting.plan_is_clean()
    assert "`bilbo resume rest`, or `bilbo create`, brings it back with 2 workers." in said
    refused = bilbo("plan", resting.profile, "-o", str(bilbo.home / "bundle"), code=1)
    assert "until it runs, there is nothing to review" in refused.stderr
    for words in NEED_MACHINES:
        refused = bilbo(*words, code=1)
        assert "cluster 'rest' is paused since" in refused.stderr, words
        assert "To use it: bilbo resume rest" in refused.stderr, words
    (listed,) = json.loads(bilbo("clusters", "--json").stdout)
    assert listed["status"] == "paused" and listed["nodes"] == 2
    seen = bilbo("clusters", "--refresh").stdout
    assert "It is paused, since" in seen and "AWS and the hosts match the record." in seen
    bilbo("drift", "rest", "--detailed-exitcode")
    assert "Nothing to do." in bilbo("pause", "rest", "-y").stdout

    with fault(bilbo, "capacity=1"):
        refused = bilbo("resume", "rest", code=1)
    told("AWS has no room for a machine that `resume` starts", errors(refused.stderr), 1,
         "the cluster, paused as before")  # fmt: skip
    assert states(bilbo) == AT_REST and bilbo.record("rest")["status"] == "paused"
    resting.is_back(bilbo("resume", "rest").stderr)


@pytest.mark.timeout(600)
def test_a_cluster_that_paused_itself_comes_back(bilbo: Bilbo, resting: Resting) -> None:
    """Its machines power off, and its workers are gone for good: `desc` says so, its plan is clean,
    and `resume` brings it back as if it had been paused."""
    ec2 = client(bilbo.home, "ec2")
    workers = [node["instance_id"] for node in resting.first["workers"]]
    ec2.terminate_instances(InstanceIds=workers)
    for node in ids(resting.first):
        bilbo("rcmd", "rest", node, "sudo shutdown -h now", code=None)
    assert eventually(lambda: states(bilbo) == AT_REST, 60)
    said = resting.plan_is_clean()
    assert "is paused, and planned so" in said
    seen = bilbo("desc", "rest", "--refresh", code=3).stdout
    assert "Status: paused, before " in seen and ", by itself\n" in seen
    assert "Workers: none; after `bilbo resume rest`: 2" in seen
    bilbo("desc", "rest", "--refresh")
    assert "cluster 'rest' is paused before" in bilbo("logs", "rest", code=1).stderr
    resting.is_back(bilbo("resume", "rest").stderr)


@pytest.mark.timeout(600)
def test_killed_while_it_pauses_or_resumes(bilbo: Bilbo, resting: Resting) -> None:
    """The rows of the crash contract, each completed by another command; then a cluster whose
    machines are all gone is `ended`, and nothing is left of it in the end."""
    record = bilbo.home / "clusters" / "rest" / "cluster.json"

    def killed(status: str, *words: str) -> None:
        running = Running(bilbo.start(*words))
        eventually(lambda: json.loads(record.read_text())["status"] == status, 120)
        running.process.kill()
        running.process.wait()

    killed("pausing", "pause", "rest", "-y")
    assert "is being paused" in bilbo("rcmd", "rest", "true", code=1).stderr
    bilbo("pause", "rest", "-y")
    assert states(bilbo) == AT_REST
    killed("creating", "resume", "rest")
    resting.is_back(bilbo("create", resting.profile).stderr)
    killed("pausing", "pause", "rest", "-y")
    everything = [*ids(resting.first), *(each["instance_id"] for each in resting.first["workers"])]
    client(bilbo.home, "ec2").terminate_instances(InstanceIds=everything)
    refused = bilbo("resume", "rest", code=1)
    told("Somebody terminates the machines of a paused cluster", errors(refused.stderr), 1,
         "worker groups without machines; `destroy` removes them")  # fmt: skip
    bilbo("destroy", "rest", "-y")
    nothing_is_left(bilbo.home)
