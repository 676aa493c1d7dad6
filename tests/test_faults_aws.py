"""AWS refuses: before anything is created where that can be found out, midway where not."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, Running, client, clients, nothing_is_left
from reliability import errors, told
from test_crash_contract import kill, terraform_pid

from bilbo import local

LEFT = "nothing, after `bilbo destroy`"
# All that creates a cluster: what is asked for once more must not be there twice.
UNANSWERED = (
    "ec2:CreateSecurityGroup",
    "ec2:CreateLaunchTemplate",
    "ec2:RunInstances",
    "autoscaling:CreateAutoScalingGroup",
)
NOTHING = "nothing: it is found before anything is created"


def refused(bilbo: Bilbo, fault: str, **instance: Any) -> str:
    """What create says of a notebook with a wrong instance; nothing may be created."""
    profile = bilbo.profile("wrong", {"instance": {**INSTANCE, **instance}, "notebook": {}})
    said = errors(bilbo("--local", "create", profile, code=1).stderr)
    assert bilbo("clusters").stdout == ""
    told(fault, said, 1, NOTHING)
    return said


def test_what_preflight_finds(bilbo: Bilbo, tmp_path: Path) -> None:
    """Wrong AMI, key pair, private key, type and architecture are named before anything is made."""
    wrong_key = Path("~/.bilbo/other.pem")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(bilbo.home / "other.pem")],
        check=True,
    )
    assert "ami-00000000000000000" in refused(bilbo, "Unknown AMI", ami="ami-00000000000000000")
    assert "'nobody'" in refused(bilbo, "Unknown key pair", keyname="nobody")
    said = refused(bilbo, "Private key of another key pair", ssh_private_key=str(wrong_key))
    assert "does not belong to" in said
    said = refused(bilbo, "Private key missing", ssh_private_key="~/.bilbo/local/none.pem")
    assert "there is no private key" in said
    assert "t9.huge" in refused(bilbo, "Unknown instance type", ec2type="t9.huge")
    said = refused(bilbo, "AMI and instance type of two architectures", ec2type="t4g.micro")
    assert "arm64" in said
    said = refused(bilbo, "Unknown instance profile", iam_instance_profile="nobody")
    assert "the instance profile 'nobody' (iam_instance_profile) does not exist" in said
    nothing_is_left(bilbo.home)


def test_no_default_subnet(bilbo: Bilbo) -> None:
    """`plan` says that a region has no subnet to take, before anything is created."""
    ec2 = client(bilbo.home, "ec2", "us-west-2")
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    document = {"region": "us-west-2", "instance": INSTANCE, "notebook": {}}
    profile = bilbo.profile("nowhere", document)
    said = errors(bilbo("--local", "plan", profile, code=1).stderr)
    assert "Name a subnet in the profile" in said
    told("No default subnet in the region, as `plan` tells", said, 1, NOTHING)


def test_the_name_is_taken(bilbo: Bilbo) -> None:
    """A cluster of that name that this bilbo has no record of is not touched."""
    profile = bilbo.profile("taken", {"instance": INSTANCE, "notebook": {}})
    bilbo("--local", "create", profile)
    folder = bilbo.home / "clusters" / "taken"
    shutil.move(folder, bilbo.home / "aside")
    done = bilbo("--local", "create", profile, code=1)
    assert "already has a cluster 'taken'" in done.stderr
    told("The cluster's name is taken by somebody else", errors(done.stderr), 1, NOTHING)
    shutil.rmtree(folder)
    shutil.move(bilbo.home / "aside", folder)


def test_a_start_that_failed_is_made_up_for(bilbo: Bilbo) -> None:
    """A stopped notebook that AWS did not let `create` start is started by the next one, though
    Terraform has nothing to do."""
    machine = bilbo.record("taken")["notebook"]["instance_id"]
    ec2, _ = clients(bilbo.home)
    ec2.stop_instances(InstanceIds=[machine])
    local.inject(bilbo.home, "deny=ec2:StartInstances")
    assert f"cannot start {machine}" in bilbo("create", "taken.json", code=1).stderr
    local.inject(bilbo.home, "clear")
    assert f"Start stopped instances: {machine}" in bilbo("create", "taken.json").stderr
    assert bilbo.record("taken")["status"] == "ready"
    bilbo("destroy", "taken", "-y")
    nothing_is_left(bilbo.home)


def test_limits_of_aws(bilbo: Bilbo) -> None:
    """What AWS would refuse in the middle, `plan` and `create` refuse before anything is made: the
    name of another cluster's launch template, and more rules than a security group may have.
    `create` counts vCPUs, too.
    """
    ec2 = client(bilbo.home, "ec2")
    name = "few-dask-worker-dask-worker"
    tags = [{"Key": "Name", "Value": name}, {"Key": "bilbo:cluster", "Value": "few-dask-worker"}]
    ec2.create_launch_template(
        LaunchTemplateName=name,
        LaunchTemplateData={"InstanceType": "m5.large"},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
    )
    document = {
        "instance": INSTANCE,
        "dask": {
            "worker": [
                {"name": "dask-worker", "count": 500, "instance": {"ec2type": "m5.24xlarge"}}
            ]
        },
        "access": {"cidrs": [f"10.{n}.0.0/24" for n in range(25)]},
    }
    profile = bilbo.profile("few", document)
    for command in ("plan", "create"):
        said = errors(bilbo("--local", command, profile, code=1).stderr)
        assert f"has the name '{name}'" in said
        assert "the security group needs 76 inbound rules" in said
    assert "48002 more vCPUs of Standard" in said
    told("More than AWS's limits allow, as `plan` tells, too", said, 1, NOTHING)
    ec2.delete_launch_template(LaunchTemplateName=name)
    nothing_is_left(bilbo.home)


def test_credentials(bilbo: Bilbo, tmp_path: Path) -> None:
    """Missing and expired credentials are named as such."""
    target = local.target(bilbo.home)
    assert target is not None
    assert target.endpoint_url is not None
    document = {"instance": INSTANCE, "notebook": {}, "region": "us-east-1"}
    profile = bilbo.profile("keys", {**document, "access": {"cidrs": ["192.0.2.1/32"]}})
    done = bilbo(
        "create", profile, code=1, HOME=str(tmp_path),
        AWS_ENDPOINT_URL=target.endpoint_url, AWS_EC2_METADATA_DISABLED="true",
    )  # fmt: skip
    assert "AWS_ACCESS_KEY_ID" in done.stderr
    told("No AWS credentials", errors(done.stderr), 1, NOTHING)
    local.inject(bilbo.home, "expired")
    done = bilbo("--local", "create", profile, code=1)
    assert "have expired" in done.stderr
    told("Expired AWS credentials", errors(done.stderr), 1, NOTHING)
    local.inject(bilbo.home, "clear")


@pytest.mark.parametrize(
    ("fault", "permission", "what"),
    [
        ("deny=ec2:RunInstances", "ec2:RunInstances", "Permission to launch instances missing"),
        (
            "deny=iam:CreateServiceLinkedRole",
            "iam:CreateServiceLinkedRole",
            "Permission for Auto Scaling's service-linked role missing",
        ),
        ("deny=iam:PassRole", "iam:PassRole", "Permission to pass the instance profile missing"),
        ("limit=0", "quota", "The account's quota of vCPUs is used up"),
    ],
)
def test_refused_midway(bilbo: Bilbo, fault: str, permission: str, what: str) -> None:
    """A missing permission or quota is named, and destroy removes what was made before it."""
    instance = {**INSTANCE, "iam_instance_profile": "reader"} if "PassRole" in fault else INSTANCE
    profile = bilbo.profile("midway", {"instance": instance, "dask": {"worker": ONE_PROCESS}})
    if "PassRole" in fault:
        make_instance_profile(bilbo)
    local.inject(bilbo.home, fault)
    done = bilbo("--local", "create", profile, "--timeout", "20", code=None)
    local.inject(bilbo.home, "clear")
    assert done.returncode in (1, 3)
    assert permission in done.stderr
    told(what, errors(done.stderr), done.returncode, LEFT)
    bilbo("destroy", "midway", "-y")
    nothing_is_left(bilbo.home)


def test_a_wrong_security_group(bilbo: Bilbo) -> None:
    """A security group that is not there is named; what was made before goes with destroy."""
    instance = {**INSTANCE, "security_group": "sg-00000000000000000"}
    profile = bilbo.profile("midway", {"instance": instance, "dask": {"worker": ONE_PROCESS}})
    done = bilbo("--local", "create", profile, code=1)
    assert "'sg-00000000000000000'" in done.stderr
    told("Wrong security group", errors(done.stderr), 1, LEFT)
    bilbo("destroy", "midway", "-y")
    nothing_is_left(bilbo.home)


def make_instance_profile(bilbo: Bilbo) -> None:
    """The IAM instance profile that the test's profile names, as an administrator makes it."""
    import boto3

    target = local.target(bilbo.home)
    assert target is not None
    iam = boto3.client(
        "iam",
        region_name=target.region,
        endpoint_url=target.endpoint_url,
        aws_access_key_id=target.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=target.environment["AWS_SECRET_ACCESS_KEY"],
    )
    iam.create_instance_profile(InstanceProfileName="reader")


def test_no_capacity(bilbo: Bilbo) -> None:
    """Of four workers AWS has two, which are still starting when Terraform gives up: they are kept,
    work, and are never replaced. Nothing comes later until `create` asks for it. At last their AMI
    is gone, and nobody may read a data source: that does not keep them."""
    worker = {"count": 4, **ONE_PROCESS}
    ec2, groups = clients(bilbo.home)
    image = ec2.copy_image(SourceImageId=local.KNOWN_AMI, SourceRegion="us-east-1", Name="copy")
    instance = {**INSTANCE, "ami": image["ImageId"]}
    profile = bilbo.profile("short", {"instance": instance, "dask": {"worker": worker}})
    local.inject(bilbo.home, "capacity=3")
    local.inject(bilbo.home, "pending=6")
    done = bilbo("--local", "create", profile, code=3)
    said = errors(done.stderr)
    assert "2 of 4 missing" in said
    assert "sufficient" in said
    told("AWS has two of the four workers", said, 3, "the two that run; " + LEFT)
    record = bilbo.record("short")
    assert record["status"] == "partial"
    kept = {worker["instance_id"] for worker in record["workers"]}
    assert len(kept) == 2
    assert suspended(groups) == TENDED

    # The group alone is short, and Terraform has nothing to do.
    done = bilbo("create", profile, code=3)
    assert "2 of 4 missing" in done.stderr and "sufficient" in done.stderr
    assert suspended(groups) == TENDED

    local.inject(bilbo.home, "clear")
    time.sleep(2)  # four looks of the group's
    assert members(groups) == kept
    bilbo("create", profile)
    assert suspended(groups) == TENDED
    record = bilbo.record("short")
    assert record["status"] == "ready"
    assert kept < {worker["instance_id"] for worker in record["workers"]}
    ec2.deregister_image(ImageId=image["ImageId"])
    local.inject(bilbo.home, "deny=ec2:DescribeInstanceTypeOfferings")
    assert "destroying without it" in bilbo("destroy", "short", "-y").stderr
    local.inject(bilbo.home, "clear")
    nothing_is_left(bilbo.home)


TENDED = {"AZRebalance", "Launch", "ReplaceUnhealthy"}


def suspended(groups: Any) -> set[str]:
    """What AWS does not do by itself in the only group."""
    (group,) = groups.describe_auto_scaling_groups()["AutoScalingGroups"]
    return {each["ProcessName"] for each in group["SuspendedProcesses"]}


def members(groups: Any) -> set[str]:
    """The instances of the only group."""
    (group,) = groups.describe_auto_scaling_groups()["AutoScalingGroups"]
    return {each["InstanceId"] for each in group["Instances"]}


def test_an_instance_ends_by_hand(bilbo: Bilbo) -> None:
    """What is terminated or stopped by hand is told and repaired, and by nobody but `create`."""
    document = {
        "instance": INSTANCE,
        "notebook": {},
        "dask": {"worker": {"count": 2, **ONE_PROCESS}},
    }
    profile = bilbo.profile("hand", document)
    ec2, groups = clients(bilbo.home)
    for action in UNANSWERED:
        local.inject(bilbo.home, f"lost={action}")
    said = bilbo("--local", "create", profile).stderr
    taken = [line for line in said.splitlines() if line.startswith("Found by tag")]
    assert len(taken) == 2, said
    told("AWS's answer to CreateSecurityGroup is lost while `create` works", taken[0], 0,
         "the cluster, which has what the request had made")  # fmt: skip
    ours = [{"Name": "tag:bilbo:cluster", "Values": ["hand"]}]
    there = ec2.describe_instances(Filters=ours)["Reservations"]
    assert sum(len(each["Instances"]) for each in there) == 4
    before = bilbo.record("hand")
    lost, asleep = (each["instance_id"] for each in before["workers"])
    ec2.terminate_instances(InstanceIds=[lost, before["notebook"]["instance_id"]])
    ec2.stop_instances(InstanceIds=[before["scheduler"]["instance_id"], asleep])
    for page, role in (("notebook", "notebook"), ("dashboard", "scheduler")):
        gone = bilbo(page, "hand", "-u", code=1)  # the address may be another's by now
        assert f"the {role} {before[role]['instance_id']} of cluster 'hand' does not" in gone.stderr
    told_ = bilbo("desc", "hand", "--refresh", code=3).stdout
    assert f"{lost} is gone" in told_
    assert f"{before['scheduler']['instance_id']} is stopped" in told_
    shown = told_[told_.index("\nNot as recorded:") :]
    told("Instances terminated and stopped by hand, as `desc --refresh` tells",
         shown, 3, "`create` repairs it; " + LEFT)  # fmt: skip

    planned = bilbo("plan", profile, "--detailed-exitcode", code=2).stdout
    assert "worker: 0 of 2 workers run; `create` starts 1 stopped and has AWS launch 1" in planned
    assert members(groups) == {lost, asleep}
    assert "aws_autoscaling_group" not in bilbo("drift", "hand", code=None).stdout
    said = bilbo("create", profile, "-y").stderr
    assert f"Start stopped workers: {asleep}" in said
    assert f"Ended workers leave their group: {lost}" in said
    assert suspended(groups) == TENDED
    after = bilbo.record("hand")
    assert after["status"] == "ready"
    assert after["scheduler"]["instance_id"] == before["scheduler"]["instance_id"]
    assert after["notebook"]["instance_id"] != before["notebook"]["instance_id"]
    assert lost not in after["instances"]
    assert asleep in after["instances"]
    assert len(after["workers"]) == 2


def test_a_worker_is_replaced_by_its_group(bilbo: Bilbo) -> None:
    """Somebody lets the group replace workers: its new instance is told, started by create, which
    ends the replacing, and nothing else is touched."""
    profile, before = "hand.json", bilbo.record("hand")
    ec2, groups = clients(bilbo.home)
    groups.resume_processes(AutoScalingGroupName="hand-dask-worker")
    lost = before["workers"][0]["instance_id"]
    ec2.terminate_instances(InstanceIds=[lost])
    new = instead_of(groups, {each["instance_id"] for each in before["workers"]})
    told_ = bilbo("desc", "hand", "--refresh", code=3).stdout
    assert f"{lost} is gone" in told_ and f"{new} runs and is billed" in told_
    shown = told_[told_.index("\nNot as recorded:") :]
    told("A worker was replaced by its Auto Scaling group, as `desc --refresh` tells",
         shown, 3, "`create` starts the new one; " + LEFT)  # fmt: skip
    bilbo("create", profile)
    after = bilbo.record("hand")
    assert after["status"] == "ready"
    assert set(after["instances"]) == set(before["instances"]) - {lost} | {new}
    assert {"Launch", "ReplaceUnhealthy"} <= suspended(groups)


def test_killed_while_it_scales(bilbo: Bilbo) -> None:
    """bilbo and Terraform are killed while workers start, which leaves the group open: AWS launches
    what was asked for. The next command closes it, and waits for what starts before it ends that.
    """
    _, groups = clients(bilbo.home)
    before = members(groups)
    local.inject(bilbo.home, "pending=5")
    running = Running(bilbo.start("scale", "hand", "4"))
    deadline = time.monotonic() + 120
    while len(members(groups)) < 4:
        assert time.monotonic() < deadline, running.said
        time.sleep(0.05)
    kill(running.process)
    kill(psutil.Process(terraform_pid(bilbo.home / "clusters" / "hand")))
    assert bilbo.record("hand")["status"] == "creating"
    assert "Launch" not in suspended(groups) and "ReplaceUnhealthy" in suspended(groups)
    pending = {each for each in members(groups) if each not in before}
    done = bilbo("scale", "hand", "2")
    local.inject(bilbo.home, "clear")
    assert suspended(groups) == TENDED
    assert len(members(groups)) == 2 and len(pending) == 2
    (line,) = [each for each in done.stderr.splitlines() if "by itself" in each]
    told("`kill -9` of bilbo and Terraform while `scale` adds workers; then `scale`",
         line, 0, "nothing: AWS had gone on to launch what was asked for, and no more")  # fmt: skip
    after = bilbo.record("hand")
    assert after["status"] == "ready"
    assert {each["instance_id"] for each in after["workers"]} == members(groups)


def instead_of(groups: Any, known: set[str]) -> str:
    """The instance that a group launches for one that it lost."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        (group,) = groups.describe_auto_scaling_groups()["AutoScalingGroups"]
        there = {each["InstanceId"] for each in group["Instances"]}
        if len(there) == len(known) and there != known:
            (new,) = there - known
            return str(new)
        time.sleep(0.1)
    raise AssertionError("the group replaces nothing")


def test_destroy_says_what_holds_it(bilbo: Bilbo) -> None:
    """A machine of the cluster that no state knows is found while its security group waits for
    it; a machine of somebody else's in the group is named; and all is gone in the end.
    """
    record = bilbo.record("hand")
    ec2, _ = clients(bilbo.home)
    ec2.terminate_instances(InstanceIds=record["instances"])
    (group,) = ec2.describe_security_groups(
        Filters=[{"Name": "tag:bilbo:cluster", "Values": ["hand"]}]
    )["SecurityGroups"]
    running = Running(bilbo.start("destroy", "hand", "-y"))
    running.wait_for("Destroyed module.worker.aws_autoscaling_group.this")
    own = {"bilbo:cluster": "hand", "bilbo:owner": record["owner"]}
    late = launch(ec2, group["GroupId"], [{"Key": k, "Value": v} for k, v in own.items()])
    foreign = launch(ec2, group["GroupId"], [])
    running.wait_for("still used by")
    ec2.terminate_instances(InstanceIds=[foreign])
    assert running.end() == 0
    assert f"Found by tag, will be destroyed too: {late}" in running.said
    (said,) = (line for line in running.said.splitlines() if "still used by" in line)
    assert said.endswith(f" of {foreign}.")
    told("Somebody else's machine is in the cluster's security group; `destroy` waits for it",
         said, 0, "nothing, once that machine is gone")  # fmt: skip
    nothing_is_left(bilbo.home)


def launch(ec2: Any, security_group: str, tags: list[dict[str, str]]) -> str:
    """An instance that no Terraform has made."""
    made = ec2.run_instances(
        ImageId=INSTANCE["ami"],
        InstanceType="t3.micro",
        MinCount=1,
        MaxCount=1,
        SecurityGroupIds=[security_group],
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}] if tags else [],
    )
    return str(made["Instances"][0]["InstanceId"])
