"""Records, locks, disks and the stand-in itself: what is lost is named, and nothing else is."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from bilbo_cli import INSTANCE, Bilbo, Running, clients, nothing_is_left
from reliability import errors, told

from bilbo import local

LEFT = "nothing, after `bilbo destroy`"


@pytest.fixture(scope="module")
def profile(bilbo: Bilbo) -> str:
    """A notebook alone."""
    return bilbo.profile("kept", {"instance": INSTANCE, "notebook": {}})


def test_two_at_once_then_a_damaged_record(bilbo: Bilbo, profile: str) -> None:
    """Of two creates one wins; a damaged record is named, and create mends it from the state."""
    first = Running(bilbo.start("--local", "create", profile))
    first.wait_for("Create notebook.")
    second = bilbo("--local", "create", profile, code=1)
    assert "works on cluster 'kept'" in second.stderr
    told("Two `create` of one name at once", errors(second.stderr), 1,
         "what the first one makes")  # fmt: skip
    third = bilbo("destroy", "kept", "-y", code=1)
    assert "`bilbo create`" in third.stderr
    told("`destroy` while `create` runs", errors(third.stderr), 1, "what `create` makes")
    assert first.end() == 0, first.said

    before = bilbo.record("kept")
    path = bilbo.home / "clusters" / "kept" / "cluster.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    said = bilbo("desc", "kept", code=1).stderr
    assert "damaged" in said
    told("The record is truncated", errors(said), 1, "the cluster, as it was")
    bilbo("--local", "create", profile)
    after = bilbo.record("kept")
    assert after["status"] == "ready"
    assert after["instances"] == before["instances"]
    assert after["notebook_url"] == before["notebook_url"]

    path.write_text(json.dumps({**after, "version": 99}))
    said = bilbo("destroy", "kept", "-y", code=1).stderr
    assert "version 99" in said
    told("The record was written by a newer bilbo", errors(said), 1, "the cluster, as it was")

    path.unlink()
    assert bilbo("clusters").stdout == "kept\n"
    said = bilbo("desc", "kept", code=1).stderr
    told("The record is deleted, Terraform's state remains", errors(said), 1,
         "the cluster, as it was")  # fmt: skip
    bilbo("destroy", "kept", "-y")
    nothing_is_left(bilbo.home)


def test_an_address_is_used_again(bilbo: Bilbo, profile: str) -> None:
    """A new machine at the address of a destroyed cluster's does not trip over its old key."""
    hosts = []
    for _ in range(2):
        bilbo("--local", "create", profile)
        hosts.append(bilbo.record("kept")["notebook"])
        assert bilbo("rcmd", "kept", "echo here").stdout == "here\n"
        if len(hosts) == 1:
            bilbo("destroy", "kept", "-y")
    assert hosts[0]["public_ip"] == hosts[1]["public_ip"]
    assert hosts[0]["instance_id"] != hosts[1]["instance_id"]


def test_the_stand_in_was_stopped(bilbo: Bilbo, profile: str) -> None:
    """A stopped stand-in is named as the cause; started again, destroy clears up."""
    bilbo("--local", "create", profile)
    local.stop(bilbo.home)
    said = bilbo("rcmd", "kept", "true", code=1).stderr
    said = bilbo("destroy", "kept", "-y", code=1).stderr
    assert "not running" in said
    told("The stand-in AWS was stopped", errors(said), 1, "nothing: its machines went with it")
    local.start(bilbo.home)
    bilbo("destroy", "kept", "-y")
    nothing_is_left(bilbo.home)


def test_a_stale_lock_is_no_lock(bilbo: Bilbo) -> None:
    """What a dead process left of its lock hinders nobody."""
    folder = bilbo.home / "clusters" / ".locks"
    folder.mkdir(exist_ok=True)
    (folder / "kept.lock").touch()
    (folder / "kept.json").write_text(json.dumps({"pid": 1, "command": "create", "since": "then"}))
    assert "no cluster 'kept'" in bilbo("destroy", "kept", "-y", code=1).stderr
    assert bilbo("--local", "plan", bilbo.profile("kept", {"instance": INSTANCE})).stdout


def test_an_unusable_home(bilbo: Bilbo, tmp_path: Path) -> None:
    """A home that cannot be made is named, with what to do."""
    file = tmp_path / "file"
    file.touch()
    said = bilbo("clusters", code=1, BILBO_HOME=str(file / "home")).stderr
    assert "cannot use bilbo's home" in said
    told("bilbo's home cannot be written", errors(said).replace(str(tmp_path), "…"), 1, "nothing")


def test_a_full_disk(bilbo: Bilbo, profile: str, tmp_path: Path) -> None:
    """On a full disk create ends with the cause before anything is made."""
    home = tmp_path / "small"
    home.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(home)], check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount the small file system that this test fills")
    try:
        target = local.target(bilbo.home)
        assert target is not None
        small = Bilbo(home)
        small.profile("kept", {
            "instance": {**INSTANCE, "ssh_private_key": str(bilbo.home / "local" / "local.pem")},
            "notebook": {},
            "access": {"cidrs": ["127.0.0.0/8"]},
        })  # fmt: skip
        environment = {key: value for key, value in target.environment.items() if value}
        small("clusters")
        fill(home)
        said = small("create", "kept.json", code=1, around=environment).stderr
        assert "No space left" in said
        told("The disk is full", errors(said).replace(str(home), "…"), 1, "nothing")
    finally:
        subprocess.run(["umount", str(home)], check=True)
    nothing_is_left(bilbo.home)
    assert os.path.isdir(home)  # noqa: PTH112 - the mount point itself


def fill(folder: Path) -> Path:
    """Fills the file system of a folder to its last byte, by a file."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as filler:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(b"0" * size)
    return path


def test_the_disk_fills_up_while_it_creates(bilbo: Bilbo) -> None:
    """Neither Terraform nor bilbo can write what exists: that is said, and once there is room, the
    next create finds the machine by its tags and keeps it. Leaves its cluster to the stand-in.
    """
    folder = bilbo.home / "clusters" / "full"
    folder.mkdir(parents=True, mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", str(folder)]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("only root may mount the small file system that this test fills")
    try:
        profile = bilbo.profile("full", {"instance": INSTANCE, "notebook": {}})
        running = Running(bilbo.start("--local", "create", profile))
        deadline = time.monotonic() + 120
        while not machines(bilbo):
            assert time.monotonic() < deadline, running.said
            time.sleep(0.05)
        filler = fill(folder)
        assert running.end() == 1
        said = errors(running.said)
        told("The disk fills up while Terraform creates", said, 1,
             "what AWS has; the next `create` finds it by its tags and keeps it")  # fmt: skip
        (machine,) = machines(bilbo)
        filler.unlink()
        done = bilbo("--local", "create", profile)
        assert done.stderr.count("it is set aside: ") == 2
        assert machines(bilbo) == [machine]
        assert bilbo.record("full")["notebook"]["instance_id"] == machine
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def machines(bilbo: Bilbo) -> list[str]:
    """The ids of the instances that run or start."""
    ec2, _ = clients(bilbo.home)
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    found = ec2.describe_instances(Filters=alive)["Reservations"]
    return [each["InstanceId"] for one in found for each in one["Instances"]]
