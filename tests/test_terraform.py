"""Terraform as bilbo runs it: the exact argv, its surroundings, and what its stream says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from bilbo import process
from bilbo.addresses import RESOURCE_TYPES
from bilbo.errors import TerraformError
from bilbo.resources import folder
from bilbo.terraform import Terraform
from bilbo.terraform.environment import MIRROR, binary, environment
from bilbo.terraform.hints import hint_for
from bilbo.terraform.running import PID_FILE, Run, left_running
from bilbo.terraform.stream import outcome, parse, to_error


@pytest.fixture
def terraform(tmp_path: Path) -> Terraform:
    """Terraform in an empty cluster's folder."""
    root = tmp_path / "clusters" / "test" / "terraform"
    root.mkdir(parents=True)
    return Terraform(root.parent, {}, tmp_path)


def test_what_hangs_is_killed(tmp_path: Path) -> None:
    """A captured program has a deadline, and is told as one that failed."""
    began = time.monotonic()
    done = process.capture(["sleep", "60"], folder=tmp_path, environment=os.environ, seconds=0.3)
    assert time.monotonic() - began < 30
    assert done.returncode and done.stderr == "It did not end within 0 s, and was killed.\n"


def test_argv_is_what_terraform_is_given(terraform: Terraform) -> None:
    """python-terraform builds exactly this argv, with and without options."""
    from python_terraform import IsFlagged

    program = binary(dict(os.environ))
    assert terraform.argv("plan") == [program, "plan"]
    assert terraform.argv(
        "apply", "a plan", json=IsFlagged, input=False, refresh_only=IsFlagged
    ) == [
        program,
        "apply",
        "-json",
        "-input=false",
        "-refresh-only",
        "a plan",
    ]


def test_nothing_of_the_callers_shell_changes_what_is_asked(tmp_path: Path) -> None:
    """Stray TF_ variables are dropped, an empty extra removes, what bilbo needs is set."""
    base = {
        "TF_LOG": "TRACE",
        "TF_CLI_ARGS_plan": "-lock=false",
        "TF_WORKSPACE": "x",
        "PATH": "/bin",
        "TF_VAR_kept": "1",
        "AWS_PROFILE": "me",
    }
    found = environment(base, {"AWS_PROFILE": "", "AWS_REGION": "here"}, tmp_path)
    assert not {"TF_LOG", "TF_CLI_ARGS_plan", "TF_WORKSPACE", "AWS_PROFILE"} & found.keys()
    assert found["TF_VAR_kept"] == "1"
    assert found["AWS_REGION"] == "here"
    assert found["TF_IN_AUTOMATION"] == "1"


def test_a_missing_cli_configuration_is_no_hindrance(tmp_path: Path) -> None:
    """TF_CLI_CONFIG_FILE that names no file is dropped; one that exists is left alone."""
    base = {"TF_CLI_CONFIG_FILE": str(tmp_path / "none"), "HOME": str(tmp_path)}
    found = environment(base, {}, tmp_path)
    mirrors = list(Path("/opt").glob(f"*/{MIRROR}/hashicorp/aws"))
    if mirrors:
        text = Path(found["TF_CLI_CONFIG_FILE"]).read_text()
        assert str(mirrors[0].parents[2]) in text
        assert "direct" in text
    else:
        assert "TF_CLI_CONFIG_FILE" not in found
    own = tmp_path / "own.rc"
    own.touch()
    found = environment({"TF_CLI_CONFIG_FILE": str(own)}, {}, tmp_path)
    assert found["TF_CLI_CONFIG_FILE"] == str(own)


def test_without_terraform_there_is_one_clear_error() -> None:
    """Neither terraform nor tofu on PATH is a named error with where to get it."""
    with pytest.raises(TerraformError, match="neither terraform nor tofu"):
        binary({"PATH": "/nowhere"})


def test_the_stream_is_read() -> None:
    """Changes, drift, errors and outputs come from the lines; noise is passed over."""
    lines = [
        "not json",
        json.dumps(
            {
                "type": "planned_change",
                "change": {
                    "resource": {"addr": "a.b", "resource_type": "a"},
                    "action": "replace",
                    "reason": "tainted",
                },
            }
        ),
        json.dumps(
            {
                "type": "planned_change",
                "change": {
                    "resource": {"addr": "data.c.d", "resource_type": "c"},
                    "action": "read",
                },
            }
        ),
        json.dumps(
            {
                "type": "diagnostic",
                "diagnostic": {
                    "severity": "error",
                    "summary": "no",
                    "detail": "InvalidAMIID.NotFound",
                    "address": "a.b",
                },
            }
        ),
        json.dumps(
            {"type": "outputs", "outputs": {"x": {"value": [1]}, "later": {"action": "create"}}}
        ),
    ]
    found = outcome(filter(None, map(parse, lines)), 1)
    assert [change.action for change in found.changes] == ["replace"]
    assert found.destructive == found.changes
    assert found.outputs == {"x": [1]}
    assert not found.ok
    error = to_error(found, "it failed", Path("the log"))
    assert error.details == ("a.b: no", "  InvalidAMIID.NotFound")
    assert "profile's ami" in error.hint


def test_an_end_that_nobody_saw_is_told_from_the_stream() -> None:
    """Without an exit code, an apply that reached its summary went well, and one cut did not."""
    summary = {"type": "change_summary", "changes": {"operation": "apply"}}
    assert outcome([summary], None).ok
    assert not outcome([], None).ok


@pytest.mark.parametrize(
    ("message", "permission"),
    [
        ("x is not authorized to perform: iam:PassRole on resource", "iam:PassRole"),
        ("operation error EC2: RunInstances, api error UnauthorizedOperation", "ec2:RunInstances"),
        (
            "operation error Auto Scaling: CreateAutoScalingGroup, AccessDenied: no",
            "autoscaling:CreateAutoScalingGroup",
        ),
    ],
)
def test_a_missing_permission_is_named(message: str, permission: str) -> None:
    """The hint names the permission that AWS's message is about."""
    assert permission in hint_for(message)


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        (
            "You have requested more vCPU capacity than your current vCPU limit of 32 allows for "
            "the instance bucket that the specified instance type belongs to.",
            "Service Quotas",
        ),
        ("api error VcpuLimitExceeded: You have requested more", "Service Quotas"),
        (
            "operation error Auto Scaling: CreateAutoScalingGroup, api error AccessDenied: You are "
            "not authorized to use launch template: lt-0123456789abcdef0",
            "ec2:RunInstances",
        ),
        ("failed to refresh cached credentials, the SSO session has expired", "aws sso login"),
        ("refresh cached SSO token failed, unable to refresh SSO token", "aws sso login"),
        ("api error InvalidGroup.Duplicate: The security group 'x-bilbo' already exists", "-n"),
        ("api error InvalidGroup.NotFound: sg-1 does not exist", "security_group"),
        (
            "api error Unsupported: Your requested instance type (p4d) is not supported in your "
            "requested Availability Zone (us-east-1e).",
            "another zone",
        ),
        ("api error PendingVerification: Your request is being validated", "4 hours"),
        ("api error OptInRequired: You are not subscribed to this service", "Marketplace"),
        ("Client.InternalError: Client error on launch", "KMS key"),
        (
            "api error InvalidBlockDeviceMapping: Volume of size 8GB is smaller than snapshot "
            "'snap-1', expect size >= 30GB",
            "vol_size",
        ),
        ("failed to get shared config profile, nobody", "list-profiles"),
    ],
)
def test_what_aws_says_has_its_remedy(message: str, advice: str) -> None:
    """Messages as AWS documents them, or as users quote them, lead to what helps."""
    assert advice in hint_for(message)


def test_init_runs_once(terraform: Terraform) -> None:
    """`init` is skipped while nothing that it looks at has changed."""
    terraform.write({"main.tf": "terraform {\n}\n"})
    assert terraform.init()
    assert not terraform.init()
    terraform.write(
        {"main.tf": 'terraform {\n}\n\nmodule "m" {\n  source = "./m"\n}\n', "m/main.tf": ""}
    )
    assert terraform.init()
    assert not (terraform.folder / "terraform.tfstate").exists()


def test_the_folder_holds_just_what_was_rendered(terraform: Terraform) -> None:
    """What an earlier rendering left is removed, Terraform's own files are kept."""
    terraform.write({"main.tf": "", "modules/a/main.tf": ""})
    (terraform.folder / ".terraform").mkdir()
    (terraform.folder / ".terraform" / "own.tf").touch()
    terraform.write({"main.tf": ""})
    left = sorted(path.name for path in terraform.folder.rglob("*.tf"))
    assert left == ["main.tf", "own.tf"]


def test_the_backend_is_told_and_not_read_from_hcl(terraform: Terraform) -> None:
    """What the files were rendered for is kept beside them; from before, `init` has kept it. What
    is damaged is nothing."""
    backend = {"bucket": "b", "key": "k/c.tfstate", "region": "r"}
    terraform.write({"main.tf": ""}, {"backend": backend, "owner": "0" * 16})
    assert terraform.backend() == backend and terraform.told()["owner"] == "0" * 16
    told = terraform.cluster_folder / "rendered.json"
    told.unlink()
    assert terraform.backend() == {}
    recorded = terraform.folder / ".terraform" / "terraform.tfstate"
    recorded.parent.mkdir()
    recorded.write_text(json.dumps({"backend": {"config": {**backend, "encrypt": True}}}))
    assert terraform.backend() == backend
    for text in ("{", "[]", '{"backend": 1}', '{"backend": {"config": null}}'):
        recorded.write_text(text)
        told.write_text(text)
        assert terraform.backend() == {}, text


def test_the_types_of_the_modules() -> None:
    """The list of what may change in a reviewed plan is what the modules hold."""
    modules = folder("templates") / "terraform" / "modules"
    text = "\n".join(path.read_text(encoding="utf-8") for path in modules.rglob("*.tf"))
    found = set(re.findall(r'^(?:resource|data) "(\w+)"', text, re.MULTILINE))
    assert found == RESOURCE_TYPES


def test_a_terraform_that_was_only_just_started(tmp_path: Path) -> None:
    """A bilbo killed before it knew the number of its Terraform: that is found by where it works
    and by its arguments. Whoever else is in that folder is not taken for it."""
    folder = tmp_path / "terraform"
    folder.mkdir()
    run = Run(0, 0.0, "apply", str(tmp_path / "log"), str(folder), ("apply", "-json"))
    (tmp_path / PID_FILE).write_text(json.dumps(asdict(run)))
    program = "import time; time.sleep(60)"
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, cwd=folder) as shell:
        assert left_running(tmp_path) is None
        with subprocess.Popen([*words, "apply", "-json"], cwd=folder) as terraform:
            wait_for_argv(terraform.pid)
            found = left_running(tmp_path)
            assert found is not None and found.pid == terraform.pid
            terraform.kill()
        assert left_running(tmp_path) is None
        shell.kill()


def wait_for_argv(pid: int) -> None:
    """Until a process has become the program that was started."""
    deadline = time.monotonic() + 10
    while psutil.Process(pid).cmdline()[-1:] != ["-json"]:  # empty just before it starts
        assert time.monotonic() < deadline
        time.sleep(0.01)
