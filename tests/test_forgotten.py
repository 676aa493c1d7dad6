"""What is forgotten ends by itself: the machines of a bilbo that died before it logged in."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, Running, clients, nothing_is_left, processes_of
from test_crash_contract import kill, status
from waiting import eventually

from bilbo import local

NAME = "forgotten"
PROFILE = {
    "lifetime": {"ttl": "8h", "unreached": "20m"},
    "instance": INSTANCE,
    "notebook": {},
    "dask": {"worker": ONE_PROCESS},
}
ROLES = {"notebook": "stopped", "scheduler": "stopped", "worker": "terminated"}
BY_ITSELF = "Client.InstanceInitiatedShutdown"


def machines(home: Path) -> dict[str, dict[str, Any]]:
    """The cluster's instances by role; of several workers, the last launched."""
    ec2, _ = clients(home)
    found = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    tags = [{each["Key"]: each["Value"] for each in i.get("Tags", ())} for i in found]
    pairs = zip(tags, found, strict=True)
    return {tag["bilbo:role"]: i for tag, i in pairs if tag.get("bilbo:cluster") == NAME}


def folder(home: Path, role: str) -> Path:
    """The folder of the machine with a role."""
    return home / "local" / "instances" / str(machines(home)[role]["InstanceId"])


def ended(home: Path) -> dict[str, tuple[str, str]]:
    """Each machine's state, and why it is in it."""
    return {
        role: (i["State"]["Name"], i.get("StateReason", {}).get("Code", ""))
        for role, i in machines(home).items()
    }


def written(path: Path) -> str:
    """A file's text; empty as long as there is none."""
    return path.read_text() if path.exists() else ""


def nobody_came(bilbo: Bilbo) -> None:
    """bilbo is killed between Terraform and SSH, and the time passes: the machines end. Their clock
    is set on, since a loaded computer needs longer for Terraform than a test wants to wait."""
    for name in (f"{NAME}-notebook", f"{NAME}-dask-scheduler", f"{NAME}-dask-worker"):
        local.inject(bilbo.home, f"ssh={name}:silent")
    running = Running(bilbo.start("--local", "create", f"{NAME}.json"))
    eventually(lambda: status(bilbo.home / "clusters" / NAME) == "starting", 240)
    kill(running.process)
    assert "Ends by itself 8h after it is ready, at the latest; then notebook" in running.said
    for role in ROLES:
        since = folder(bilbo.home, role) / "etc/systemd/system/bilbo_lifetime.since"
        begun = int(eventually(partial(written, since), 60))
        assert time.time() - begun < 1200
        since.write_text(f"{begun - 1200}\n")
    wanted = {role: (state, BY_ITSELF) for role, state in ROLES.items()}
    eventually(lambda: ended(bilbo.home) == wanted or None, 120)
    local.inject(bilbo.home, "clear")


@pytest.mark.timeout(900)
def test_a_forgotten_cluster_ends_itself(bilbo: Bilbo) -> None:
    """It is brought back, and destroyed; nothing is left."""
    home = bilbo.home
    profile = bilbo.profile(NAME, PROFILE)
    nobody_came(bilbo)
    said = bilbo("--local", "create", profile)
    assert " at the latest; then: pause\n" in said.stdout
    record = bilbo.record(NAME)
    (told,) = json.loads(bilbo("clusters", "--json").stdout)
    assert told["ends"] == record["ends"] > record["ready_time"]
    for role in ROLES:
        assert (folder(home, role) / "var/lib/bilbo/reached").exists()

    # Other values end nothing that runs: `then` and `unreached` are all of them that HCL has.
    more = ("-p", "lifetime.then=destroy", "-p", "lifetime.unreached=30m", "-p", "lifetime.ttl=9h")
    planned = json.loads(bilbo("plan", profile, *more, "--format", "json").stdout)
    assert planned["lifetime"]["unreached"] == 1800
    assert {each["type"]: each["action"] for each in planned["changes"]} == {
        "aws_instance": "update",
        "aws_launch_template": "update",
        "aws_autoscaling_group": "update",
    }  # fmt: skip
    assert planned["effects"] == []
    settings = {each["key"]: (each["before"], each["after"]) for each in planned["settings"]}
    assert settings["lifetime.ttl"] == ("8h", "9h")

    # A machine obeys its watcher; a reboot leaves the others on.
    local.inject(home, f"reboot={machines(home)['scheduler']['InstanceId']}")
    (folder(home, "worker") / "var/lib/bilbo/poweroff").write_text("a test\n")
    eventually(lambda: ended(home)["worker"] == ("terminated", BY_ITSELF) or None, 60)
    unit = str(folder(home, "scheduler") / "etc/systemd/system/bilbo_lifetime.sh")
    eventually(lambda: any(unit in each for each in processes_of(home)), 60)
    assert {role: ended(home)[role][0] for role in ("notebook", "scheduler")} == {
        "notebook": "running", "scheduler": "running",
    }  # fmt: skip
    bilbo("destroy", NAME, "-y")
    nothing_is_left(home)
