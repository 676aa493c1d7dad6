"""A state that Terraform could not write: said in time, named, and written before anything else."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from bilbo_cli import Running, clients
from reliability import told
from teams import BUCKET, NAME, Machine, Team

from bilbo import local
from bilbo.aws import Lock
from bilbo.cluster.unwritten import is_left_behind
from bilbo.terraform import Diagnostic, Outcome, Terraform
from bilbo.terraform.state_files import set_aside


def machines(team: Team) -> list[str]:
    """The ids of the instances that run."""
    ec2, _ = clients(team.standin)
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    found = ec2.describe_instances(Filters=alive)["Reservations"]
    return [each["InstanceId"] for one in found for each in one["Instances"]]


@pytest.mark.standin
@pytest.mark.programs
def test_credentials_that_expire_midway(team: Team, ada: Machine) -> None:
    """The cause is said while Terraform still waits; the state that it could not write is named,
    the next `create` writes it, and keeps the machine that it lists."""
    team.s3().create_bucket(Bucket=BUCKET)
    document = team.shared()
    del document["dask"]
    profile = ada.profile(document)
    running = Running(ada.bilbo.start("create", profile, **ada.environment))
    deadline = time.monotonic() + 300
    while not machines(team):
        assert time.monotonic() < deadline, running.said
        time.sleep(0.1)
    local.inject(team.standin, "expired")
    running.wait_for("AWS does not accept the credentials any more", 120)
    running.interrupt()
    assert running.end() == 130
    errored = ada.bilbo.home / "clusters" / NAME / "terraform" / "errored.tfstate"
    assert f"What exists is in {errored}" in running.said
    lines = running.said[running.said.index("AWS does not accept") :].splitlines()
    cause = "\n".join(line for line in lines if not line.startswith("  still creating"))
    told("The credentials expire while Terraform creates, with a shared state; then Ctrl-C", cause,
         130, "what exists, in that file; the next `create` writes it first")  # fmt: skip
    assert errored.is_file()
    local.inject(team.standin, "clear")
    (machine,) = machines(team)
    done = ada("create", profile)
    assert f"Wrote the state that an earlier Terraform could not write: {errored}" in done.stderr
    assert "Removing the lock that an earlier Terraform could not release." in done.stderr
    assert "imported" not in done.stderr
    assert machines(team) == [machine]
    assert not errored.exists()
    assert team.state()["resources"]


@pytest.mark.parametrize(
    ("who", "created", "is_own"),
    [
        (f"ada@{socket.gethostname()}", "2026-01-02 03:04:05", True),
        (f"ada@{socket.gethostname()}", "2026-01-02 03:04:06", False),  # a later one
        ("ben@elsewhere", "2026-01-02 03:04:05", False),
        (f"ada@{socket.gethostname()}", "", False),
    ],
)
def test_whose_lock_is_removed(tmp_path: Path, who: str, created: str, is_own: bool) -> None:
    """Only one of this machine, from before its Terraform gave up."""
    path = tmp_path / "errored.tfstate"
    path.touch()
    os.utime(path, (1767323045.9, 1767323045.9))  # 2026-01-02 03:04:05 UTC
    assert is_left_behind(Lock("1", who, "apply", created), path) is is_own


def test_a_state_that_was_cut_off(tmp_path: Path) -> None:
    """It is not pushed, but set aside; Terraform's backup takes its place."""
    terraform = Terraform(tmp_path, {}, tmp_path)
    terraform.folder.mkdir()
    errored, state = (terraform.folder / name for name in ("errored.tfstate", "terraform.tfstate"))
    state.touch()
    assert terraform.cut_off == []  # as Terraform leaves it before it has a state
    errored.touch()
    state.write_text('{"version": 4, "resour')
    (terraform.folder / "terraform.tfstate.backup").write_text('{"serial": 3}')
    assert terraform.unwritten is None
    assert terraform.cut_off == [errored, state]
    assert [set_aside(path).name for path in terraform.cut_off] == [
        "errored.tfstate.cut-off",
        "terraform.tfstate.cut-off",
    ]
    assert state.read_text() == '{"serial": 3}' and not errored.exists()
    assert terraform.cut_off == []


def test_an_error_names_the_unwritten_state(tmp_path: Path) -> None:
    """Terraform's own error says where what exists is, and only where there is such a file."""
    terraform = Terraform(tmp_path, {}, tmp_path)
    failed = Outcome(1, diagnostics=(Diagnostic("error", "Failed to save state"),))
    assert "errored.tfstate" not in str(terraform.error(failed, "it failed"))
    terraform.folder.mkdir()
    (terraform.folder / "errored.tfstate").write_text("{}")
    said = str(terraform.error(failed, "it failed"))
    assert f"What exists is in {terraform.folder / 'errored.tfstate'}; keep that file." in said
