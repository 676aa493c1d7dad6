"""Plans that a team reviews and then gets exactly, from a state of one's own to the team's.

The tests share one cluster. Each asks for the fixture that has brought it as far as it needs it:
`at_home` on Ada's machine alone, `moved` into the team's bucket, `attached` by Ben.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from teams import (
    BUCKET,
    DOCS,
    NAME,
    PROJECT,
    Machine,
    Team,
    allowed,
    attach,
    fits_the_schema,
    instances,
    permitted_objects,
    read_folder,
)

from bilbo import bundle
from bilbo.cluster.state_bucket import variables
from bilbo.model import Target
from bilbo.terraform.environment import environment as terraform_environment

EXAMPLE = PROJECT / "examples" / "gitops"


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

    ami = team.document()["instance"]["ami"]
    known = f'root_devices = {{ "{ami}" = "/dev/sda1" }}\n'
    (ben.folder / "hcl" / "terraform.tfvars").write_text(known, encoding="utf-8")
    # Terraform's own way to its providers, as bilbo finds it on this machine.
    environment = terraform_environment(
        ben.bilbo.environment(**ben.environment), {}, ben.bilbo.home
    )
    for arguments in (["fmt", "-check", "-recursive"], ["init"], ["plan", "-input=false"]):
        subprocess.run(
            ["terraform", *arguments],
            cwd=ben.folder / "hcl", env=environment, check=True, capture_output=True,
        )  # fmt: skip


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


@dataclass(frozen=True)
class AtHome:
    """A cluster made of a reviewed plan, and what was said: of the plan, when Ben tried it, when
    Ada applied it, and when she did so again."""

    file: Path
    planned: str
    tried: str
    created: str
    again: str


@pytest.fixture(scope="module")
def at_home(team: Team) -> AtHome:
    """Ada's cluster, its state in her home."""
    ada, ben = team.machine("ada"), team.machine("ben")
    profile, file = ada.profile(team.document()), Path(ada.path("first.plan"))
    planned = ada("plan", profile, "-o", str(file)).stdout
    theirs, copied = ben.profile(team.document()), ben.path("first.plan")
    shutil.copy(file, copied)
    tried = ben("create", theirs, "--plan", copied, code=1).stderr
    assert ben("clusters").stdout == ""
    reviewed = ("create", profile, "--plan", str(file))
    with allowed(team, "apply", team.document()):
        created = ada(*reviewed, "--digest", bundle.read(file).digest).stdout
    return AtHome(file, planned, tried, created, ada(*reviewed, code=1).stderr)


def test_a_plan_of_a_local_state(at_home: AtHome) -> None:
    """A bundle is private, refused on any machine but its own, and there applied exactly."""
    assert stat.S_IMODE(at_home.file.stat().st_mode) == 0o600
    digest = bundle.read(at_home.file).digest
    assert f"--plan {at_home.file} --digest {digest}" in at_home.planned
    assert "applying it here would create a second cluster" in at_home.tried
    assert "Name: team" in at_home.created
    assert "serial" in at_home.again


def test_a_plan_without_access(team: Team, ada: Machine) -> None:
    """A bundle holds no address of who made it: the profile must name the networks."""
    no_access = {k: v for k, v in team.document().items() if k != "access"}
    (ada.folder / "open.json").write_text(json.dumps(no_access), encoding="utf-8")
    said = ada("plan", ada.path("open.json"), "-o", ada.path("open.plan"), code=1).stderr
    assert "access.cidrs" in said


# -- shared state ---------------------------------------------------------------------------


@pytest.mark.usefixtures("bucket")
def test_a_bucket_for_states(team: Team, ada: Machine) -> None:
    """The bucket is versioned, encrypted and private, and its root refuses to destroy it."""
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


@dataclass(frozen=True)
class Moved:
    """A cluster whose state has moved into the bucket: Ada's local state before, and the two
    after; what `plan` said before."""

    local_state: dict[str, Any]
    left: str
    shared_state: dict[str, Any]
    planned: str


@pytest.fixture(scope="module")
def moved(team: Team, at_home: AtHome, bucket: str) -> Moved:
    """Ada's cluster, its state now in the bucket."""
    ada = team.machine("ada")
    before = instances(ada)
    path = ada.bilbo.home / "clusters" / NAME / "terraform" / "terraform.tfstate"
    local_state = json.loads(path.read_text(encoding="utf-8"))
    profile = ada.profile(team.shared())
    planned = ada("plan", profile, code=1).stderr
    ada("create", profile)
    assert instances(ada) == before
    return Moved(local_state, path.read_text(encoding="utf-8"), team.state(), planned)


def test_local_to_shared(team: Team, ada: Machine, moved: Moved) -> None:
    """Moving the state into the bucket is never done by a plan, and loses nothing."""
    assert "not yet where the profile keeps it" in moved.planned
    assert resource_ids(moved.shared_state) == resource_ids(moved.local_state)
    owner = ada.bilbo.record(NAME)["owner"]
    for state in (moved.local_state, moved.shared_state):
        assert owner and state["outputs"]["owner"]["value"] == owner
    assert not moved.left.strip()
    said = ada("create", ada.profile(team.document()), code=1).stderr
    assert "is shared at s3://" in said


def resource_ids(state: dict[str, Any]) -> set[tuple[str, str]]:
    """The resources of a state, by type and id."""
    return {
        (resource["type"], instance["attributes"]["id"])
        for resource in state["resources"]
        if resource["mode"] == "managed"
        for instance in resource["instances"]
    }


@pytest.fixture(scope="module")
def attached(team: Team, moved: Moved) -> None:
    """The team's cluster, which Ben has attached."""
    attach(team.machine("ben"))


@pytest.mark.usefixtures("attached")
def test_attach(team: Team, ada: Machine, ben: Machine) -> None:
    """With the state's address and the key alone, a team-mate has the cluster as its maker has."""
    assert instances(ben) == instances(ada)
    known = [machine.bilbo.record(NAME) for machine in (ada, ben)]
    assert len({(each["owner"], each["account"]) for each in known}) == 1
    for machine in (ada, ben):
        machine("render", machine.profile(team.shared()), "-o", machine.path("shared"))
    ours, theirs = (read_folder(machine.folder / "shared") for machine in (ada, ben))
    assert ours == theirs
    assert known[0]["owner"].encode() in ours["main.tf"]
    assert b"allowed_account_ids" not in ours["main.tf"]
    costs = [json.loads(each("cost", NAME, "--json").stdout)[0] for each in (ada, ben)]
    assert [each["from_the_beginning"] for each in costs] == [True, False]
    starts = [{m["instance_id"]: m["runs"][0]["start"] for m in each["machines"]} for each in costs]
    assert starts[1].items() <= starts[0].items() and len(starts[1]) == 3
    assert "Known since" in ben("cost", NAME).stdout
    url = ("notebook", NAME, "-u")
    assert ben(*url).stdout == ada(*url).stdout
    assert ben("rcmd", NAME, "all", "echo here").stdout.count("here") == 3
    said = ben("attach", NAME, f"s3://{BUCKET}/bilbo", code=1).stderr
    assert "is already known here" in said
    said = ben("attach", "nobody", f"s3://{BUCKET}/bilbo", code=1).stderr
    assert "no cluster 'nobody' in s3://" in said


@pytest.mark.usefixtures("attached")
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
    with allowed(team, job, document):
        run_steps(steps, machine, environment, code)
    return machine


def run_steps(
    steps: list[dict[str, Any]], machine: Machine, environment: dict[str, str], code: int
) -> None:
    """Runs a job's steps until one fails, and then those for a failure; the last code is `code`."""
    failed = 0
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


@pytest.mark.usefixtures("attached")
def test_the_workflow(team: Team, ada: Machine) -> None:
    """The example's jobs, as they stand: plan with a comment, apply of exactly that, drift."""
    if team.present() != team.shared():
        ada("create", ada.profile(team.shared()), "-y")
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


@pytest.mark.usefixtures("attached")
def test_what_hcl_does_not_hold(team: Team, ada: Machine, ben: Machine) -> None:
    """A command for the hosts is in every form of the review, and never "Nothing to do."; the
    shared state holds its hash alone, which who does not know it is told of."""
    document = team.present()
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
