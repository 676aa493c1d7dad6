"""Machines are stopped and started through EC2, and AWS tells how they ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import client
from conftest import StandIn
from reliability import told
from test_env import Silent
from test_reality import INVENTORY
from test_resting import PAUSED, spec

from bilbo import aws, local
from bilbo.cluster.apply import Undertaking, _wake
from bilbo.cluster.instances import differences
from bilbo.cluster.work import Work
from bilbo.errors import AwsError
from bilbo.model import CLUSTER_TAG, OWNER_TAG, Inventory
from bilbo.record import Record, Store

OWNER = "0123456789abcdef"


@contextmanager
def fault(standin: StandIn, text: str) -> Iterator[None]:
    """Within it the stand-in shows a fault."""
    local.inject(standin.home, text)
    try:
        yield
    finally:
        local.inject(standin.home, "clear")


class Two:
    """Two machines of a cluster: its notebook and its scheduler, as its record has them."""

    def __init__(self, standin: StandIn, folder: Path) -> None:
        self.ec2 = client(standin.home, "ec2")
        tags: Any = [{"Key": CLUSTER_TAG, "Value": "stopping"}, {"Key": OWNER_TAG, "Value": OWNER}]
        made = self.ec2.run_instances(
            ImageId=local.KNOWN_AMI, InstanceType="t3.micro", KeyName="local", MinCount=2,
            MaxCount=2, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )["Instances"]  # fmt: skip
        self.ids = [each["InstanceId"] for each in made]
        assert INVENTORY.notebook and INVENTORY.head
        self.record: Record = PAUSED.changed(
            name="stopping", owner=OWNER, region=standin.target.region,
            endpoint_url=standin.target.endpoint_url,
            inventory=Inventory(
                replace(INVENTORY.notebook, instance_id=self.ids[0]),
                replace(INVENTORY.head, instance_id=self.ids[1]),
            ),
        )  # fmt: skip
        store = Store(folder)
        store.prepare()
        store.save(self.record)
        self.work = Work(store, standin.target, Silent())

    def states(self) -> list[str]:
        """Of both, as AWS has them."""
        found = aws.endings(self.work.target, "stopping", OWNER)
        return [found[name].state for name in self.ids]

    def alive(self) -> int:
        """How many instances the whole stand-in has."""
        by = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        found = self.ec2.describe_instances(Filters=by)["Reservations"]
        return sum(len(each["Instances"]) for each in found)


@pytest.fixture
def both(standin: StandIn, tmp_path: Path) -> Iterator[Two]:
    """Two machines that run."""
    found = Two(standin, tmp_path)
    try:
        yield found
    finally:
        found.ec2.terminate_instances(InstanceIds=found.ids)


def test_machines_are_stopped_and_started(standin: StandIn, both: Two) -> None:
    """Those that are not, yet; whoever may not is told before; and AWS says who stopped them."""
    target = both.work.target
    refused = pytest.raises(AwsError, match="AWS does not let you stop i-")
    with fault(standin, "deny=ec2:StopInstances"), refused:
        aws.may_stop(target, both.ids)
    aws.may_stop(target, both.ids)
    assert both.states() == ["running", "running"]
    assert {each.state for each in differences(both.record, both.work)} == {"running"}
    aws.stop_instances(target, both.ids[:1])
    aws.stop_instances(target, both.ids)
    assert both.states() == ["stopped", "stopped"]
    assert differences(both.record, both.work) == []
    ends = aws.endings(target, "stopping", OWNER).values()
    assert all(not each.by_itself and each.at.endswith("+00:00") for each in ends)
    assert aws.endings(target, "stopping", None) == {}
    aws.start_instances(target, both.ids[1:])
    aws.start_instances(target, both.ids)
    assert both.states() == ["running", "running"]
    both.ec2.terminate_instances(InstanceIds=both.ids[:1])
    aws.stop_instances(target, both.ids)
    assert both.states() == ["terminated", "stopped"]


def test_a_start_without_room_changes_nothing(standin: StandIn, both: Two) -> None:
    """Where AWS has room for one of two machines, that one is stopped again, and the cluster is
    paused as it was."""
    work = both.work
    aws.stop_instances(work.target, both.ids)
    task = Undertaking(
        spec(), work, work.terraform("stopping"), both.record.changed(status="creating"),
        both.record,
    )  # fmt: skip
    work.store.save(task.record)
    with fault(standin, f"capacity={both.alive() + 1}"), pytest.raises(AwsError) as refused:
        _wake(task, both.ids)
    shown = str(refused.value).replace(", ".join(sorted(both.ids)), both.ids[0])
    told("AWS has no room for a machine that `resume` or `create` starts", f"bilbo: {shown}", 1,
         "the cluster, paused as before")  # fmt: skip
    assert both.states() == ["stopped", "stopped"]
    assert work.store.load("stopping").status == "paused"
    _wake(task, both.ids)
    assert both.states() == ["running", "running"]
