"""The crash contract of `cluster/apply.py`, row by row: killed at each step, what the record says,
and what `create` and `destroy` then do."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, Running, clients, nothing_is_left

from bilbo import local


@dataclass(frozen=True)
class Step:
    """Where bilbo is killed: once `reached` holds for the cluster's folder; `record` is what is
    left, None for no record."""

    name: str
    reached: Callable[[Path], bool]
    record: str | None
    with_terraform: bool = False


def status(folder: Path) -> str | None:
    """What the record in a cluster's folder says; None where there is none."""
    try:
        found = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
    except OSError:
        return None
    return str(found["status"])


def applying(folder: Path) -> bool:
    """Terraform has written of a resource."""
    return terraform_pid(folder) > 0 and (folder / "terraform" / "terraform.tfstate").is_file()


def terraform_pid(folder: Path) -> int:
    """The number of the Terraform that works on a cluster; 0 for none, or not yet known."""
    try:
        return int(json.loads((folder / "terraform.pid").read_text(encoding="utf-8"))["pid"])
    except OSError:
        return 0


STEPS = (
    Step("prepared", lambda folder: (folder / "terraform" / "main.tf").is_file(), None),
    Step("begun", lambda folder: status(folder) == "creating", "creating"),
    Step("applying", applying, "creating"),
    Step("both", applying, "creating", with_terraform=True),
    Step("starting", lambda folder: status(folder) == "starting", "starting"),
    Step("judged", lambda folder: status(folder) == "ready", "ready"),
)
DESTROYING = Step("destroying", applying, "destroying")
# After these, the first followed by `create`, the second by `destroy`.
THEN_DESTROYING = STEPS[:2]


def kill(process: psutil.Process | subprocess.Popen[str]) -> None:
    """kill -9, and until it is gone."""
    process.kill()
    process.wait()


def kill_at(bilbo: Bilbo, step: Step, name: str, profile: str) -> None:
    """Brings a cluster to a step, and kills bilbo there."""
    folder = bilbo.home / "clusters" / name
    words = ("--local", "create", profile, "-n", name)
    running = Running(bilbo.start(*(("destroy", name, "-y") if step is DESTROYING else words)))
    deadline = time.monotonic() + 120
    while not step.reached(folder):
        assert time.monotonic() < deadline, running.said
        time.sleep(0.01)
    if step.with_terraform:
        running.process.kill()
        kill(psutil.Process(terraform_pid(folder)))
    kill(running.process)
    assert status(folder) == step.record, name


def completed(bilbo: Bilbo, name: str, profile: str) -> None:
    """`create` brings a cluster to its end, wherever it was."""
    bilbo("--local", "create", profile, "-n", name)
    assert bilbo.record(name)["status"] == "ready", name
    _, groups = clients(bilbo.home)
    (group,) = groups.describe_auto_scaling_groups(AutoScalingGroupNames=[f"{name}-dask-worker"])[
        "AutoScalingGroups"
    ]
    closed = {each["ProcessName"] for each in group["SuspendedProcesses"]}
    assert closed == {"AZRebalance", "Launch", "ReplaceUnhealthy"}, name


def destroyed(bilbo: Bilbo, name: str) -> None:
    """`destroy` ends a cluster; one without a record it does not know."""
    folder = bilbo.home / "clusters" / name
    known = status(folder) is not None
    said = bilbo("destroy", name, "-y", code=0 if known else 1).stderr
    assert known or f"there is no cluster {name!r}" in said
    assert status(folder) is None


@pytest.mark.timeout(600)
def test_killed_at_each_step(bilbo: Bilbo) -> None:
    """Each step, twice: `create` completes the one, `destroy` leaves nothing of the other.

    What `create` has completed serves the step that needs a cluster, killed while it destroys.
    """
    local.start(bilbo.home)
    profile = bilbo.profile("contract", {"instance": INSTANCE, "dask": {"worker": ONE_PROCESS}})

    def trial(step: Step) -> None:
        kill_at(bilbo, step, f"{step.name}-destroy", profile)
        destroyed(bilbo, f"{step.name}-destroy")
        name = f"{step.name}-create"
        kill_at(bilbo, step, name, profile)
        completed(bilbo, name, profile)
        if step in THEN_DESTROYING:
            kill_at(bilbo, DESTROYING, name, profile)
        if step is THEN_DESTROYING[0]:
            completed(bilbo, name, profile)
        destroyed(bilbo, name)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(trial, STEPS))
    nothing_is_left(bilbo.home)
