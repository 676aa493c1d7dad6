"""Ctrl-C and kill -9 at every stage: nothing is lost, nothing is orphaned, the lock is free."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, Running, clients, nothing_is_left
from reliability import errors, told

from bilbo import local
from bilbo.terraform.environment import binary

# What is killed, and after how many seconds, when `make chaos` does not say how often.
MOMENTS = int(os.environ.get("BILBO_CHAOS", "1"))
LEFT = "nothing, after `bilbo destroy`"


@pytest.fixture(scope="module")
def profile(bilbo: Bilbo) -> str:
    """A scheduler and a worker: one instance, one group."""
    return bilbo.profile("cut", {"instance": INSTANCE, "dask": {"worker": ONE_PROCESS}})


def test_ctrl_c_during_plan(bilbo: Bilbo, profile: str) -> None:
    """Ctrl-C in the middle of plan ends with 130, and nothing exists."""
    running = Running(bilbo.start("-v", "--local", "plan", profile))
    wait_for_terraform(bilbo)
    running.interrupt()
    assert running.end() == 130
    told("Ctrl-C during `plan`", errors(running.said), 130, "nothing")
    assert bilbo("clusters").stdout == ""
    nothing_is_left(bilbo.home)


def test_ctrl_c_during_apply_and_destroy(bilbo: Bilbo, profile: str) -> None:
    """Two Ctrl-C during apply: state saved, lock free, create goes on; the same for destroy."""
    running = Running(bilbo.start("--local", "create", profile))
    running.wait_for("Created module.security_group")
    running.interrupt(times=2)
    assert running.end() == 130
    told("Ctrl-C, twice, while Terraform creates", errors(running.said), 130, LEFT)

    running = Running(bilbo.start("create", profile))
    running.wait_for("Start dask scheduler")
    running.interrupt()
    assert running.end() == 130
    told("Ctrl-C while the services start", errors(running.said), 130, LEFT)
    bilbo("create", profile)
    assert bilbo.record("cut")["status"] == "ready"

    running = Running(bilbo.start("destroy", "cut", "-y"))
    running.wait_for("Destroyed module.worker.aws_autoscaling_group")
    running.interrupt(times=2)
    assert running.end() == 130
    told("Ctrl-C, twice, while Terraform destroys", errors(running.said), 130, LEFT)
    bilbo("destroy", "cut", "-y")
    nothing_is_left(bilbo.home)


def test_bilbo_is_killed(bilbo: Bilbo, profile: str) -> None:
    """kill -9 of bilbo: Terraform goes on to its end, and the next command takes its outcome."""
    running = Running(bilbo.start("--local", "create", profile))
    running.wait_for("Created module.security_group")
    running.process.kill()
    running.process.wait()
    # Terraform itself suspends what the group must not do, once it is complete.
    _, groups = clients(bilbo.home)
    deadline = time.monotonic() + 120
    while not any(
        len(group["SuspendedProcesses"]) == 3
        for group in groups.describe_auto_scaling_groups()["AutoScalingGroups"]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    held = bilbo("create", profile)
    assert "The Terraform of an earlier bilbo has ended" in held.stderr
    assert bilbo.record("cut")["status"] == "ready"
    told("`kill -9` of bilbo while Terraform creates; then `create` again",
         first_lines(held.stderr, "The Terraform of"), 0, LEFT)  # fmt: skip

    running = Running(bilbo.start("destroy", "cut", "-y"))
    running.wait_for("Destroyed module.worker.aws_autoscaling_group")
    running.process.kill()
    running.process.wait()
    bilbo("destroy", "cut", "-y")
    nothing_is_left(bilbo.home)


def test_terraform_is_killed_while_a_machine_is_made(bilbo: Bilbo, profile: str) -> None:
    """kill -9 of both after RunInstances: create takes what runs, and makes no second one."""
    running = Running(bilbo.start("--local", "create", profile))
    # While it makes the scheduler's machine Terraform writes a state that has only its address.
    running.wait_for("Created module.worker.aws_autoscaling_group.this")
    machine = scheduler(bilbo.home)
    running.process.kill()
    kill(terraforms(bilbo.home))
    running.process.wait()
    again = bilbo("create", profile)
    assert f"Found by tag, imported into Terraform's state: {machine}\n" in again.stderr
    record = bilbo.record("cut")
    assert (record["status"], record["scheduler"]["instance_id"]) == ("ready", machine)
    assert scheduler(bilbo.home) == machine
    bilbo("destroy", "cut", "-y")
    nothing_is_left(bilbo.home)


def test_terraform_is_killed_while_a_group_is_made(bilbo: Bilbo, profile: str) -> None:
    """kill -9 of both while a group waits for capacity: create takes it, destroy ends it."""
    _, groups = clients(bilbo.home)
    for word in ("imported into Terraform's state", "will be destroyed too"):
        local.inject(bilbo.home, "capacity=0")
        running = Running(bilbo.start("--local", "create", profile))
        deadline = time.monotonic() + 60
        while not groups.describe_auto_scaling_groups()["AutoScalingGroups"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.process.kill()
        kill(terraforms(bilbo.home))
        running.process.wait()
        # Had it been killed a moment sooner, the group would not stand in the state. Terraform
        # writes it after each resource, in any order: the zone may be missing, too.
        folder = bilbo.home / "clusters" / "cut" / "terraform"
        terraform = binary(bilbo.environment())
        for lost in (
            "module.worker.aws_autoscaling_group.this",
            "module.network.terraform_data.availability_zone",
        ):
            subprocess.run([terraform, "state", "rm", lost], cwd=folder, check=False)
        local.inject(bilbo.home, "clear")
        command = ("create", profile) if "imported" in word else ("destroy", "cut", "-y")
        assert f"Found by tag, {word}: cut-dask-worker\n" in bilbo(*command).stderr
        if "imported" in word:
            assert bilbo.record("cut")["status"] == "ready"
            (made,) = groups.describe_auto_scaling_groups()["AutoScalingGroups"]
            closed = {each["ProcessName"] for each in made["SuspendedProcesses"]}
            assert closed == {"AZRebalance", "Launch", "ReplaceUnhealthy"}
            bilbo("destroy", "cut", "-y")
        nothing_is_left(bilbo.home)


def scheduler(home: Path) -> str:
    """The only instance with the role of a scheduler, once there is one."""
    ec2, _ = clients(home)
    by_role = [
        {"Name": "tag:bilbo:role", "Values": ["scheduler"]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]
    deadline = time.monotonic() + 60
    while not (found := ec2.describe_instances(Filters=by_role)["Reservations"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (instance,) = found[0]["Instances"]
    assert len(found) == 1
    return str(instance["InstanceId"])


def first_lines(text: str, start: str) -> str:
    """The lines of `text` that begin with `start`."""
    return "\n".join(line for line in text.splitlines() if line.startswith(start))


def terraforms(home: Path) -> list[psutil.Process]:
    """Terraform's processes in a home, providers included."""
    found = []
    for process in psutil.process_iter():
        try:
            if "terraform" in process.name() and process.cwd().startswith(str(home)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill(processes: list[psutil.Process]) -> None:
    """kill -9 of those that have not ended by themselves meanwhile."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def wait_for_terraform(bilbo: Bilbo) -> None:
    """Until Terraform's provider runs, which is when it looks at AWS."""
    deadline = time.monotonic() + 60
    while not any("provider" in process.name() for process in terraforms(bilbo.home)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.timeout(300 + 300 * MOMENTS)
def test_everything_is_killed_at_any_moment(bilbo: Bilbo, profile: str) -> None:
    """kill -9 of Terraform, of bilbo, and of both, at random moments: nothing is orphaned."""
    chance = random.Random(os.environ.get("BILBO_CHAOS_SEED", time.time_ns()))
    adopted = 0
    for number in range(MOMENTS):
        what = ("terraform", "both", "bilbo")[number % 3]
        while_destroying = number % 4 == 3
        if while_destroying:
            bilbo("--local", "create", profile)
        command = ("destroy", "cut", "-y") if while_destroying else ("create", profile)
        running = Running(bilbo.start("--local", *command))
        wait_for_terraform(bilbo)
        moment = chance.uniform(0, 18)
        time.sleep(moment)
        if what != "terraform":
            running.process.kill()
        if what != "bilbo":
            kill(terraforms(bilbo.home))
        running.process.wait(timeout=120)
        if number % 2 and not while_destroying:
            again = bilbo("--local", "create", profile)
            adopted += again.stderr.count("Found by tag")
            assert bilbo.record("cut")["status"] == "ready"
        if bilbo("clusters").stdout:
            done = bilbo("destroy", "cut", "-y")
            adopted += done.stderr.count("Found by tag")
        nothing_is_left(bilbo.home)
        print(f"moment {number}: {what} killed after {moment:.1f} s of {command[0]}")
    print(f"{MOMENTS} moments, {adopted} resources were in no state and found by their tag")
