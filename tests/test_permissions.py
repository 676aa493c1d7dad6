"""`bilbo permissions`: one table, as policies and in docs/gitops.md.

Clusters live under these policies in test_gitops, test_gitops_refusals and test_images. With
BILBO_PERMISSIONS=1 (`make permissions`) they live under one action less.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo

from bilbo.model import ClusterSpec
from bilbo.permissions import ACTIONS, STEPS, Action, policy
from bilbo.profile import building

DOCS = Path(__file__).parent.parent / "docs" / "gitops.md"
DOCUMENT: dict[str, Any] = {
    "instance": {**INSTANCE, "iam_instance_profile": "reader"},
    "notebook": {},
    "state": {"bucket": "states"},
    "dask": {"worker": ONE_PROCESS},
}


def spec(region: str = "us-east-1", **changes: Any) -> ClusterSpec:
    """The specification of the document, with other top-level values."""
    return building.build({**DOCUMENT, **changes}, "team", region)


def actions(found: dict[str, Any]) -> set[str]:
    return {action for each in found["Statement"] for action in each["Action"]}


def where(found: dict[str, Any], action: str) -> list[tuple[Any, Any]]:
    """Resources and conditions of the statements that allow an action."""
    return [
        (each["Resource"], each.get("Condition"))
        for each in found["Statement"]
        if action in each["Action"]
    ]


def test_a_policy_is_what_iam_takes() -> None:
    """Each step's policy has the form of IAM's grammar, and is no longer than IAM lets one be."""
    for step in (*STEPS, None):
        found = policy(spec(), step)
        assert found["Version"] == "2012-10-17"
        assert all(each["Effect"] == "Allow" and each["Resource"] for each in found["Statement"])
        assert len(json.dumps(found, separators=(",", ":"))) < 6144


def test_it_is_narrowed_where_aws_allows_it() -> None:
    """By region, the cluster's tag, the owner once there is one, the bucket and the partition."""
    owned = policy(replace(spec(), owner="0123abcd"))
    ((_, condition),) = where(owned, "ec2:TerminateInstances")
    assert condition == {
        "StringEquals": {
            "aws:RequestedRegion": "us-east-1",
            "aws:ResourceTag/bilbo:cluster": "team",
            "aws:ResourceTag/bilbo:owner": "0123abcd",
        }
    }
    assert "bilbo:owner" not in json.dumps(policy(spec()))
    launched = {str(resource): found for resource, found in where(owned, "ec2:RunInstances")}
    assert "aws:RequestTag/bilbo:cluster" in str(launched["arn:aws:ec2:us-east-1:*:instance/*"])
    written = {resource for resource, _ in where(policy(spec(), "plan"), "s3:PutObject")}
    assert written == {"arn:aws:s3:::states/bilbo/team.tfstate.tflock"}
    for region, partition in (("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")):
        arns = [word for word in json.dumps(policy(spec(region))).split('"') if "arn:" in word]
        assert arns
        assert all(arn.startswith(f"arn:{partition}:") for arn in arns)


def test_a_profile_needs_no_more_than_it_asks_for() -> None:
    """Without workers nothing of Auto Scaling, without a shared state nothing of S3, …"""
    small = building.build({"instance": INSTANCE, "notebook": {}}, "team", "us-east-1")
    services = {action.partition(":")[0] for action in actions(policy(small))}
    assert services == {"ec2", "sts"}
    assert "ec2:CreateImage" in actions(policy(small, "image"))
    assert "iam:PassRole" in actions(policy(spec(), "apply"))
    assert not any("Run" in name or "Create" in name for name in actions(policy(spec(), "plan")))


def test_the_command(tmp_path: Path) -> None:
    """It prints a step's policy, and every step's with --json; the record's owner narrows it."""
    bilbo = Bilbo(tmp_path)
    profile = bilbo.profile("team", {**DOCUMENT, "region": "us-east-1"})
    assert json.loads(bilbo("permissions", profile).stdout) == policy(spec())
    printed = bilbo("permissions", profile, "--step", "plan").stdout
    assert json.loads(printed) == policy(spec(), "plan")
    assert json.loads(bilbo("permissions", profile, "--json").stdout).keys() == {*STEPS}


def row(each: Action) -> str:
    steps = ", ".join(each.steps)
    return f"| `{each.name}` | {steps} | {each.narrowed} | {each.needs or 'every profile'} |\n"


def test_the_docs_have_the_table() -> None:
    """docs/gitops.md lists the actions as the code has them; BILBO_WRITE_DOCS=1 writes them."""
    text = DOCS.read_text(encoding="utf-8")
    heading = "\n| Action | Steps | Narrowed | Needed for |\n|---|---|---|---|\n"
    begin, end = "<!-- generated: permissions -->\n", "<!-- end -->"
    head, rest = text.split(begin)
    tail = rest.split(end, 1)[1]
    written = head + begin + heading + "".join(map(row, ACTIONS)) + "\n" + end + tail
    if os.environ.get("BILBO_WRITE_DOCS"):
        DOCS.write_text(written, encoding="utf-8")
        return
    assert text == written, "docs/gitops.md is out of date: BILBO_WRITE_DOCS=1 pytest …"
