"""A cluster lives in one AWS account, and with another's credentials nothing is believed of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, client

from bilbo import local
from bilbo.cluster.ownership import account_in

ARN = "arn:aws:ec2:us-east-1:{}:instance/i-1"


def state_of(*arns: str, mode: str = "managed") -> dict[str, Any]:
    """A state of a resource for each ARN."""
    instances = [{"attributes": {"arn": arn}} for arn in arns]
    return {"resources": [{"mode": mode, "name": "this", "instances": instances}]}


def test_the_account_of_a_state() -> None:
    """Told by the ARNs of what it manages, where they agree; S3's name no account, and a subnet
    that is only looked at may be another's."""
    one, two = ARN.format("1" * 12), ARN.format("2" * 12)
    assert account_in(state_of(one, "arn:aws:s3:::bucket")) == "1" * 12
    assert account_in({}) is None
    assert account_in(state_of(one, two)) is None
    assert account_in(state_of(one, mode="data")) is None


@pytest.mark.standin
@pytest.mark.parametrize("told_by", ["record", "state"])
def test_another_accounts_credentials(tmp_path: Path, told_by: str) -> None:
    """`destroy` and the others refuse, name both accounts, and keep the record."""
    home = tmp_path / "home"
    target = local.start(home)
    try:
        bilbo = Bilbo(home)
        folder = home / "clusters" / "mine"
        (folder / "terraform").mkdir(parents=True)
        record = {
            "version": 1, "name": "mine", "status": "ready", "region": "us-east-1", "type": None,
            "created_time": "2026-01-01T00:00:00+00:00", "profile": {}, "terraform_dir": "",
            "endpoint_url": target.endpoint_url,
        }  # fmt: skip
        if told_by == "record":
            record["account"] = "999999999999"
        else:
            state = json.dumps(state_of(ARN.format("999999999999")))
            (folder / "terraform" / "terraform.tfstate").write_text(state, encoding="utf-8")
        (folder / "cluster.json").write_text(json.dumps(record), encoding="utf-8")
        for words in (["destroy", "mine", "-y"], ["drift", "mine"]):
            said = bilbo(*words, code=1).stderr
            assert "is in AWS account 999999999999" in said
            assert "123456789012" in said
        assert (folder / "cluster.json").exists()
    finally:
        local.stop(home)


@pytest.mark.standin
def test_another_accounts_shared_state(tmp_path: Path) -> None:
    """A bucket may be read from a second account: a state that no record here knows tells where
    its cluster lives, and is left as it is."""
    local.start(tmp_path)
    try:
        bilbo = Bilbo(tmp_path)
        document = {
            "access": {"cidrs": ["127.0.0.0/8"]},
            "instance": INSTANCE,
            "dask": {"worker": ONE_PROCESS},
            "state": {"bucket": "both"},
        }
        profile = bilbo.profile("ours", document)
        bilbo("--local", "state-bucket", "create", "both")
        resource = state_of(ARN.format("999999999999"))["resources"][0]
        managed = {
            **resource,
            "type": "aws_instance",
            "provider": 'provider["registry.terraform.io/hashicorp/aws"]',
        }
        state = {"version": 4, "serial": 1, "lineage": "l", "outputs": {}, "resources": [managed]}
        s3 = client(tmp_path, "s3")
        s3.put_object(Bucket="both", Key="bilbo/ours.tfstate", Body=json.dumps(state).encode())
        for words in (["plan", profile], ["create", profile]):
            said = bilbo("--local", *words, code=1).stderr
            assert "is in AWS account 999999999999" in said, said
        assert bilbo("clusters").stdout == ""
        held = s3.get_object(Bucket="both", Key="bilbo/ours.tfstate")["Body"].read()
        assert json.loads(held) == state
    finally:
        local.stop(tmp_path)
