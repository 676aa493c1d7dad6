"""Pausing and resuming: a cluster that costs only its disks, and comes back as it was.

It is a team's, whose state is shared: what one does to it, the other's bilbo knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bilbo_cli import Running, client, nothing_is_left
from distributed import Client
from reliability import errors, told
from teams import BUCKET, NAME, Machine, Team, attach
from waiting import eventually

from bilbo import local

AT_REST = {f"{NAME}-notebook": "stopped", f"{NAME}-dask-scheduler": "stopped"}


def computes(record: dict[str, Any], workers: int = 2) -> None:
    """All workers of a recorded cluster compute."""
    with Client(record["dask_scheduler_address"], timeout=60, set_as_default=False) as asked:
        asked.wait_for_workers(workers, timeout=60)
        there = list(asked.scheduler_info(n_workers=-1)["workers"])
        each = [asked.submit(pow, 2, 5, pure=False, workers=[one]) for one in there]
        assert [one.result(timeout=60) for one in each] == [32] * workers


def ids(record: dict[str, Any]) -> list[str]:
    """The machines that a pause stops."""
    return [record["notebook"]["instance_id"], record["scheduler"]["instance_id"]]


class Resting:
    """A cluster of a notebook, a scheduler and two workers, which Ada made."""

    def __init__(self, team: Team, ada: Machine) -> None:
        self.standin = team.standin
        self.ec2 = client(team.standin, "ec2")
        team.s3().create_bucket(Bucket=BUCKET)
        self.team = team
        ada("create", self.profile(ada), "-n", NAME)
        self.first = ada.bilbo.record(NAME)
        ada("rcmd", NAME, "notebook", "echo kept >file")

    def profile(self, machine: Machine) -> str:
        """The cluster's profile with the machine's own path of the key, as `attach` takes it."""
        document = self.team.shared(2)
        document["instance"]["ssh_private_key"] = machine.path(".ssh/team.pem")
        return machine.profile(document)

    def states(self) -> dict[str, str]:
        """The states of all instances that are not terminated, by their names."""
        return {
            next(tag["Value"] for tag in each["Tags"] if tag["Key"] == "Name"):
            each["State"]["Name"]
            for reservation in self.ec2.describe_instances()["Reservations"]
            for each in reservation["Instances"]
            if each["State"]["Name"] != "terminated"
        }  # fmt: skip

    @contextmanager
    def fault(self, text: str) -> Iterator[None]:
        """Within it the stand-in shows a fault."""
        local.inject(self.standin, text)
        try:
            yield
        finally:
            local.inject(self.standin, "clear")

    def killed(self, machine: Machine, status: str, *words: str) -> None:
        """kill -9 of a command, once the record says so."""
        record = machine.bilbo.home / "clusters" / NAME / "cluster.json"
        running = Running(machine.bilbo.start(*words, **machine.environment))
        eventually(lambda: json.loads(record.read_text())["status"] == status, 120)
        running.process.kill()
        running.process.wait()

    def is_back(self, machine: Machine, done: str) -> None:
        """It computes, with the machines, the file, the token and the private addresses that it
        had."""
        now = machine.bilbo.record(NAME)
        assert now["status"] == "ready" and not now["paused_workers"] and not now["rest"]
        assert ids(now) == ids(self.first) and now["token"] == self.first["token"]
        for role in ("notebook", "scheduler"):
            assert now[role]["private_ip"] == self.first[role]["private_ip"]
        assert f"//{now['notebook']['public_ip']}:" in now["notebook_url"]
        computes(now)
        assert machine("rcmd", NAME, "notebook", "cat file").stdout == "kept\n"
        assert "earlier settings" not in done and "latest settings" not in done

    def plan_is_clean(self, machine: Machine) -> None:
        """Terraform has nothing to do, and who plans learns why there are no workers."""
        plan = machine(
            "plan", self.profile(machine), "-n", NAME, "--detailed-exitcode"
        )  # fmt: skip
        assert "Nothing to do." in plan.stdout and "Count: 2" in plan.stdout
        assert f"`bilbo resume {NAME}`, or `bilbo create`, brings it back with 2" in plan.stderr


@pytest.fixture(scope="module")
def resting(team: Team) -> Resting:
    """The cluster, which the tests of this file use one after the other."""
    return Resting(team, team.machine("ada"))


@pytest.mark.timeout(600)
def test_a_pause_is_refused_killed_and_completed(resting: Resting, ada: Machine) -> None:
    """Refused, it changes nothing; killed, it is completed; then nothing runs, the plan is clean,
    and there is nothing else to say of it than that."""
    with resting.fault("deny=ec2:StopInstances"):
        refused = ada("pause", NAME, "-y", code=1)
    told("AWS does not let you stop instances, in `pause`", errors(refused.stderr), 1,
         "the cluster, unchanged")  # fmt: skip
    assert ada.bilbo.record(NAME)["status"] == "ready"
    resting.killed(ada, "pausing", "pause", NAME, "-y")
    assert "is being paused" in ada("rcmd", NAME, "true", code=1).stderr
    paused = ada("pause", NAME, "-y")
    assert resting.states() == AT_REST
    assert f"Workers: none; after `bilbo resume {NAME}`: 2" in paused.stdout
    assert "Stays billed:         the volumes of its machines (15 GiB, 15 GiB; " in paused.stderr
    resting.plan_is_clean(ada)
    seen = ada("clusters", "--refresh").stdout
    assert "It is paused, since" in seen and "AWS and the hosts match the record." in seen
    assert "Nothing to do." in ada("pause", NAME, "-y").stdout


@pytest.mark.timeout(600)
def test_a_team_mate_resumes_it(resting: Resting, ada: Machine, ben: Machine) -> None:
    """Ben attaches it as it is, and resumes it, with the token that Ada knows; then her bilbo, too,
    sees that it is paused no more."""
    attach(ben)
    assert ben.bilbo.record(NAME)["status"] == "paused"
    resting.is_back(ben, ben("resume", NAME).stderr)
    seen = ada("desc", NAME, "--refresh", code=3).stdout
    assert "Status: partial" in seen and "dask-scheduler runs on 1 of 1" in seen


@pytest.mark.timeout(600)
def test_a_cluster_that_paused_itself_comes_back(resting: Resting, ben: Machine) -> None:
    """Its machines power off, and its workers are gone for good: `desc` says so and its plan is
    clean. Killed while it comes back, it is completed."""
    workers = [node["instance_id"] for node in ben.bilbo.record(NAME)["workers"]]
    resting.ec2.terminate_instances(InstanceIds=workers)
    note = json.dumps({"at": 1.8e9, "why": "it was idle for 30m"})
    ben("rcmd", NAME, "scheduler", f"echo '{note}' >~/.bilbo/{NAME}/{ids(resting.first)[1]}/ended")
    for node in ids(resting.first):
        ben("rcmd", NAME, node, "sudo shutdown -h now", code=None)
    assert eventually(lambda: resting.states() == AT_REST, 60)
    resting.plan_is_clean(ben)
    seen = ben("desc", NAME, "--refresh", code=3).stdout
    assert "Status: paused, before " in seen and ", by itself\n" in seen
    assert f"Workers: none; after `bilbo resume {NAME}`: 2" in seen
    assert f"cluster {NAME!r} is paused before" in ben("logs", NAME, code=1).stderr
    profile = resting.profile(ben)
    resting.killed(ben, "creating", "create", profile, "-n", NAME)
    done = ben("resume", NAME).stderr
    assert ": it was idle for 30m" in done
    resting.is_back(ben, done)


@pytest.mark.timeout(600)
def test_a_cluster_that_is_gone_is_no_paused_one(resting: Resting, ben: Machine) -> None:
    """Nothing can be resumed of it, and nothing of it is left in the end."""
    everything = ben.bilbo.record(NAME)["instances"]
    resting.ec2.terminate_instances(InstanceIds=everything)
    refused = ben("resume", NAME, code=1)
    told("All machines of a cluster are terminated, in `resume`", errors(refused.stderr), 1,
         "a worker group without machines; `create` makes new ones")  # fmt: skip
    seen = ben("desc", NAME, "--refresh", code=3).stdout
    assert "Status: ended, since " in seen and "in AWS, not by bilbo" in seen
    ben("destroy", NAME, "-y")
    nothing_is_left(resting.standin)
