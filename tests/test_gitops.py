"""Plans that a team reviews and then gets exactly: several machines, one shared state.

A machine is a folder with a HOME and a BILBO_HOME of its own. The tests share one cluster, in
the order in which they stand: it begins on Ada's machine alone and becomes the team's.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, clients, nothing_is_left

from bilbo import bundle, local
from bilbo.cluster.state_bucket import variables
from bilbo.model import Target
from bilbo.terraform.environment import environment as terraform_environment

PROJECT = Path(__file__).parent.parent
EXAMPLE = PROJECT / "examples" / "gitops"
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


# -- render and bundles ---------------------------------------------------------------------


def test_render(team: Team, ada: Machine, ben: Machine) -> None:
    """The HCL is the same bytes on two machines, fmt-clean, and terraform alone can plan it."""
    for machine in (ada, ben):
        machine("render", machine.profile(team.document()), "-o", machine.path("hcl"))
    ours, theirs = (read_folder(machine.folder / "hcl") for machine in (ada, ben))
    assert ours == theirs
    assert ours["main.tf"].startswith(b'# Cluster "team", written by bilbo ')
    assert b"team.json" in ours["main.tf"]
    assert str(team.root).encode() not in b"".join(ours.values())

    (ada.folder / "hcl" / ".terraform.lock.hcl").write_text("# committed\n", encoding="utf-8")
    ada("render", ada.profile(team.document(4)), "-o", ada.path("hcl"))
    changed = read_folder(ada.folder / "hcl")
    assert changed.pop(".terraform.lock.hcl") == b"# committed\n"
    assert diff_lines(ours, changed) == ["-  instance_count     = 1", "+  instance_count     = 4"]

    # Terraform's own way to its providers, as bilbo finds it on this machine.
    environment = terraform_environment(
        ben.bilbo.environment(**ben.environment), {}, ben.bilbo.home
    )
    for arguments in (["fmt", "-check", "-recursive"], ["init"], ["plan", "-input=false"]):
        subprocess.run(
            ["terraform", *arguments],
            cwd=ben.folder / "hcl", env=environment, check=True, capture_output=True,
        )  # fmt: skip


def read_folder(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def diff_lines(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    """The changed lines of two folders, as a review shows them."""
    assert before.keys() == after.keys()
    return [
        line
        for name in before
        for line in difflib.unified_diff(
            before[name].decode().splitlines(), after[name].decode().splitlines(), lineterm="", n=0
        )
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]


def test_render_refuses(team: Team, ada: Machine, tmp_path: Path) -> None:
    """What depends on who asks is named by its key, and nobody else's files are overwritten."""
    for key in ("access", "region"):
        document = {k: v for k, v in team.document().items() if k != key}
        said = ada("render", ada.profile(document), "-o", str(tmp_path / "x"), code=1).stderr
        assert key in said
    assert not (tmp_path / "x").exists()
    profile = ada.profile(team.document())
    for name in ("main.tf", "other.tf"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("# mine\n", encoding="utf-8")
        said = ada("render", profile, "-o", str(folder), code=1).stderr
        assert "bilbo did not write this file" in said
        assert read_folder(folder) == {name: b"# mine\n"}
    ada("render", profile, "-o", str(tmp_path / "one"))
    said = ada("render", profile, "-n", "other", "-o", str(tmp_path / "one"), code=1).stderr
    assert "holds cluster 'team'" in said


def test_ports_open_to_the_world(team: Team, ada: Machine) -> None:
    """`plan` warns of ports that the whole internet reaches; `create` refuses them unless told."""
    document = {**team.document(), "access": {"cidrs": ["0.0.0.0/0"]}}
    profile = ada.profile(document)
    said = ada("create", profile, "-n", "open", code=1).stderr
    assert "port 8888 (JupyterLab) is open to the world: 0.0.0.0/0" in said
    assert "Warning: port 8786" in ada("plan", profile, "-n", "open").stdout
    assert ada("clusters").stdout == ""
    document["access"] = {"cidrs": ["0.0.0.0/0"], "public": True}
    document["instance"] = {**document["instance"], "keyname": "nobody"}
    said = ada("create", ada.profile(document), "-n", "open", code=1).stderr
    assert "'nobody'" in said  # it went on to look at AWS
    shutil.rmtree(ada.bilbo.home / "clusters" / "open")


def test_a_plan_of_a_local_state(team: Team, ada: Machine, ben: Machine) -> None:
    """A bundle is private, refused on any machine but its own, and there applied exactly."""
    profile, file = ada.profile(team.document()), ada.path("first.plan")
    no_access = {k: v for k, v in team.document().items() if k != "access"}
    (ada.folder / "open.json").write_text(json.dumps(no_access), encoding="utf-8")
    said = ada("plan", ada.path("open.json"), "-o", file, code=1).stderr
    assert "access.cidrs" in said

    planned = ada("plan", profile, "-o", file).stdout
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    digest = bundle.read(Path(file)).digest
    assert f"--plan {file} --digest {digest}" in planned

    shutil.copy(file, ben.path("first.plan"))
    theirs = ben.profile(team.document())
    said = ben("create", theirs, "--plan", ben.path("first.plan"), code=1).stderr
    assert "applying it here would create a second cluster" in said
    assert ben("clusters").stdout == ""

    local.calls(team.standin, reset=True)
    done = ada("create", profile, "--plan", file, "--digest", digest)
    permitted(team, "apply")
    assert "Name: team" in done.stdout
    assert "serial" in ada("create", profile, "--plan", file, code=1).stderr


# -- shared state ---------------------------------------------------------------------------


def test_a_bucket_for_states(team: Team, ada: Machine) -> None:
    """The bucket is versioned, encrypted and private, and its root refuses to destroy it."""
    ada("state-bucket", "create", BUCKET)
    s3 = team.s3()
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    assert s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    blocked = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert all(blocked.values())
    assert ada("state-bucket", "create", BUCKET).stdout == "Nothing to do.\n"
    root = ada.bilbo.home / "state-buckets" / BUCKET / "terraform"
    assert "prevent_destroy = true" in (root / "main.tf").read_text(encoding="utf-8")
    assert "is not a bucket name" in ada("state-bucket", "create", "No_Way", code=2).stderr


def test_only_an_endpoint_without_tls_is_let_in_without() -> None:
    """AWS's own bucket refuses what does not come over TLS; so does one behind https."""
    for endpoint, only_tls in ((None, True), ("https://s3.example", True), ("http://x", False)):
        assert variables(BUCKET, Target("us-east-1", endpoint))["only_tls"] is only_tls


def test_local_to_shared(team: Team, ada: Machine) -> None:
    """Moving the state into the bucket is never done by a plan, and loses nothing."""
    before = instances(ada)
    path = ada.bilbo.home / "clusters" / NAME / "terraform" / "terraform.tfstate"
    local_state = json.loads(path.read_text(encoding="utf-8"))
    profile = ada.profile(team.shared())
    assert "not yet where the profile keeps it" in ada("plan", profile, code=1).stderr
    ada("create", profile)
    assert instances(ada) == before
    assert resource_ids(team.state()) == resource_ids(local_state)
    owner = ada.bilbo.record(NAME)["owner"]
    assert owner and team.state()["outputs"]["owner"]["value"] == owner
    assert local_state["outputs"]["owner"]["value"] == owner
    assert not path.read_text(encoding="utf-8").strip()
    said = ada("create", ada.profile(team.document()), code=1).stderr
    assert "is shared at s3://" in said
    ada.profile(team.shared())


def resource_ids(state: dict[str, Any]) -> set[tuple[str, str]]:
    """The resources of a state, by type and id."""
    return {
        (resource["type"], instance["attributes"]["id"])
        for resource in state["resources"]
        if resource["mode"] == "managed"
        for instance in resource["instances"]
    }


def test_attach(team: Team, ada: Machine, ben: Machine) -> None:
    """With the state's address and the key alone, a team-mate has the cluster as its maker has."""
    ben("attach", NAME, f"s3://{BUCKET}/bilbo", "-i", str(ben.folder / ".ssh" / "team.pem"))
    assert instances(ben) == instances(ada)
    known = [machine.bilbo.record(NAME) for machine in (ada, ben)]
    assert len({(each["owner"], each["account"]) for each in known}) == 1
    for machine in (ada, ben):
        machine("render", machine.profile(team.shared()), "-o", machine.path("shared"))
    ours, theirs = (read_folder(machine.folder / "shared") for machine in (ada, ben))
    assert ours == theirs
    assert known[0]["owner"].encode() in ours["main.tf"]
    assert b"allowed_account_ids" not in ours["main.tf"]
    url = ("notebook", NAME, "-u")
    assert ben(*url).stdout == ada(*url).stdout
    assert ben("rcmd", NAME, "all", "echo here").stdout.count("here") == 3
    said = ben("attach", NAME, f"s3://{BUCKET}/bilbo", code=1).stderr
    assert "is already known here" in said
    said = ben("attach", "nobody", f"s3://{BUCKET}/bilbo", code=1).stderr
    assert "no cluster 'nobody' in s3://" in said


def test_the_state_is_shown(ben: Machine) -> None:
    """`desc --state` lists Terraform's resources and outputs, and the folder where it works."""
    shown = json.loads(ben("desc", NAME, "--state", "--json").stdout)
    addresses = [resource["address"] for resource in shown["resources"]]
    assert "module.worker.aws_autoscaling_group.this" in addresses
    assert shown["outputs"]["notebook"]["instance_id"]
    assert Path(shown["folder"]).is_dir()


# -- the workflow ---------------------------------------------------------------------------


GH = r"""#!/bin/sh
# What the workflow asks of GitHub: a comment, an issue, the head of a merged pull request.
case "$1" in
  api)
    case "$*" in
      */comments*) grep -o '[0-9a-f]\{64\}' "$TOLD" | head -n 1 ;;
      *.number) echo 7 ;;
      *) echo f00d ;;
    esac ;;
  *) while [ $# -gt 0 ]; do [ "$1" = --body-file ] && cat "$2"; shift; done > "$HOME/told.md" ;;
esac
"""
AWS = """#!{python}
import sys, boto3
s3 = boto3.client("s3")
if sys.argv[1:3] == ["s3api", "put-object"]:
    given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
    with open(given["--body"], "rb") as body:
        s3.put_object(
            Bucket=given["--bucket"], Key=given["--key"], Body=body,
            IfNoneMatch=given["--if-none-match"],
        )
    sys.exit()
_, _, _, source, target = sys.argv
if source.startswith("s3://"):
    bucket, _, key = source[5:].partition("/")
    s3.download_file(bucket, key, target)
else:
    bucket, _, key = target[5:].partition("/")
    s3.upload_file(source, bucket, key)
"""


def run_job(team: Team, job: str, document: dict[str, Any], code: int = 0) -> Machine:
    """Runs the steps of one of the example's jobs, in order, on a machine of its own."""
    machine = team.machine(f"runner-{job}-{len(list(team.root.iterdir()))}")
    if job != "apply":
        (machine.folder / ".ssh" / "team.pem").unlink()
    proposed = Path(machine.profile(document))
    (machine.folder / "proposed").mkdir()
    shutil.copy(proposed, machine.folder / "proposed" / "team.json")
    tools = machine.folder / "tools"
    tools.mkdir()
    launcher = f'#!/bin/sh\nexec {sys.executable} -m bilbo "$@"\n'
    scripts = {"gh": GH, "aws": AWS.format(python=sys.executable), "bilbo": launcher}
    for name, text in scripts.items():
        (tools / name).write_text(text, encoding="utf-8")
        (tools / name).chmod(0o755)
    workflow = yaml.safe_load((EXAMPLE / ".github/workflows/cluster.yml").read_text())
    environment = machine.bilbo.environment(
        **machine.environment, BUCKET=BUCKET, CLUSTER=NAME, PROFILE=workflow["env"]["PROFILE"],
        HEAD="f00d", TOLD=str(team.root / "told.md"),
        NUMBER="7", COMMIT="beef", REPOSITORY="team/infra",
        SSH_KEY=(team.standin / "local" / "local.pem").read_text(encoding="utf-8"),
        PATH=f"{tools}:{os.environ['PATH']}", PYTHONPATH=str(PROJECT),
    )  # fmt: skip
    steps = [step for step in workflow["jobs"][job]["steps"] if "run" in step]
    failed = 0
    local.calls(team.standin, reset=True)
    for step in steps:
        if bool(failed) != (step.get("if") == "failure()"):
            continue
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
            cwd=machine.folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        failed = failed or done.returncode
        assert failed in (0, code), f"{step['name']}: {done.stdout}\n{done.stderr}"
    assert failed == code
    permitted(team, job)
    return machine


def test_the_workflow_runs_nothing_of_a_pull_request() -> None:
    """The plan job runs the base branch's files, takes the profile as data, and writes each plan
    once; the apply job is held to the digest that was reviewed."""
    text = (EXAMPLE / ".github/workflows/cluster.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert "pull_request" not in workflow[True]  # YAML 1.1 reads the key `on` as true
    plan, apply = workflow["jobs"]["plan"], workflow["jobs"]["apply"]
    assert "head.repo.full_name == github.repository" in plan["if"]
    checkouts = [s.get("with", {}) for s in plan["steps"] if "checkout" in s.get("uses", "")]
    assert checkouts[0] == {}  # the base branch, from which bilbo is installed
    assert [each["path"] for each in checkouts[1:]] == ["proposed"]
    assert not any("proposed" in step.get("uses", "") for step in plan["steps"])
    commands = "\n".join(step.get("run", "") for step in plan["steps"])
    assert re.findall(r".*proposed.*", commands) == ['cp proposed/team.json "$PROFILE"']
    assert "--if-none-match '*'" in commands
    assert '--digest "$(cat digest)"' in apply["steps"][-1]["run"]


def permitted(team: Team, step: str) -> None:
    """All that a step has asked of AWS since the last reset stands in docs/gitops.md for it."""
    rows = re.findall(
        r"^\| ([a-z, ]+) \| (`[a-z0-9]+:.*`) \|$", DOCS.read_text(encoding="utf-8"), re.M
    )
    listed = {
        name: set(re.findall("`(.+?)`", row)) for names, row in rows for name in names.split(", ")
    }
    objects = local.objects(team.standin)
    asked = set(local.calls(team.standin, reset=True))
    asked -= {"s3:HeadObject"}  # its permission is s3:GetObject
    assert asked <= listed[step], sorted(asked - listed[step])
    permitted_objects(step, objects)


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


def test_the_plan_role_writes_no_state() -> None:
    """The table lets whoever plans write locks and new plans, and nothing else; a write of the
    state by a plan would be found."""
    reads = {f"s3:GetObject {BUCKET}/bilbo/team.tfstate": 3}
    lock = f"{BUCKET}/bilbo/team.tfstate.tflock"
    permitted_objects("plan", {**reads, f"s3:PutObject {lock}": 1, f"s3:DeleteObject {lock}": 1})
    permitted_objects("plan", {f"s3:PutObject {BUCKET}/plans/f00d.plan": 1})
    for wrong in (
        f"s3:PutObject {BUCKET}/bilbo/team.tfstate",
        f"s3:DeleteObject {BUCKET}/bilbo/team.tfstate",
        f"s3:DeleteObject {BUCKET}/plans/f00d.plan",
        f"s3:GetObject {BUCKET}/plans/f00d.plan",
        f"s3:PutObject {BUCKET}/other",
        "s3:PutObject other/bilbo/team.tfstate.tflock",
    ):
        with pytest.raises(AssertionError):
            permitted_objects("plan", {wrong: 1})
    permitted_objects("apply", {f"s3:PutObject {BUCKET}/bilbo/team.tfstate": 1})
    with pytest.raises(AssertionError):
        permitted_objects("apply", {f"s3:PutObject {BUCKET}/plans/f00d.plan": 1})


def test_the_workflow(team: Team, ada: Machine) -> None:
    """The example's jobs, as they stand: plan with a comment, apply of exactly that, drift."""
    before = instances(ada)
    document = team.shared(2)
    document["notebook"] = {"instance": {"ec2type": "t3.small"}}
    comment = (run_job(team, "plan", document).folder / "told.md").read_text(encoding="utf-8")
    (team.root / "told.md").write_text(comment, encoding="utf-8")
    held_in_docs(comment)
    assert comment.index("Ends something that runs") < comment.index("Instance-hours")
    assert "**stop and start**" in comment

    applied = run_job(team, "apply", document)
    record = applied.bilbo.record(NAME)
    assert before < set(record["instances"])
    assert len(record["workers"]) == 2
    assert record["token"] == ada.bilbo.record(NAME)["token"]

    drift = run_job(team, "drift", document)
    assert "Nothing was changed outside Terraform." in (drift.folder / "drift.md").read_text()


def held_in_docs(comment: str) -> None:
    """The comment is what docs/gitops.md shows; BILBO_WRITE_DOCS=1 writes it there."""
    shown = re.sub(r"\b[0-9a-f]{64}\b", "0" * 64, comment)
    shown = re.sub(
        r"\b(i|ami|sg|lt|vol|subnet|eni)-[0-9a-f]{8,17}\b", r"\1-0123456789abcdef0", shown
    )
    shown = re.sub(r"\b127\.\d+\.\d+\.\d+\b(?!/)", "203.0.113.10", shown)
    shown = re.sub(r"ip-127-\d+-\d+-\d+", "ip-203-0-113-10", shown)
    shown = shown.replace("127.0.0.0/8", "203.0.113.0/24")
    text = DOCS.read_text(encoding="utf-8")
    begin, end = "<!-- generated: a reviewed change -->\n", "<!-- end -->"
    head, rest = text.split(begin)
    tail = rest.split(end, 1)[1]
    written = f"{head}{begin}{shown.rstrip()}\n{end}{tail}"
    if os.environ.get("BILBO_WRITE_DOCS"):
        DOCS.write_text(written, encoding="utf-8")
        return
    assert text == written, "docs/gitops.md is not what bilbo writes: BILBO_WRITE_DOCS=1 pytest …"


# -- what HCL does not hold -----------------------------------------------------------------


def test_what_hcl_does_not_hold(team: Team, ada: Machine, ben: Machine) -> None:
    """A command for the hosts is in every form of the review, and never "Nothing to do."; the
    shared state holds its hash alone, which who does not know it is told of."""
    document = team.shared(2)
    document["notebook"] = {"instance": {"ec2type": "t3.small"}}
    profile = ada.profile(document)
    assert "Nothing to do." in ada("plan", profile, "--detailed-exitcode").stdout

    command = "echo 'hidden' > seen.txt"
    given = ("-p", f'instance.init_cmd=["{command}"]', "-p", "dask.worker.nthread=2")
    planned = ada("plan", profile, "--detailed-exitcode", *given, code=2).stdout
    assert f'instance.init_cmd=["{command}"]' in planned
    assert f'init_cmd (notebook, scheduler, worker):\n      + "{command}"' in planned
    assert "nthread (worker): 1 -> 2" in planned
    assert "Nothing to do" not in planned
    marked = ada("plan", profile, *given, "--format", "markdown").stdout
    assert "**0 to add, 0 to change, 0 to destroy**, **2 settings of the hosts" in marked
    assert f'+     "{command}"' in marked
    document_shown = json.loads(ada("plan", profile, *given, "--json").stdout)
    fits_the_schema(document_shown)
    assert document_shown["overrides"] == list(given[1::2])
    assert {each["key"]: each["after"] for each in document_shown["settings"]} == {
        "init_cmd": [command], "nthread": 2
    }  # fmt: skip

    document["instance"]["init_cmd"] = [command]
    ada("create", ada.profile(document))
    assert command not in json.dumps(team.state())
    assert len(team.state()["outputs"]["host_side"]["value"]["worker"]["init_cmd"]) == 64
    assert "Nothing to do." in ada("plan", profile).stdout
    assert ada("create", profile).stdout == "Nothing to do.\n"
    not_known_to(ben, team.machine("cleo"), command, document)

    del document["instance"]["init_cmd"]
    said = ada("create", ada.profile(document)).stderr
    assert "The cluster was created with init_cmd, which a shared state omits" in said
    assert team.state()["outputs"]["host_side"]["value"]["worker"] == {}


def not_known_to(ben: Machine, cleo: Machine, command: str, document: dict[str, Any]) -> None:
    """What Ben is told, who attached the cluster before it came to have a command, and Cleo, whose
    machine has never seen it."""
    said = ben("scale", NAME, "3", code=1).stderr
    assert (
        "this machine's init_cmd differs from what the cluster was created with: "
        "notebook, scheduler, worker" in said
    )
    planned = cleo("plan", cleo.profile(document), "--detailed-exitcode").stdout
    assert f'(the same, says the shared state)\n        "{command}"' in planned
    assert "Nothing to do." in planned
    without = {**document, "instance": {**document["instance"], "init_cmd": ["echo other"]}}
    planned = cleo("plan", cleo.profile(without), "--detailed-exitcode", code=2).stdout
    assert '- (another, says the shared state)\n      + "echo other"' in planned
    key = str(cleo.folder / ".ssh" / "team.pem")
    said = cleo("attach", NAME, f"s3://{BUCKET}/bilbo", "-i", key).stderr
    assert "The cluster was created with init_cmd, which a shared state omits" in said


# -- refusals -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def change(team: Team) -> Path:
    """A reviewed plan of Ada's that nobody has applied: one worker more."""
    ada = team.machine("ada")
    document = team.shared(3)
    document["notebook"] = {"instance": {"ec2type": "t3.small"}}
    file = ada.path("change.plan")
    shown = ada("plan", ada.profile(document), "-o", file, "--format", "json").stdout
    fits_the_schema(json.loads(shown))
    team.machine("ben").profile(document)
    return Path(file)


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
    edited.parent.mkdir()
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
        ("serial", 1, "serial"),
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
    group = team.state()["outputs"]["notebook"]["value"]["instance_id"]
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
    assert group


# -- locks ----------------------------------------------------------------------------------


LOCK = "0c0ffee0-8fbc-be29-bbb4-3bc1b1eaa6f1"


def test_a_lock_of_somebody_else(team: Team, ben: Machine) -> None:
    """Who holds the state since when is told; `unlock` takes away that lock and no other."""
    lock = {"ID": LOCK, "Operation": "OperationTypeApply", "Who": "eve@laptop",
            "Version": "1.11.4", "Created": "2026-01-02T03:04:05.6Z", "Info": "",
            "Path": f"{BUCKET}/bilbo/{NAME}.tfstate"}  # fmt: skip
    key = f"bilbo/{NAME}.tfstate.tflock"
    team.s3().put_object(Bucket=BUCKET, Key=key, Body=json.dumps(lock).encode())
    told = ben("create", ben.path("team.json"), code=1).stderr
    assert "eve@laptop works on cluster 'team' (apply, since 2026-01-02 03:04:05 UTC)" in told
    assert f"bilbo unlock {NAME} {LOCK}" in told
    told = ben("plan", ben.path("team.json"), code=1).stderr
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
    for machine, count in ((ada, 3), (ben, 3)):
        document = team.shared(count)
        document["notebook"] = {"instance": {"ec2type": "t3.small"}}
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
    assert len(ada.bilbo.record(NAME)["workers"]) == 3


def test_destroyed_by_a_team_mate(team: Team, ben: Machine) -> None:
    """Who attached the cluster can destroy it; nothing of it is left."""
    local.calls(team.standin, reset=True)
    ben("destroy", NAME, "-y")
    permitted(team, "destroy")
    nothing_is_left(team.standin)
