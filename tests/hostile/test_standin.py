"""The stand-in AWS, as other users and programs of the same machine find it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, client, nothing_is_left
from conftest import StandIn

from bilbo import local
from bilbo.local.standin_state import ADMIN, ADMIN_HEADER, LONGEST_BODY


def signed(standin: StandIn) -> str:
    """A head line by which a client shows the stand-in's key."""
    key = standin.target.environment["AWS_ACCESS_KEY_ID"]
    return f"Authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/s3/aws4_request"


def status(standin: StandIn, path: str, *head: str, body: Iterable[bytes] = ()) -> int:
    """The status of the answer to a request, of which no more is sent than this."""
    where = urlsplit(str(standin.target.endpoint_url))
    lines = [f"PUT {path} HTTP/1.1", f"Host: {where.netloc}", *head, "", ""]
    with socket.create_connection((str(where.hostname), int(where.port or 0)), 20) as connection:
        connection.sendall("\r\n".join(lines).encode())
        for part in body:
            connection.sendall(part)
        return int(connection.recv(100).split()[1])


def announced(length: object) -> str:
    return f"Content-Length: {length}"


@pytest.mark.parametrize("length", [1, LONGEST_BODY, 1 << 50])
def test_a_strangers_body_is_not_read(standin: StandIn, length: int) -> None:
    """Who does not show the key is refused at the head, whatever else is announced and not sent."""
    began = time.monotonic()
    assert status(standin, "/bucket/key", announced(length)) == 403
    assert status(standin, f"{ADMIN}fault", announced(length)) == 403
    assert status(standin, f"{ADMIN}fault", f"{ADMIN_HEADER}: AKIA", announced(length)) == 403
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("length", [LONGEST_BODY + 1, 1 << 50, -1, "many", "1_0"])
def test_bodies_have_a_largest_size(standin: StandIn, length: object) -> None:
    """More than that, and what is no length, is refused before it is sent."""
    key = standin.target.environment["AWS_ACCESS_KEY_ID"]
    assert status(standin, "/bucket/key", signed(standin), announced(length)) == 413
    admin = f"{ADMIN_HEADER}: {key}"
    assert status(standin, f"{ADMIN}fault", admin, announced(length)) == 413


def test_a_body_in_chunks_has_it_too(standin: StandIn) -> None:
    """One whose length only its end tells is read up to there."""
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    parts = [chunk] * ((LONGEST_BODY >> 20) + 1)
    chunked = "Transfer-Encoding: chunked"
    assert status(standin, "/bucket/key", signed(standin), chunked, body=parts) == 413


def test_what_is_large_and_honest_comes_through(standin: StandIn) -> None:
    """An object of some megabytes is kept and given back whole."""
    environment = standin.target.environment
    s3 = boto3.client(
        "s3",
        "us-east-1",
        endpoint_url=standin.target.endpoint_url,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    s3.create_bucket(Bucket="large")
    data = bytes(range(256)) * (20 << 12)
    s3.put_object(Bucket="large", Key="object", Body=data)
    assert s3.get_object(Bucket="large", Key="object")["Body"].read() == data


def gone(*paths: Path) -> bool:
    """Whether nothing is left of these within some seconds."""
    deadline = time.monotonic() + 10
    while any(os.path.lexists(path) for path in paths) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(os.path.lexists(path) for path in paths)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_machines_links_go_with_it(standin: StandIn, stopped: bool) -> None:
    """Its folder, and the links in /tmp that lead there, also where it was stopped before."""
    ec2 = client(standin.home, "ec2")
    asked = {"ImageId": local.KNOWN_AMI, "InstanceType": "t3.micro", "KeyName": "local"}
    (made,) = ec2.run_instances(MinCount=1, MaxCount=1, **asked)["Instances"]
    folder = standin.home / "local" / "instances" / made["InstanceId"]
    link = Path(f"/tmp/ray-{secrets.token_hex(8)}")
    link.symlink_to(folder / "home" / ".bilbo" / "ray")
    try:
        deadline = time.monotonic() + 10
        while not folder.is_dir() and time.monotonic() < deadline:
            time.sleep(0.1)
        if stopped:
            ec2.stop_instances(InstanceIds=[made["InstanceId"]])
            time.sleep(1)
            assert folder.is_dir() and link.is_symlink()
        ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
        assert gone(folder, link)
    finally:
        link.unlink(missing_ok=True)


def kill(home: Path) -> None:
    """End a home's stand-in as a machine does that runs out of memory."""
    status = local.status(home)
    assert status
    os.kill(status.pid, 9)
    while local.status(home):
        time.sleep(0.05)


def half_made(bilbo: Bilbo, cluster: str) -> None:
    """What a Terraform that was killed leaves: a launch template that its state does not know."""
    record = json.loads((bilbo.home / "clusters" / cluster / "cluster.json").read_text())
    state = json.loads((Path(record["terraform_dir"]) / "terraform.tfstate").read_text())
    (template,) = [each for each in state["resources"] if each["type"] == "aws_launch_template"]
    known = template["instances"][0]["attributes"]
    tags = [{"Key": key, "Value": value} for key, value in known["tags"].items()]
    client(bilbo.home, "ec2").create_launch_template(
        LaunchTemplateName=known["name"],
        LaunchTemplateData={"ImageId": known["image_id"], "InstanceType": known["instance_type"]},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
    )
    record["status"] = "creating"
    (bilbo.home / "clusters" / cluster / "cluster.json").write_text(json.dumps(record))


@pytest.mark.standin
def test_a_cluster_of_a_killed_standin_is_made_anew(tmp_path: Path) -> None:
    """After SIGKILL and a new start `create` completes a cluster that lived there, even one whose
    second creation was cut off, so that the name of its launch template is taken."""
    bilbo = Bilbo(tmp_path)
    document = {
        "region": "us-east-1",
        "access": {"cidrs": ["127.0.0.0/8"]},
        "instance": {**INSTANCE, "ssh_private_key": str(tmp_path / "local" / "local.pem")},
        "notebook": {},
        "dask": {"worker": {"count": 1, **ONE_PROCESS}},
    }
    profile = bilbo.profile("pool", document)
    try:
        bilbo("--local", "create", profile)
        kill(tmp_path)
        bilbo("local", "start")
        half_made(bilbo, "pool")
        bilbo("--local", "create", profile)
        assert bilbo("rcmd", "pool", "all", "echo up").stdout.count("up") == 3
        bilbo("destroy", "pool", "--yes")
        nothing_is_left(tmp_path)
    finally:
        bilbo("local", "stop")
