"""Every string of a profile is a literal: in Terraform's language, and in a host's shell."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import boto3
import pytest
from conftest import StandIn
from hypothesis import HealthCheck, given, seed, settings
from strategies import valid_profiles

from bilbo.model import WORKER, Node
from bilbo.remote import Deadlines, KnownHosts, Remote, run_command
from bilbo.render import hcl
from bilbo.terraform.environment import binary

PROFILES = 1000
AWKWARD = (
    *("${a}", "%{if}", "$${", "%%{", "$$${x}", "\\${", "$(id)", "`id`", ";", "'", '"', "\\"),
    *("\n", "\r\n", "\t", "\b\f", "\u2028", "\x7f", "-rf", "../x", "é", "e\u0301", "한글"),
)
# As much as one command line holds with room to spare.
BATCH_BYTES = 60_000


def strings(value: Any) -> list[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return []


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The distinct strings of many valid profiles, and some that are known to be awkward."""
    found = {*AWKWARD, ""}
    profiles = 0

    @seed(20200108)
    @settings(
        max_examples=PROFILES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(valid_profiles())
    def collect(document: dict[str, Any]) -> None:
        nonlocal profiles
        profiles += 1
        found.update(strings(document))

    collect()
    assert profiles >= PROFILES
    return sorted(found)


@pytest.mark.standin
def test_terraform_gives_every_string_back(texts: list[str], tmp_path: Path) -> None:
    """Real Terraform outputs every string as it went in, up to Unicode's canonical form."""
    # Terraform stores all strings in NFC: see its documentation, "Strings and Templates".
    (tmp_path / "main.tf").write_text(
        f'output "texts" {{\n  value = {hcl(texts)}\n}}\n', encoding="utf-8"
    )
    terraform = binary({"PATH": os.environ["PATH"]})
    for command in (["init"], ["apply", "-auto-approve"]):
        done = subprocess.run(
            [terraform, *command, "-no-color"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    told = subprocess.run(
        [terraform, "output", "-json", "texts"], cwd=tmp_path, capture_output=True, check=True
    )
    assert json.loads(told.stdout) == [unicodedata.normalize("NFC", text) for text in texts]
    print(f"{len(texts)} strings of {PROFILES} profiles came back from Terraform")


def test_a_host_gives_every_string_back(texts: list[str], standin: StandIn, tmp_path: Path) -> None:
    """A real host's shell gets every string as one argument, and gives it back."""
    target = standin.target
    ec2: Any = boto3.client(
        "ec2",
        region_name=target.region,
        endpoint_url=target.endpoint_url,
        aws_access_key_id=target.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=target.environment["AWS_SECRET_ACCESS_KEY"],
    )
    instance = ec2.run_instances(
        ImageId="ami-0f49fa254e1806b72", InstanceType="t3.micro", KeyName="local",
        MinCount=1, MaxCount=1,
    )["Instances"][0]  # fmt: skip
    address = instance["PrivateIpAddress"]
    node = Node(
        WORKER, WORKER, instance["InstanceId"], address, address, "", "t3.micro",
        "ami-0f49fa254e1806b72", "local", "ubuntu",
        str(standin.home / "local" / "local.pem"), target.ssh_port or 22,
    )  # fmt: skip
    remote = Remote(KnownHosts(tmp_path / "known_hosts"), Deadlines.all(30))
    returned: list[str] = []
    try:
        for batch in batches(texts):
            output = bytearray()
            command = "printf '%s\\0' " + " ".join(shlex.quote(text) for text in batch)

            def keep(_node: Node, data: bytes, is_stderr: bool, into: bytearray = output) -> None:
                assert not is_stderr, data
                into.extend(data)

            results = asyncio.run(run_command([node], command, remote, on_output=keep))
            assert results[0].exit_code == 0, results[0].failure
            returned += output.decode().split("\0")[:-1]
    finally:
        ec2.terminate_instances(InstanceIds=[node.instance_id])
    assert returned == texts
    print(f"{len(texts)} strings of {PROFILES} profiles came back from a host")


def batches(texts: list[str]) -> list[list[str]]:
    """The strings in lists that each fit a command line."""
    found: list[list[str]] = [[]]
    size = 0
    for text in texts:
        size += len(text.encode()) * 4 + 8
        if size > BATCH_BYTES:
            found.append([])
            size = 0
        found[-1].append(text)
    return found
