"""Reviewed plans that are refused, states that are locked, and two who apply at once.

The tests share one cluster of a team, and each plans from what there is when it begins.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from bilbo_cli import clients, nothing_is_left
from teams import (
    BUCKET,
    NAME,
    Machine,
    Team,
    allowed,
    attach,
    fits_the_schema,
    instances,
    read_folder,
)

from bilbo import bundle

# -- refusals -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def shared(team: Team, bucket: str) -> None:
    """The team's cluster: Ada has made it, Ben has attached it; anew, where it was destroyed."""
    if team.has_cluster():
        return
    ada = team.machine("ada")
    ada("create", ada.profile(team.shared()))
    attach(team.machine("ben"))


@pytest.fixture
def change(team: Team, shared: None) -> Path:
    """A reviewed plan of Ada's that nobody has applied: one worker more."""
    ada, file = team.machine("ada"), Path(team.machine("ada").path("change.plan"))
    if file.exists() and bundle.read(file).manifest.serial == team.state()["serial"]:
        return file
    document = team.present(more=1)
    shown = ada("plan", ada.profile(document), "-o", str(file), "--format", "json").stdout
    fits_the_schema(json.loads(shown))
    team.machine("ben").profile(document)
    return file


def refused(machine: Machine, file: Path, *more: str, profile: str = "team.json") -> str:
    """What create says when it refuses a plan; the state must not have moved."""
    with zipfile.ZipFile(file) as archive:
        digest = archive.read("manifest.sha256").decode().strip()
    more = more if "--digest" in more else ("--digest", digest, *more)
    cluster = machine.bilbo.home / "clusters" / NAME
    before = read_folder(cluster)
    said = machine("create", machine.path(profile), "--plan", str(file), *more, code=1).stderr
    assert read_folder(cluster) == before, "a refusal has touched the cluster's folder"
    return said


def test_what_is_refused(team: Team, ben: Machine, change: Path, tmp_path: Path) -> None:
    """Another profile, name, region, version or platform, and any changed byte: each is named."""
    edited = ben.folder / "edited" / "team.json"
    edited.parent.mkdir(exist_ok=True)
    document = json.loads((ben.folder / "team.json").read_text(encoding="utf-8"))
    document["dask"]["worker"]["count"] = 30
    edited.write_text(json.dumps(document), encoding="utf-8")
    assert "the profile has changed since the review" in refused(
        ben, change, profile="edited/team.json"
    )
    assert "for cluster team" in refused(ben, change, "-n", "other")
    assert "its digest is" in refused(ben, change, "--digest", "0" * 64)
    done = ben("create", ben.path("team.json"), "--plan", str(change), "-p", "region=x", code=2)
    assert "-p" in done.stderr

    found = bundle.read(change)
    contents = dict(found.contents)
    for field, value, said in (
        ("region", "eu-west-1", "for region eu-west-1"),
        ("endpoint", None, "AWS itself"),
        ("account", "999999999999", "for the AWS account 999999999999"),
        ("versions", {**found.manifest.versions, "bilbo": "0.0.9"}, "made by bilbo 0.0.9"),
        ("versions", {**found.manifest.versions, "terraform": "1.9.0"}, "terraform 1.9.0"),
        ("versions", {**found.manifest.versions, "platform": "darwin_arm64"}, "darwin_arm64"),
        ("versions", {"bilbo": found.manifest.versions["bilbo"]}, "platform none"),
        ("account", None, "for the AWS account none"),
        ("serial", found.manifest.serial + 7, "serial"),
    ):
        other = tmp_path / "other.plan"
        changed = {**found.manifest.__dict__, field: value}
        bundle.write(other, bundle.Manifest(**changed), contents)
        assert said in refused(ben, other), field

    for word in ("", "f00d"):
        done = ben("create", ben.path("team.json"), "--plan", str(change), "--digest", word, code=2)
        assert "64 hex digits" in done.stderr
    done = ben("create", ben.path("team.json"), "--plan", str(change), code=2)
    assert "--digest" in done.stderr

    broken = tmp_path / "broken.plan"
    data = change.read_bytes()
    middle = len(data) // 2
    broken.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert "not a reviewed plan: " in refused(ben, broken)


EVIL = """
resource "terraform_data" "evil" {
  provisioner "local-exec" {
    command = "touch ../evil"
  }
}
"""


def test_a_forged_plan(team: Team, ben: Machine, change: Path, tmp_path: Path) -> None:
    """Whoever repacks a bundle with a digest of its own gets nothing applied, nor written."""
    found = bundle.read(change)
    honest, plan = dict(found.contents), found.contents[bundle.PLAN]
    evil = honest[f"{bundle.HCL}main.tf"] + EVIL.encode()
    lock = (
        honest[f"{bundle.HCL}.terraform.lock.hcl"] + b'\nprovider "evil.example/evil/evil" {\n}\n'
    )
    main, state = (
        "tfconfig/m-/main.tf",
        '{"resources": [{"provider": "provider[\\"evil/evil\\"]"}]}',
    )
    forged = [
        ({f"{bundle.HCL}main.tf": evil}, "holds main.tf, which differs"),
        ({f"{bundle.HCL}evil.tf": EVIL.encode()}, "holds evil.tf, which differs"),
        ({f"{bundle.HCL}terraform.tfstate": b"{}"}, "holds terraform.tfstate, which differs"),
        ({f"{bundle.HCL}.terraform.lock.hcl": lock}, "another lock file"),
        ({bundle.PLAN: b"no plan"}, "cannot read its Terraform plan"),
        ({bundle.PLAN: repacked(plan, {main: evil})}, "plans with main.tf, which differs"),
        (
            {bundle.PLAN: repacked(plan, {"tfconfig/m-/x.tf": b""})},
            "plans with x.tf, which differs",
        ),
        (
            {bundle.PLAN: repacked(plan, {"tfconfig/m-x/x.tf": b""})},
            "it contains 'tfconfig/m-x/x.tf'",
        ),
        ({bundle.PLAN: repacked(plan, {"more": b""})}, "it contains 'more'"),
        ({bundle.PLAN: repacked(plan, {"tfstate": state.encode()})}, "evil/evil"),
        ({bundle.PLAN: repacked(plan, {"tfstate": b"[]"})}, "cannot read its Terraform plan"),
        ({bundle.PLAN: repacked(plan, {".terraform.lock.hcl": lock})}, "another lock file"),
        (
            {
                f"{bundle.HCL}.terraform.lock.hcl": lock,
                bundle.PLAN: repacked(plan, {".terraform.lock.hcl": lock}),
            },
            "it uses evil.example/evil/evil",
        ),
    ]
    other = tmp_path / "forged.plan"
    for changed, said in forged:
        bundle.write(other, found.manifest, {**honest, **changed})
        assert said in refused(ben, other), changed.keys()
    assert not list(ben.folder.rglob("evil"))


def repacked(plan: bytes, changed: dict[str, bytes]) -> bytes:
    """A saved plan of Terraform's with other members."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(plan)) as old, zipfile.ZipFile(packed, "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        for name, data in {**members, **changed}.items():
            new.writestr(name, data)
    return packed.getvalue()


def test_changed_by_hand_since(team: Team, ada: Machine, ben: Machine, change: Path) -> None:
    """A worker terminated after the review stops the apply; drift tells of hands, too."""
    ec2, _ = clients(team.standin)
    groups = ec2.describe_security_groups(Filters=[{"Name": "tag:bilbo:cluster", "Values": [NAME]}])
    rule = {"GroupId": groups["SecurityGroups"][0]["GroupId"], "IpProtocol": "tcp",
            "FromPort": 22, "ToPort": 22, "CidrIp": "0.0.0.0/0"}  # fmt: skip
    ec2.authorize_security_group_ingress(**rule)
    serial = team.state()["serial"]
    assert "aws_security_group.this has changed" in refused(ben, change)
    told = ada("drift", NAME, "--format", "markdown", "--detailed-exitcode", code=2).stdout
    assert "aws_security_group.this" in told
    ec2.revoke_security_group_ingress(**rule)

    (worker,) = list(ada.bilbo.record(NAME)["workers"])[:1]
    ec2.terminate_instances(InstanceIds=[worker["instance_id"]])
    assert f"{worker['instance_id']} no longer runs" in refused(ben, change)
    assert team.state()["serial"] == serial


def test_a_group_that_is_replaced_launches_nothing(team: Team, ada: Machine) -> None:
    """A reviewed plan that replaces a group which lacks a worker brings none back in the old one,
    where it would be billed for nothing."""
    document = team.present()
    document["dask"]["worker"]["instance"] = {"ec2type": "t3.small"}
    before, file = types(team), ada.path("replaced.plan")
    profile = ada.profile(document)
    planned = json.loads(ada("plan", profile, "-o", file, "--format", "json").stdout)
    assert [each["how"] for each in planned["effects"]] == ["replace"]
    assert planned["shortages"] == []
    ada("create", profile, "--plan", file, "--digest", planned["digest"])
    new = [each for name, each in types(team).items() if name not in before]
    assert new == ["t3.small"] * document["dask"]["worker"]["count"]


def types(team: Team) -> dict[str, str]:
    """The type of every instance that there ever was, by id."""
    ec2, _ = clients(team.standin)
    found = [each["Instances"] for each in ec2.describe_instances()["Reservations"]]
    return {each["InstanceId"]: each["InstanceType"] for one in found for each in one}


# -- locks ----------------------------------------------------------------------------------


LOCK = "0c0ffee0-8fbc-be29-bbb4-3bc1b1eaa6f1"


def test_a_lock_of_somebody_else(team: Team, ben: Machine) -> None:
    """Who holds the state since when is told; `unlock` takes away that lock and no other."""
    lock = {"ID": LOCK, "Operation": "OperationTypeApply", "Who": "eve@laptop",
            "Version": "1.11.4", "Created": "2026-01-02T03:04:05.6Z", "Info": "",
            "Path": f"{BUCKET}/bilbo/{NAME}.tfstate"}  # fmt: skip
    key = f"bilbo/{NAME}.tfstate.tflock"
    team.s3().put_object(Bucket=BUCKET, Key=key, Body=json.dumps(lock).encode())
    profile = ben.profile(team.present())
    told = ben("create", profile, code=1).stderr
    assert "eve@laptop works on cluster 'team' (apply, since 2026-01-02 03:04:05 UTC)" in told
    assert f"bilbo unlock {NAME} {LOCK}" in told
    told = ben("plan", profile, code=1).stderr
    assert "eve@laptop" in told
    assert f"bilbo unlock {NAME} {LOCK}" in told
    assert (
        f"with another id: {LOCK}"
        in ben("unlock", NAME, "deadbeef-8fbc-be29-bbb4-3bc1b1eaa6f1", code=1).stderr
    )
    ben("unlock", NAME, LOCK)
    assert "is not locked" in ben("unlock", NAME, LOCK, code=1).stderr


def test_both_at_once(team: Team, ada: Machine, ben: Machine) -> None:
    """Two who apply at the same time: one is told of the other, and the cluster is one."""
    running = []
    document = team.present(more=1)
    for machine in (ada, ben):
        profile = machine.profile(document)
        running.append(machine.bilbo.start("create", profile, "-y", **machine.environment))
    ended = [(process.communicate(timeout=200), process.returncode) for process in running]
    codes = sorted(code for _, code in ended)
    assert codes[0] == 0, ended
    for (_, said), code in ended:
        assert "Traceback" not in said
        if code:
            assert re.search("works on cluster|has held it since|meanwhile", said), said
    for machine in (ada, ben):
        machine("create", machine.path("team.json"), "-y")
    assert instances(ada) == instances(ben)
    assert len(ada.bilbo.record(NAME)["workers"]) == document["dask"]["worker"]["count"]


def test_destroyed_by_a_team_mate(team: Team, ben: Machine) -> None:
    """Who attached the cluster can destroy it; nothing of it is left."""
    with allowed(team, "destroy", team.present()):
        ben("destroy", NAME, "-y")
    nothing_is_left(team.standin)
