"""`bilbo permissions`: one table, as policies and in docs/gitops.md.

Clusters live under these policies in test_gitops, test_gitops_refusals and test_images. With
BILBO_PERMISSIONS=1 (`make permissions`) they live under one action less.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, client

from bilbo import local
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
    ((_, passing),) = where(policy(spec("cn-north-1"), "apply"), "iam:PassRole")
    assert passing == {"StringLike": {"iam:PassedToService": "ec2.amazonaws.com*"}}
    for region, partition in (("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")):
        arns = [word for word in json.dumps(policy(spec(region))).split('"') if "arn:" in word]
        assert arns
        assert all(arn.startswith(f"arn:{partition}:") for arn in arns)


def test_a_profile_needs_no_more_than_it_asks_for() -> None:
    """Without workers nothing of Auto Scaling, without a shared state nothing of S3, …"""
    small = building.build({"instance": INSTANCE, "notebook": {}}, "team", "us-east-1")
    services = {action.partition(":")[0] for action in actions(policy(small))}
    assert services == {"ec2", "pricing", "servicequotas", "sts"}
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
    needs = (each.needs or "every profile") + (", optional" if each.optional else "")
    return f"| `{each.name}` | {steps} | {each.narrowed} | {needs} |\n"


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


# -- one action less -----------------------------------------------------------------------

# What no policy can deny, and what only a broken life needs.
UNTRIED = {"sts:GetCallerIdentity", "iam:CreateServiceLinkedRole", "ec2:DeleteVolume"}


@dataclass(frozen=True)
class Phase:
    """A command of a step, and what brings the cluster to where it can run."""

    step: str
    before: Callable[[Bilbo], object]
    command: tuple[str, ...]


def profile_of(bilbo: Bilbo, *, count: int = 1, **instance: Any) -> str:
    """Writes the profile of the cluster that lives here; its name."""
    document = {
        "instance": {**INSTANCE, **instance},
        "access": {"cidrs": ["127.0.0.0/9" if instance else "127.0.0.0/8"]},
        "region": "us-east-1", "notebook": {}, "state": {"bucket": "one-less"},
        "dask": {"worker": {"count": count, **ONE_PROCESS}},
    }  # fmt: skip
    return bilbo.profile("less", document)


def there(bilbo: Bilbo) -> None:
    """The cluster is as its profile says."""
    bilbo("--local", "create", profile_of(bilbo), "-y", "--force")


def gone(bilbo: Bilbo) -> None:
    """There is no cluster."""
    # A create that made nothing leaves a folder without a record.
    if (bilbo.home / "clusters" / "less" / "cluster.json").exists():
        bilbo("destroy", "less", "-y")
    profile_of(bilbo)


def asleep(bilbo: Bilbo) -> None:
    """The notebook was stopped by hand."""
    there(bilbo)
    machine = bilbo.record("less")["notebook"]["instance_id"]
    client(bilbo.home, "ec2").stop_instances(InstanceIds=[machine])


def other(bilbo: Bilbo) -> None:
    """The profile asks for other machines, tags and networks than there are."""
    there(bilbo)
    profile_of(bilbo, ec2type="t3.small", tags={"a": "b"})


def with_two(bilbo: Bilbo) -> None:
    """A worker can leave."""
    there(bilbo)
    bilbo("scale", "less", "2")


def bucketless(bilbo: Bilbo) -> None:
    """There is no such bucket, and nothing that remembers one."""
    s3 = client(bilbo.home, "s3")
    if any(each["Name"] == "fresh-bucket" for each in s3.list_buckets()["Buckets"]):
        s3.delete_bucket(Bucket="fresh-bucket")
    shutil.rmtree(bilbo.home / "state-buckets" / "fresh-bucket", ignore_errors=True)


CREATE = ("--local", "create", "less.json", "-y", "--force")
LIFE = (
    Phase("state-bucket", bucketless, ("--local", "state-bucket", "create", "fresh-bucket")),
    Phase("apply", gone, CREATE),
    Phase("plan", there, ("--local", "plan", "less.json")),
    Phase("plan", there, ("desc", "less", "--refresh")),
    Phase("apply", there, ("scale", "less", "2")),
    Phase("apply", with_two, ("scale", "less", "1", "-y", "--force")),
    Phase("apply", asleep, CREATE),
    Phase("apply", other, CREATE),
    Phase("destroy", there, ("destroy", "less", "-y")),
)


def attempt(bilbo: Bilbo, phase: Phase, lacking: str = "") -> tuple[bool, set[str]]:
    """Whether a phase succeeds under its policy without an action, and what it called."""
    phase.before(bilbo)
    found = json.loads(bilbo("permissions", "less.json", "--step", phase.step).stdout)
    if phase.step == "state-bucket":
        found = json.loads(json.dumps(found).replace("one-less", "fresh-bucket"))
    for each in found["Statement"]:
        each["Action"] = [name for name in each["Action"] if name != lacking] or ["none:None"]
    file = bilbo.home / "policy.json"
    file.write_text(json.dumps(found), encoding="utf-8")
    local.calls(bilbo.home, reset=True)
    local.inject(bilbo.home, f"policy={file}")
    try:
        done = bilbo(*phase.command, code=None, timeout=1200)
    finally:
        local.inject(bilbo.home, "clear")
        # Who may not delete objects leaves the state locked.
        client(bilbo.home, "s3").delete_object(Bucket="one-less", Key="bilbo/less.tfstate.tflock")
    permitted_by = {"s3:HeadObject": "s3:GetObject", "s3:HeadBucket": "s3:ListBucket"}
    calls = {permitted_by.get(name, name) for name in local.calls(bilbo.home, reset=True)}
    return done.returncode == 0, calls


@pytest.mark.standin
@pytest.mark.skipif("BILBO_PERMISSIONS" not in os.environ, reason="`make permissions`: an hour")
@pytest.mark.timeout(0)
def test_one_action_less(bilbo: Bilbo, capsys: pytest.CaptureFixture[str]) -> None:
    """Each step succeeds under its policy, and fails without any one of its actions that changes
    something; those that only look and whose lack is tolerated are listed."""
    wanted = os.environ["BILBO_PERMISSIONS"].split(",")
    only = set(filter(None, os.environ.get("BILBO_PERMISSIONS_ACTIONS", "").split(",")))
    bilbo("--local", "state-bucket", "create", "one-less")
    profile_of(bilbo)
    tolerated: list[str] = []
    wrong: list[str] = []
    seen: set[tuple[str, str]] = set()
    for phase in LIFE:
        if wanted != ["all"] and phase.step not in wanted:
            continue
        well, called = attempt(bilbo, phase)
        assert well, phase
        named = {each.name for each in ACTIONS if phase.step in each.steps} - UNTRIED
        named = named & only if only else named
        for action in sorted(
            (called & named) - {name for step, name in seen if step == phase.step}
        ):
            seen.add((phase.step, action))
            well, _ = attempt(bilbo, phase, action)
            looks = action.partition(":")[2].startswith(("Describe", "Get", "List"))
            if well:
                (tolerated if looks else wrong).append(f"{phase.step}: {action}")
            with capsys.disabled():
                print(f"{phase.step} without {action}: {'tolerated' if well else 'fails'}")
    with capsys.disabled():
        print("tolerated:", *tolerated, sep="\n  ")
    assert not wrong, wrong
