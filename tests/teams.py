"""A team: several machines, one AWS, and one cluster whose state they share.

A machine is a folder with a HOME and a BILBO_HOME of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo

from bilbo import local

PROJECT = Path(__file__).parent.parent
DOCS = PROJECT / "docs" / "gitops.md"
BUCKET = "team-state"
NAME = "team"


@dataclass(frozen=True)
class Machine:
    """A person's or a runner's machine, with AWS's settings as its environment."""

    folder: Path
    aws: dict[str, str]

    @property
    def bilbo(self) -> Bilbo:
        return Bilbo(self.folder / "bilbo-home")

    @property
    def environment(self) -> dict[str, str]:
        return {**self.aws, "HOME": str(self.folder)}

    def __call__(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Runs bilbo in this machine's folder."""
        return self.bilbo(*arguments, code=code, around=self.environment)

    def profile(self, document: dict[str, Any]) -> str:
        """Writes the team's profile here; its path."""
        path = self.folder / "team.json"
        path.write_text(json.dumps(document, indent=4), encoding="utf-8")
        return str(path)

    def path(self, name: str) -> str:
        """A file of this machine."""
        return str(self.folder / name)


@dataclass(frozen=True)
class Team:
    """Everything that the machines have in common: AWS, the key, and the profile."""

    root: Path
    standin: Path
    aws: dict[str, str]

    def machine(self, name: str) -> Machine:
        """A machine, made when it is first named."""
        folder = self.root / name
        if not folder.exists():
            (folder / ".ssh").mkdir(parents=True)
            key = folder / ".ssh" / "team.pem"
            shutil.copy(self.standin / "local" / "local.pem", key)
        return Machine(folder, self.aws)

    def document(self, count: int = 1, **more: Any) -> dict[str, Any]:
        """The team's profile: a notebook, a scheduler, and workers."""
        target = local.target(self.standin)
        assert target
        instance = {**INSTANCE, "ssh_private_key": "~/.ssh/team.pem", "ssh_port": target.ssh_port}
        return {
            "region": "us-east-1",
            "access": {"cidrs": ["127.0.0.0/8"]},
            "instance": instance,
            "notebook": {},
            "dask": {"worker": {"count": count, **ONE_PROCESS}},
            **more,
        }

    def shared(self, count: int = 1, **more: Any) -> dict[str, Any]:
        """As `document`, its state in the team's bucket."""
        return self.document(count, state={"bucket": BUCKET}, **more)

    def s3(self) -> Any:
        """boto3's client of the stand-in's S3."""
        return boto3.client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.aws["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.aws["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.aws["AWS_SECRET_ACCESS_KEY"],
        )

    def state(self) -> dict[str, Any]:
        """The shared state as it lies in the bucket."""
        key = f"bilbo/{NAME}.tfstate"
        found: dict[str, Any] = json.load(self.s3().get_object(Bucket=BUCKET, Key=key)["Body"])
        return found

    def has_cluster(self) -> bool:
        """Whether the shared state is there and holds resources."""
        found = self.s3().list_objects_v2(Bucket=BUCKET, Prefix=f"bilbo/{NAME}.tfstate")
        return bool(found["KeyCount"] and self.state()["resources"])

    def present(self, more: int = 0) -> dict[str, Any]:
        """The profile of what the shared state holds, or of some workers more."""
        held = {
            f"{resource.get('module', '')}.{resource['type']}": instance["attributes"]
            for resource in self.state()["resources"]
            for instance in resource["instances"]
        }
        document = self.shared(held["module.worker.aws_autoscaling_group"]["max_size"] + more)
        ec2type = held["module.notebook.aws_instance"]["instance_type"]
        if ec2type != INSTANCE["ec2type"]:
            document["notebook"] = {"instance": {"ec2type": ec2type}}
        ec2type = held["module.worker.aws_launch_template"]["instance_type"]
        if ec2type != INSTANCE["ec2type"]:
            document["dask"]["worker"]["instance"] = {"ec2type": ec2type}
        return document


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A team, whose AWS is a stand-in that no member's home knows as its own."""
    root = tmp_path_factory.mktemp("team")
    standin = root / "aws"
    target = local.start(standin)
    assert target.endpoint_url
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    aws = {name: target.environment[name] for name in names}
    aws |= {"AWS_ENDPOINT_URL": target.endpoint_url, "AWS_EC2_METADATA_DISABLED": "true"}
    try:
        yield Team(root, standin, aws)
    finally:
        local.stop(standin)


@pytest.fixture(scope="module")
def bucket(team: Team) -> str:
    """The team's bucket for states, made on Ada's machine."""
    with allowed(team, "state-bucket", team.shared()):
        team.machine("ada")("state-bucket", "create", BUCKET)
    return BUCKET


@pytest.fixture
def ada(team: Team) -> Machine:
    """Who made the cluster."""
    return team.machine("ada")


@pytest.fixture
def ben(team: Team) -> Machine:
    """Who reviews and applies."""
    return team.machine("ben")


def fits_the_schema(document: dict[str, Any]) -> None:
    """A plan's JSON is what the schema describes."""
    import jsonschema  # late, as it is slow to import

    schema = json.loads((PROJECT / "schemas" / "plan-01.schema.json").read_text())
    jsonschema.validate(document, schema)


def instances(machine: Machine) -> set[str]:
    """The instance ids of the team's cluster, as a machine has them on record."""
    return set(machine.bilbo.record(NAME)["instances"])


def read_folder(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def allowed(team: Team, step: str, document: dict[str, Any]) -> Iterator[None]:
    """Within it, everybody may do what `bilbo permissions` prints for a step and nothing else, but
    for the plans of the workflow; all that is then asked of the bucket stands in docs/gitops.md."""
    role = {"drift": "plan"}.get(step, step)
    asking = team.machine("admin")
    command = ("permissions", asking.profile(document), "-n", NAME, "--step", role)
    policy = json.loads(asking(*command).stdout)
    plans = f"arn:aws:s3:::{BUCKET}/plans/*"
    objects = {"plan": "s3:PutObject", "apply": "s3:GetObject"}.get(role)
    if objects:
        policy["Statement"].append({"Effect": "Allow", "Action": objects, "Resource": plans})
    file = team.root / f"{role}-policy.json"
    file.write_text(json.dumps(policy), encoding="utf-8")
    local.calls(team.standin, reset=True)
    local.inject(team.standin, f"policy={file}")
    try:
        yield
    finally:
        local.inject(team.standin, "clear")
    permitted_objects(step, local.objects(team.standin))


def permitted_objects(step: str, asked: Mapping[str, int]) -> None:
    """What a step has read and written of the bucket is what docs/gitops.md lets its role, and a
    plan is written once."""
    text = DOCS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z, ]+) \| `BUCKET/(.*?)` \| (`.*`) \|$", text, re.M)
    role = {"drift": "plan"}.get(step, step)
    allowed = [
        (action, f"{BUCKET}/{key.replace('PREFIX', 'bilbo')}")
        for roles, key, actions in rows
        if role in roles.split(", ")
        for action in re.findall("`(.+?)`", actions)
    ]
    for each, count in asked.items():
        action, path = each.replace("s3:HeadObject", "s3:GetObject").split(" ")
        assert any(action == other and fnmatchcase(path, pattern) for other, pattern in allowed), (
            f"{step}: {each}"
        )
        if "/plans/" in path and action == "s3:PutObject":
            assert count == 1


def attach(machine: Machine) -> None:
    """A machine attaches the team's cluster, with its copy of the key."""
    key = str(machine.folder / ".ssh" / "team.pem")
    machine("attach", NAME, f"s3://{BUCKET}/bilbo", "-i", key)
