"""bilbo on AWS: the same code on an account of the caller's (`make aws`) and on the stand-in.

On the stand-in, security groups and permissions are enforced, and EC2 is eventually consistent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from accounts import NAME, Account, cost, key_pair, on_aws, on_standin, why_not
from bilbo_cli import ONE_PROCESS
from browser import run_in_kernel
from conftest import StandIn
from sweeping import TAG, Swept

from bilbo import local

ON_AWS = "BILBO_AWS" in os.environ
pytestmark = [pytest.mark.standin, pytest.mark.timeout(0 if ON_AWS else 900)]

CLIENT = """
from dask.distributed import Client
client = Client()
client.wait_for_workers({count}, timeout=120)
print(client.submit(sum, range(10)).result())
"""


@pytest.fixture(scope="module")
def account(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Account]:
    """AWS, swept before and after; nothing that these tests have made may be left."""
    folder = tmp_path_factory.mktemp("on-aws")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    if ON_AWS:
        if reason := why_not():
            with capture.global_and_fixture_disabled():
                print(f"\n{'=' * 80}\nNOT RUN on AWS: {reason}\n{'=' * 80}")
            pytest.skip(reason)
        with capture.global_and_fixture_disabled():
            print(f"\nThis makes machines in your AWS account, and costs {cost()[1]}.")
    made = on_aws(folder) if ON_AWS else on_standin(folder)
    try:
        assert not made.swept.sweep(), "an earlier run's machines cannot be removed"
        key_pair(made)
        yield made
    finally:
        made.end()
        try:
            left = made.swept.sweep(within=900 if ON_AWS else 60)
            assert not left, f"STILL THERE AND PERHAPS BILLED, remove it by hand: {left}"
        finally:
            if not ON_AWS:
                local.stop(folder / "aws")


def workers(count: int, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "small", "count": count, **ONE_PROCESS}, *more]


def computed(account: Account, count: int) -> None:
    """`Client()` in a new kernel of the cloud notebook computes on so many workers."""
    url = account.bilbo.record(NAME)["notebook_url"]
    assert run_in_kernel(url, CLIENT.format(count=count), timeout=180).split() == ["45"]


def ids(account: Account) -> dict[str, Any]:
    """The notebook's and the scheduler's instance, by role."""
    record = account.bilbo.record(NAME)
    return {role: record[role]["instance_id"] for role in ("notebook", "scheduler")}


def create(account: Account, profile: str, code: int | None = 0) -> str:
    """Runs `create` with the patience that a machine needs which installs what it starts."""
    return account("create", profile, "-y", "--force", "--timeout", "900", code=code).stderr


def test_the_life_of_a_cluster(account: Account) -> None:
    """plan, create, another account, a stop and a start, more and fewer workers, a shortage and
    destroy, with the permissions that `bilbo permissions` prints."""
    profile = account.profile(workers(1))
    account.strictly(account("permissions", profile).stdout)
    assert "to add" in account("plan", profile, "--detailed-exitcode", code=2).stdout
    create(account, profile)
    computed(account, 1)
    assert account("plan", profile, "--detailed-exitcode").stdout.endswith("Nothing to do.\n")
    with account.elsewhere() as environment:
        if environment is not None:
            said = account("destroy", NAME, "-y", code=1, **environment).stderr
            assert "is in AWS account" in said

    before = ids(account)
    ec2 = account.client("ec2")
    ec2.stop_instances(InstanceIds=list(before.values()))
    ec2.get_waiter("instance_stopped").wait(InstanceIds=list(before.values()))
    assert "is stopped" in account("desc", NAME, "--refresh", code=3).stdout
    create(account, account.profile(workers(2)))
    assert ids(account) == before
    computed(account, 2)
    # One worker leaves, and one of another group cannot come.
    with account.too_big() as ec2type:
        big = [{"name": "big", "count": 1, "instance": {"ec2type": ec2type}}] if ec2type else []
        said = create(account, account.profile(workers(1, *big)), code=None if big else 0)
        assert "quota" in said or not big
    assert len(account.bilbo.record(NAME)["workers"]) == 1
    account("destroy", NAME, "-y")
    key_alone = [each for each in account.swept.left() if not each.startswith("key-pair ")]
    assert not key_alone


@pytest.mark.skipif(ON_AWS, reason="asks a stand-in")
def test_nothing_is_made_that_nobody_agreed_to(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials, and without a budget that covers the cost, which is told."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "BILBO_AWS"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "no AWS credentials" in why_not()
    for name, value in standin.target.environment.items():
        monkeypatch.setenv(name, value)
    total, _ = cost()
    for agreed in ("", "much", "0.1"):
        monkeypatch.setenv("BILBO_AWS_BUDGET_USD", agreed)
        assert f"at most {total:.2f} USD" in why_not()
    monkeypatch.setenv("BILBO_AWS_BUDGET_USD", "2")
    assert why_not() == ""


@pytest.mark.skipif(ON_AWS, reason="makes what is another's")
def test_a_sweep_takes_what_is_its_own(standin: StandIn) -> None:
    """What carries the tag goes, whatever hangs on what; what carries another's stays."""
    import boto3

    def client(service: str) -> Any:
        make: Any = boto3.client
        target = standin.target
        names = ("aws_access_key_id", "aws_secret_access_key")
        keys = {name: target.environment[name.upper()] for name in names}
        return make(service, "eu-west-3", endpoint_url=target.endpoint_url, **keys)

    mine, other = Swept(client, "ada@here"), Swept(client, "ben@there")
    for each in (mine, other):
        make_some(client, each.whose)
    found, others = mine.left(), other.left()
    assert {each.split()[0] for each in found} == {
        "group", "instance", "launch-template", "volume", "security-group", "key-pair",
    }  # fmt: skip
    assert mine.sweep(within=30) == []
    assert other.left() == others
    assert other.sweep(within=30) == []


def make_some(client: Any, whose: str) -> None:
    """Each kind of thing that a cluster has, with the tests' tag."""
    ec2, name = client("ec2"), whose.replace("@", "-")
    tag = {"Key": TAG, "Value": whose}

    def tagged(*kinds: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": [tag]} for kind in kinds]

    group = ec2.create_security_group(
        GroupName=name, Description="d", TagSpecifications=tagged("security-group")
    )["GroupId"]
    ec2.create_key_pair(KeyName=name, TagSpecifications=tagged("key-pair"))
    image = local.KNOWN_AMI
    ec2.create_launch_template(
        LaunchTemplateName=name,
        TagSpecifications=tagged("launch-template"),
        LaunchTemplateData={
            "ImageId": image,
            "InstanceType": "t3.micro",
            "SecurityGroupIds": [group],
            "TagSpecifications": tagged("instance", "volume"),
        },
    )
    ec2.create_volume(AvailabilityZone="eu-west-3a", Size=1, TagSpecifications=tagged("volume"))
    client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=1,
        MaxSize=1,
        LaunchTemplate={"LaunchTemplateName": name, "Version": "$Latest"},
        AvailabilityZones=["eu-west-3a"],
        Tags=[{**tag, "ResourceId": name, "ResourceType": "auto-scaling-group",
               "PropagateAtLaunch": True}],
    )  # fmt: skip
