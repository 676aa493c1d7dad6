"""`sweep`: what a deleted home leaves in AWS is found, and removed when its owner is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, Running

from bilbo import local
from bilbo.model import CLUSTER_TAG, IMAGE_TAG, OWNER_TAG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import TagTypeDef

NAME = "left"
PROFILE = {"instance": INSTANCE, "dask": {"worker": {"count": 1, **ONE_PROCESS}}}
KINDS = [
    "aws_autoscaling_group", "aws_instance", "aws_instance", "aws_launch_template",
    "aws_security_group",
]  # fmt: skip


@pytest.fixture(scope="module")
def owner(bilbo: Bilbo) -> str:
    """The owner of a cluster that runs and that nobody remembers."""
    bilbo("--local", "create", bilbo.profile(NAME, PROFILE))
    assert "No cluster's resources are left over in" in bilbo("--local", "sweep").stderr
    found: str = bilbo.record(NAME)["owner"]
    shutil.rmtree(bilbo.home / "clusters")
    (bilbo.home / "owners").unlink()
    return found


def swept(bilbo: Bilbo, *options: str, code: int) -> Any:
    """What `sweep --json` lists, before it removes anything."""
    return json.loads(bilbo("--local", "sweep", "--json", *options, code=code).stdout)


def client(bilbo: Bilbo) -> EC2Client:
    """The stand-in's EC2."""
    target = local.target(bilbo.home)
    assert target
    return boto3.client(
        "ec2", target.region, endpoint_url=target.endpoint_url,
        aws_access_key_id=target.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=target.environment["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip


def security_group(bilbo: Bilbo, owner: str, name: str = "late") -> None:
    """A resource that comes to light after its cluster has ended."""
    tags: list[TagTypeDef] = [
        {"Key": CLUSTER_TAG, "Value": NAME},
        {"Key": OWNER_TAG, "Value": owner},
    ]
    client(bilbo).create_security_group(
        GroupName=name,
        Description="late",
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
    )


def test_what_is_left_is_listed_and_stays(bilbo: Bilbo, owner: str) -> None:
    """Without its owner's name nothing is removed: it may be a team-mate's."""
    prices = bilbo.home / "prices.json"
    prices.write_text(json.dumps({INSTANCE["ec2type"]: 0.0104}), encoding="utf-8")
    (found,) = swept(bilbo, "--prices", str(prices), code=3)["leftovers"]
    assert (found["cluster"], found["owner"], found["mine"]) == (NAME, owner, False)
    assert sorted(each["kind"] for each in found["resources"]) == KINDS
    costs = [each["usd_per_hour"] for each in found["resources"]]
    assert costs.count(0.0104) == 2 and costs.count(None) == 3
    told = bilbo("--local", "sweep", "-y", code=3)
    assert len(told.stdout.splitlines()) == 1 + len(KINDS)
    assert bilbo("--local", "sweep", code=3).stderr.endswith(f"sweep -y --owner {owner}\n")
    assert len(swept(bilbo, code=3)["leftovers"][0]["resources"]) == len(KINDS)


def test_a_killed_sweep_is_run_again(bilbo: Bilbo, owner: str) -> None:
    """Killed between its imports, it takes up what it left; then nothing is left."""
    running = Running(bilbo.start("--local", "sweep", "-y", "--owner", owner))
    running.wait_for("Found by tag")
    running.process.kill()
    running.process.wait()
    bilbo("--local", "sweep", code=3)
    done = bilbo("--local", "sweep", "-y", "--owner", owner)
    assert f"Removed what was left of cluster '{NAME}'" in done.stderr
    assert swept(bilbo, code=0)["leftovers"] == []
    assert bilbo("clusters").stdout == ""


def test_what_is_ones_own_needs_no_name(bilbo: Bilbo, owner: str) -> None:
    """The home remembers the owners of its clusters beyond their end."""
    security_group(bilbo, owner)
    (found,) = swept(bilbo, "-y", code=0)["leftovers"]
    assert found["mine"] and [each["kind"] for each in found["resources"]] == KINDS[-1:]
    assert swept(bilbo, code=0)["leftovers"] == []


def test_a_name_that_is_taken_here(bilbo: Bilbo, owner: str) -> None:
    """A record of another cluster of that name stands in the way, and stays as it is."""
    security_group(bilbo, "f" * 16)
    folder = bilbo.home / "clusters" / NAME
    folder.mkdir(parents=True)
    record = {
        "version": 1, "name": NAME, "status": "ready", "region": "us-east-1", "type": None,
        "created_time": "2026-01-01T00:00:00+00:00", "profile": PROFILE, "terraform_dir": "",
        "owner": owner,
    }  # fmt: skip
    (folder / "cluster.json").write_text(json.dumps(record), encoding="utf-8")
    said = bilbo("--local", "sweep", "-y", "--owner", "f" * 16, code=3).stderr
    assert "another cluster 'left' is known here" in said and "--also sg-" in said
    assert json.loads((folder / "cluster.json").read_text(encoding="utf-8")) == record


def test_an_owner_that_is_a_command(bilbo: Bilbo) -> None:
    """Whoever may tag resources chooses it; the command to copy does not run it."""
    security_group(bilbo, "$(reboot)", "evil")
    said = bilbo("--local", "sweep", code=3).stderr
    assert "--owner '$(reboot)'" in said


def test_what_builds_have_made(bilbo: Bilbo) -> None:
    """What no build of this home has made is listed, with the commands that remove it: an image may
    be a whole team's. A name that is a command does not run."""
    ec2 = client(bilbo)
    tag: Sequence[TagTypeDef] = [{"Key": IMAGE_TAG, "Value": "tools"}]
    pair = "packer_1; reboot"
    ec2.create_key_pair(KeyName=pair, TagSpecifications=[{"ResourceType": "key-pair", "Tags": tag}])
    ami = ec2.register_image(Name="tools", RootDeviceName="/dev/sda1")["ImageId"]
    ec2.create_tags(Resources=[ami], Tags=tag)
    found = json.loads(bilbo("--local", "sweep", "--json", code=3).stdout)["of_builds"]
    assert sorted((each["kind"], each["id"]) for each in found) == [
        ("aws_ami", ami), ("aws_key_pair", pair)
    ]  # fmt: skip
    told = bilbo("--local", "sweep", "-y", code=3)
    assert "aws ec2 delete-key-pair --key-name 'packer_1; reboot' --region" in told.stderr
    assert f"aws ec2 deregister-image --image-id {ami} --region" in told.stderr
    images = bilbo.home / "images"
    images.mkdir(exist_ok=True)
    known = {"name": "tools", "ami": ami, "region": "us-east-1", "built": "2026-01-01"}
    (images / f"{ami}.json").write_text(json.dumps(known), encoding="utf-8")
    ec2.delete_key_pair(KeyName=pair)
    assert json.loads(bilbo("--local", "sweep", "--json", code=None).stdout)["of_builds"] == []


def test_no_region_is_the_default(bilbo: Bilbo, tmp_path: Path) -> None:
    """One that is named will do, and nothing else is asked."""
    target = local.target(bilbo.home)
    assert target
    away = {**target.environment, "AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
    said = Bilbo(tmp_path)("sweep", "--region", "eu-west-3", around=away).stderr
    assert "are left over in eu-west-3 (account 123456789012)" in said
    assert "--all-regions" in Bilbo(tmp_path)("sweep", code=2, around=away).stderr


def test_a_region_that_cannot_be_seen(bilbo: Bilbo) -> None:
    """It is never said to be empty."""
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    said = bilbo(
        "sweep",
        "--region",
        "us-east-1",
        code=3,
        around={**keys, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
    ).stderr
    assert "Not seen: us-east-1: cannot list the resources in us-east-1" in said
    assert "are left over" not in said
