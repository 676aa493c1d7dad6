"""Whose is it: what is another's is neither taken nor ended, whatever name or tag it carries.

Ada has a cluster; Ben, on a machine of his own and in the same account, uses its name.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, clients, nothing_is_left

from bilbo import local
from bilbo.aws import Resource
from bilbo.cluster.ownership import Own, ids, owner_in

NAME = "twin"
BEFORE = Path(__file__).parent / "made_before"


@dataclass(frozen=True)
class Two:
    """Two machines on one stand-in, which is neither's own."""

    standin: Path
    ada: Bilbo
    ben: Bilbo
    profile: str


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Ada's cluster runs, and Ben has the same profile."""
    root = tmp_path_factory.mktemp("two")
    standin = root / "aws"
    target = local.start(standin)
    document = {
        "region": "us-east-1",
        "access": {"cidrs": ["127.0.0.0/8"]},
        "instance": {
            **INSTANCE,
            "ssh_private_key": str(standin / "local" / "local.pem"),
            "ssh_port": target.ssh_port,
        },
        "dask": {"worker": ONE_PROCESS},
    }
    profile = root / f"{NAME}.json"
    profile.write_text(json.dumps(document), encoding="utf-8")
    try:
        ada, ben = (Bilbo(root / name) for name in ("ada", "ben"))
        done = Two(standin, ada, ben, str(profile))
        run(done, ada, "create", done.profile)
        yield done
    finally:
        local.stop(standin)


def run(two: Two, who: Bilbo, *words: str, code: int = 0) -> str:
    """What a command says on that machine: stdout, then stderr."""
    target = local.target(two.standin)
    assert target and target.endpoint_url
    aws = {**target.environment, "AWS_ENDPOINT_URL": target.endpoint_url}
    done = who(*words, code=code, around=aws)
    return done.stdout + done.stderr


def running(two: Two) -> set[str]:
    """Every instance that runs."""
    ec2, _ = clients(two.standin)
    by_state = [{"Name": "instance-state-name", "Values": ["running"]}]
    found = ec2.describe_instances(Filters=by_state)["Reservations"]
    return {each["InstanceId"] for reservation in found for each in reservation["Instances"]}


def tagged_alone(two: Two) -> str:
    """The id of an instance that merely carries the cluster's tag."""
    ec2, _ = clients(two.standin)
    tags = [{"Key": "bilbo:cluster", "Value": NAME}]
    made = ec2.run_instances(
        ImageId=local.KNOWN_AMI, InstanceType="t3.micro", MinCount=1, MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )  # fmt: skip
    return str(made["Instances"][0]["InstanceId"])


def test_the_owner_is_on_everything_and_in_the_state(two: Two) -> None:
    """Record, state and every resource that can carry a tag name one owner; the account too."""
    record = two.ada.record(NAME)
    owner = record["owner"]
    assert len(owner) == 16 and record["account"] == "123456789012"
    folder = two.ada.home / "clusters" / NAME / "terraform"
    state = json.loads((folder / "terraform.tfstate").read_text(encoding="utf-8"))
    assert state["outputs"]["owner"]["value"] == owner
    main = (folder / "main.tf").read_text(encoding="utf-8")
    assert 'allowed_account_ids = ["123456789012"]' in main
    ec2, _ = clients(two.standin)
    by_tag = [{"Name": "tag:bilbo:cluster", "Values": [NAME]}]
    tags = ec2.describe_tags(
        Filters=[{"Name": "key", "Values": ["bilbo:cluster"]}, {"Name": "value", "Values": [NAME]}]
    )["Tags"]
    by_owner = ec2.describe_tags(
        Filters=[{"Name": "key", "Values": ["bilbo:owner"]}, {"Name": "value", "Values": [owner]}]
    )["Tags"]
    assert {each["ResourceId"] for each in tags} == {each["ResourceId"] for each in by_owner}
    assert len(ec2.describe_instances(Filters=by_tag)["Reservations"]) == 2


def test_two_of_one_name(two: Two) -> None:
    """The second is refused, by bilbo or by AWS, and its `destroy` leaves the first's alone."""
    hers = running(two)
    said = run(two, two.ben, "create", two.profile, code=1)
    assert f"AWS already has a cluster '{NAME}'" in said
    # Both began at once: neither saw the other.
    local.inject(two.standin, "deny=ec2:DescribeTags")
    said = run(two, two.ben, "create", two.profile, code=1)
    local.inject(two.standin, "clear")
    lines = [line for line in said.splitlines() if any(each in line for each in hers)]
    assert all("Not this cluster's, left alone" in line for line in lines), said
    assert two.ben.record(NAME)["instances"] == []
    assert f"AWS already has a cluster '{NAME}'" in run(two, two.ben, "create", two.profile, code=1)
    said = run(two, two.ben, "destroy", NAME, "-y")
    assert "nothing of it is left" in said
    assert said.count("Not this cluster's, left alone: aws_") == 5  # two machines, template, groups
    assert running(two) == hers
    assert "Nothing to do." in run(two, two.ada, "plan", two.profile, "--detailed-exitcode")
    assert two.ben("clusters").stdout == ""


def test_another_account(two: Two, tmp_path: Path) -> None:
    """A profile's account that is not the credentials' is refused, with both numbers."""
    document = json.loads(Path(two.profile).read_text(encoding="utf-8"))
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**document, "account": "9" * 12}), encoding="utf-8")
    for words in (["plan", str(other)], ["create", str(other)], ["create", str(other), "-n", NAME]):
        said = run(two, two.ada, *words, code=1)
        assert "account 999999999999" in said and "belong to 123456789012" in said
    assert two.ada("clusters").stdout == f"{NAME}\n"


def test_the_owner_is_chosen_once(two: Two, tmp_path: Path) -> None:
    """A plan's owner is that of the next plan and of what is created by it, and no other."""
    file = str(tmp_path / "a.plan")
    run(two, two.ben, "plan", two.profile, "-n", "once", "-o", file)
    main = two.ben.home / "clusters" / "once" / "terraform" / "main.tf"
    chosen = main.read_text(encoding="utf-8")
    assert 'output "owner"' in chosen
    run(two, two.ben, "plan", two.profile, "-n", "once")
    assert main.read_text(encoding="utf-8") == chosen
    run(two, two.ben, "create", two.profile, "-n", "once", "--plan", file)
    assert main.read_text(encoding="utf-8") == chosen
    assert f'"{two.ben.record("once")["owner"]}"' in chosen
    run(two, two.ben, "destroy", "once", "-y")


def test_a_tag_alone_makes_nothing_the_clusters(two: Two) -> None:
    """What merely carries the tag is said to be another's, and outlives the cluster unless named;
    nobody waits for it."""
    hers = running(two)
    left, taken = tagged_alone(two), tagged_alone(two)
    said = run(two, two.ada, "drift", NAME, "--detailed-exitcode")
    assert f"{left} carries this cluster's tag but has another owner: left alone" in said
    assert "has another owner" in run(two, two.ada, "desc", NAME, "--refresh")
    assert "Nothing to do." in run(two, two.ada, "create", two.profile)
    said = run(two, two.ada, "destroy", NAME, "-y", "--also", "i-0123", code=2)
    assert "i-0123" in said and running(two) == hers | {left, taken}
    said = run(two, two.ada, "destroy", NAME, code=1)  # nobody can be asked
    assert f"Not this cluster's, left alone: aws_instance {left} (no owner)" in said
    assert f"--also {left}" in said

    began = time.monotonic()
    said = run(two, two.ada, "destroy", NAME, "-y", "--also", taken)
    assert time.monotonic() - began < 60
    assert "nothing of it is left" in said
    assert f"Not this cluster's, left alone: aws_instance {left} (no owner)\n" in said
    assert running(two) == {left}
    assert two.ada("clusters").stdout == ""


@pytest.mark.standin
def test_an_upgrade_replaces_and_stops_nothing(tmp_path: Path) -> None:
    """A cluster as the last release made it: a plan has nothing to do and says what is missing,
    more workers are a change in place, and `destroy` finds all of it."""
    target = local.start(tmp_path)
    try:
        bilbo = Bilbo(tmp_path)
        document = {"instance": INSTANCE, "notebook": {}, "dask": {"worker": ONE_PROCESS}}
        profile = bilbo.profile("before", document)
        folder = tmp_path / "clusters" / "before"
        shutil.copytree(BEFORE, folder / "terraform")
        main = folder / "terraform" / "main.tf"
        text = main.read_text(encoding="utf-8").replace('"22" ', f'"{target.ssh_port}" ')
        main.write_text(text, encoding="utf-8")
        record = {
            "version": 1, "name": "before", "status": "failed", "region": "us-east-1",
            "type": "dask", "created_time": "2026-01-01T00:00:00+00:00", "profile": document,
            "profile_name": profile, "terraform_dir": str(folder / "terraform"),
            "endpoint_url": target.endpoint_url, "cidrs": ["127.0.0.0/8"],
        }  # fmt: skip
        (folder / "cluster.json").write_text(json.dumps(record), encoding="utf-8")
        apply_alone(bilbo, folder / "terraform", dict(target.environment))

        said = bilbo("plan", profile, "--detailed-exitcode")
        assert "Nothing to do." in said.stdout
        assert "This cluster was created before owners" in said.stderr
        more = ("-p", "dask.worker.count=2", "--format", "json", "--detailed-exitcode")
        planned = json.loads(bilbo("plan", profile, *more, code=2).stdout)
        assert [each["action"] for each in planned["changes"]] == ["update"]
        assert planned["effects"] == []
        ec2, _ = clients(tmp_path)
        before = ec2.describe_instances()["Reservations"]
        bilbo("create", profile)
        assert ec2.describe_instances()["Reservations"] == before
        assert bilbo.record("before")["owner"] is None
        without_its_ami(bilbo, profile)
        bilbo("destroy", "before", "-y")
        nothing_is_left(tmp_path)
    finally:
        local.stop(tmp_path)


def without_its_ami(bilbo: Bilbo, profile: str) -> None:
    """A deregistered AMI keeps nothing from what launches no machine; what does is refused, with
    the reason, before anything is changed."""
    ec2, groups = clients(bilbo.home)

    def sizes() -> list[int]:
        found = groups.describe_auto_scaling_groups()["AutoScalingGroups"]
        return [each["DesiredCapacity"] for each in found]

    ec2.deregister_image(ImageId=INSTANCE["ami"])
    assert "Nothing to do." in bilbo("plan", profile, "--detailed-exitcode").stdout
    bilbo("drift", "before", "--detailed-exitcode")
    gone = f"the AMI {INSTANCE['ami']} does not exist in us-east-1"
    for words in (
        ["scale", "before", "2"],
        ["--local", "plan", profile, "-n", "another"],
    ):
        refused = bilbo(*words, code=1).stderr
        assert gone in refused and "replaces the machines that have it" in refused, words
    assert sizes() == [1]
    bilbo("scale", "before", "0", "-y")
    assert sizes() == [0]
    assert gone in bilbo("create", profile, code=1).stderr


def apply_alone(bilbo: Bilbo, folder: Path, aws: dict[str, str]) -> None:
    """What the last release had Terraform do."""
    import subprocess

    from bilbo.terraform.environment import environment

    settings = environment(bilbo.environment(), aws, bilbo.home)
    for words in (["init"], ["apply", "-auto-approve", "-input=false"]):
        subprocess.run(
            ["terraform", *words], cwd=folder, env=settings, check=True, capture_output=True
        )


# -- what a state says ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"outputs": 1, "resources": {}},
        {"outputs": {"owner": None}, "resources": [1, {"mode": "managed", "instances": 3}]},
        {"outputs": {"owner": {"value": 'x" }'}}},
        {"outputs": {"owner": {"value": ["0123456789abcdef"]}}},
        {"resources": [{"mode": "managed", "name": "this", "instances": [{"attributes": []}, 1]}]},
    ],
)
def test_no_owner(state: dict[str, Any]) -> None:
    """What is no owner's hash is none, whoever wrote it into the state."""
    assert owner_in(state) is None
    assert ids(state) == frozenset()


def resource(name: str, owner: str) -> dict[str, Any]:
    """A managed resource with an owner's tag."""
    attributes = {"id": f"i-{name}", "tags": {"bilbo:owner": owner}}
    return {"mode": "managed", "name": name, "instances": [{"attributes": attributes}]}


def test_an_owner_of_a_state_that_was_cut_off() -> None:
    """Killed before it wrote outputs, Terraform leaves the tags; an orphan's are not asked."""
    state = {"resources": [resource("orphan_i_1", "0" * 16), resource("this", "1" * 16)]}
    assert owner_in(state) == "1" * 16
    assert owner_in({**state, "outputs": {"owner": {"value": "2" * 16}}}) == "2" * 16
    assert ids(state) == {"i-orphan_i_1", "i-this"}


def test_own() -> None:
    """A cluster's own: in its state, launched by a group in it, of its owner, or named."""
    one, none = Own("1" * 16, frozenset({"i-1", "a-group"}), frozenset({"i-9"})), Own(None)
    for found, its, untagged in (
        (Resource("aws_instance", "i-1"), True, True),
        (Resource("aws_instance", "i-2", launched_by="a-group"), True, True),
        (Resource("aws_instance", "i-3", owner="1" * 16), True, False),
        (Resource("aws_instance", "i-4", owner="2" * 16), False, False),
        (Resource("aws_instance", "i-5"), False, True),
        (Resource("aws_instance", "i-9", owner="2" * 16), True, False),
    ):
        assert one.has(found) is its, found
        assert none.has(found) is untagged, found


def test_root_devices_in_a_state() -> None:
    """Launch templates tell them by AMI, of the specification's alone; what is malformed, or may
    have been put there, tells nothing."""
    from bilbo.cluster.root_devices import known_root_devices
    from bilbo.profile import building

    document = {"instance": INSTANCE, "dask": {}}
    spec = building.build(document, "one", "us-east-1")
    ami = INSTANCE["ami"]

    def told(**attributes: Any) -> dict[str, str]:
        template = {"type": "aws_launch_template", "instances": [{"attributes": attributes}]}
        return known_root_devices(spec, {"resources": [1, {"type": "aws_instance"}, template]})

    disks = [{"device_name": "/dev/xvda"}]
    assert told(image_id=ami, block_device_mappings=disks) == {ami: "/dev/xvda"}
    assert told(image_id="ami-2", block_device_mappings=disks) == {}
    for wrong in (None, [], [1], [{"device_name": 5}], [{"device_name": ""}], "x"):
        assert told(image_id=ami, block_device_mappings=wrong) == {}
    assert told(image_id=[ami], block_device_mappings=disks) == told() == {}
    for state in ({}, {"resources": 3}, {"resources": [{"type": "aws_launch_template"}]}):
        assert known_root_devices(spec, state) == {}
