"""AWS refuses: before anything is created where that can be found out, midway where not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, clients, nothing_is_left
from reliability import errors, told

from bilbo import local

LEFT = "nothing, after `bilbo destroy`"
NOTHING = "nothing: it is found before anything is created"


@pytest.fixture(scope="module")
def bilbo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bilbo]:
    """bilbo with a home of its own, whose stand-in ends with the module."""
    home = tmp_path_factory.mktemp("aws")
    local.start(home)
    try:
        yield Bilbo(home)
    finally:
        local.stop(home)


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
    assert "is not that of" in said
    said = refused(bilbo, "Private key missing", ssh_private_key="~/.bilbo/none.pem")
    assert "cannot be read" in said
    assert "t9.huge" in refused(bilbo, "Unknown instance type", ec2type="t9.huge")
    said = refused(bilbo, "AMI and instance type of two architectures", ec2type="t4g.micro")
    assert "arm64" in said
    nothing_is_left(bilbo.home)


def test_the_name_is_taken(bilbo: Bilbo) -> None:
    """A cluster of that name that this bilbo has no record of is not touched."""
    profile = bilbo.profile("taken", {"instance": INSTANCE, "notebook": {}})
    bilbo("--local", "create", profile)
    folder = bilbo.home / "clusters" / "taken"
    shutil.move(folder, bilbo.home / "aside")
    done = bilbo("--local", "create", profile, code=1)
    assert "already holds a cluster 'taken'" in done.stderr
    told("The cluster's name is taken by somebody else", errors(done.stderr), 1, NOTHING)
    shutil.rmtree(folder)
    shutil.move(bilbo.home / "aside", folder)
    bilbo("destroy", "taken", "-y")
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
    """Of four workers AWS has two: they are kept, work, and are never replaced."""
    worker = {"count": 4, **ONE_PROCESS}
    profile = bilbo.profile("short", {"instance": INSTANCE, "dask": {"worker": worker}})
    local.inject(bilbo.home, "capacity=3")
    done = bilbo("--local", "create", profile, code=3)
    said = errors(done.stderr)
    assert "2 of 4 missing" in said
    assert "sufficient" in said
    told("AWS has two of the four workers", said, 3, "the two that run; " + LEFT)
    record = bilbo.record("short")
    assert record["status"] == "partial"
    kept = {worker["instance_id"] for worker in record["workers"]}
    assert len(kept) == 2

    local.inject(bilbo.home, "clear")
    bilbo("create", profile)
    record = bilbo.record("short")
    assert record["status"] == "ready"
    assert kept < {worker["instance_id"] for worker in record["workers"]}
    bilbo("destroy", "short", "-y")
    nothing_is_left(bilbo.home)


def test_an_instance_ends_by_hand(bilbo: Bilbo) -> None:
    """What is terminated or stopped by hand, or replaced by its group, is told and repaired."""
    document = {
        "instance": INSTANCE,
        "notebook": {},
        "dask": {"worker": {"count": 2, **ONE_PROCESS}},
    }
    profile = bilbo.profile("hand", document)
    bilbo("--local", "create", profile)
    before = bilbo.record("hand")
    ec2, _ = clients(bilbo.home)
    lost = before["workers"][0]["instance_id"]
    ec2.terminate_instances(InstanceIds=[lost, before["notebook"]["instance_id"]])
    ec2.stop_instances(InstanceIds=[before["scheduler"]["instance_id"]])
    told_ = bilbo("desc", "hand", "--refresh").stdout
    assert f"{lost} is gone" in told_
    assert f"{before['scheduler']['instance_id']} is stopped" in told_
    told("Instances terminated and stopped by hand, as `desc --refresh` tells",
         told_[told_.index("\nIn AWS"):], 0, "`create` repairs it; " + LEFT)  # fmt: skip

    bilbo("create", profile, "-y")
    after = bilbo.record("hand")
    assert after["status"] == "ready"
    assert after["scheduler"]["instance_id"] == before["scheduler"]["instance_id"]
    assert after["notebook"]["instance_id"] != before["notebook"]["instance_id"]
    assert lost not in after["instances"]
    assert len(after["workers"]) == 2
    ec2.terminate_instances(InstanceIds=after["instances"])
    bilbo("destroy", "hand", "-y")
    nothing_is_left(bilbo.home)
