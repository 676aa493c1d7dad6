"""A cluster whose machines boot and whose services die: it computes again, without bilbo."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, client, nothing_is_left
from distributed import Client
from reliability import told

from bilbo import local


def eventually(check: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)
    return found


class Back:
    """A cluster of a notebook, a scheduler and two workers."""

    def __init__(self, bilbo: Bilbo) -> None:
        self.bilbo = bilbo
        document = {
            "instance": INSTANCE,
            "notebook": {},
            "dask": {"worker": {"count": 2, **ONE_PROCESS}},
        }
        self.profile = bilbo.profile("back", document)
        self.said = bilbo("--local", "create", self.profile).stdout
        self.record = bilbo.record("back")
        self.address = self.record["dask_scheduler_address"]
        self.ec2 = client(bilbo.home, "ec2")

    def home(self, node: dict[str, Any]) -> Path:
        """A machine's folder of the cluster."""
        home = self.bilbo.home / "local" / "instances" / str(node["instance_id"]) / "home"
        return home / ".bilbo" / "back" / str(node["instance_id"])

    def supervisor(self, node: dict[str, Any], service: str) -> int:
        return int(json.loads((self.home(node) / f"{service}.pid").read_text())["pid"])

    def kill(self, node: dict[str, Any], service: str) -> None:
        """Kill the service itself, its supervisor not."""
        supervisor = self.supervisor(node, service)
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        for pid in children:
            os.kill(int(pid), signal.SIGKILL)

    def computes(self, workers: int = 2) -> None:
        """The scheduler has so many workers, of machines of the cluster, and they compute."""

        def answers() -> bool:
            try:
                with Client(self.address, timeout=5, set_as_default=False) as asked:
                    asked.wait_for_workers(workers, timeout=20)
                    there = asked.scheduler_info(n_workers=-1)["workers"]
                    assert asked.submit(pow, 2, 5, pure=False).result(timeout=20) == 32
                    return len(there) == workers
            except (OSError, TimeoutError):
                return False

        eventually(answers, 60)

    def notebook(self) -> bool:
        """Whether JupyterLab answers to the token."""
        import urllib.request

        url = self.record["notebook_url"].replace("?", "api/status?", 1)
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def back(bilbo: Bilbo) -> Iterator[Back]:
    made = Back(bilbo)
    yield made
    bilbo("destroy", "back", "-y")
    nothing_is_left(bilbo.home)


def test_services_that_die_come_back(back: Back) -> None:
    """A killed scheduler gets its workers back, a killed worker and JupyterLab return."""
    assert "do not come back" not in back.said
    assert back.record["stays_down"] == {}
    back.computes()
    back.kill(back.record["scheduler"], "dask-scheduler")
    back.kill(back.record["notebook"], "jupyter")
    back.computes()
    back.kill(back.record["workers"][0], "dask-worker")
    back.computes()
    eventually(back.notebook)
    said = back.bilbo("logs", "back", "scheduler").stdout
    (line,) = (line for line in said.splitlines() if "bilbo: " in line)
    told("A scheduler is killed", line[line.index("bilbo: ") :], 0,
         "the cluster, which computes again; what its workers had in memory is lost")  # fmt: skip


def test_machines_that_boot_come_back(back: Back) -> None:
    """By a reboot of all, and by a stop and start of the scheduler's alone."""
    nodes = [back.record["notebook"], back.record["scheduler"], *back.record["workers"]]
    before = [back.supervisor(node, "dask-worker") for node in back.record["workers"]]
    back.ec2.reboot_instances(InstanceIds=[node["instance_id"] for node in nodes])
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before))
    back.computes()
    eventually(back.notebook)
    scheduler = [back.record["scheduler"]["instance_id"]]
    back.ec2.stop_instances(InstanceIds=scheduler)
    time.sleep(3)  # the workers die of it, and wait
    back.ec2.start_instances(InstanceIds=scheduler)
    back.computes()
    said = back.bilbo("create", back.profile).stdout
    told("All machines reboot, and the scheduler's is stopped and started in the console", said, 0,
         "the cluster, which computes again")  # fmt: skip


def test_what_leaves_or_is_replaced_stays_away(back: Back) -> None:
    """A worker that `scale` retires does not come back before AWS has ended it; and a restarted
    cluster is started again at boots."""
    gone = back.record["workers"]
    back.bilbo("scale", "back", "1")
    record = back.bilbo.record("back")
    back.computes(1)
    (stayed,) = record["workers"]
    assert stayed in gone
    back.bilbo("restart", "back")
    before = back.supervisor(stayed, "dask-worker")
    local.inject(back.bilbo.home, f"reboot={stayed['instance_id']}")
    eventually(lambda: not Path(f"/proc/{before}").exists())
    back.computes(1)
    nothing = (
        "rm -r ~/../etc; mkdir ~/../etc; printf '%s\\n' sudo loginctl crontab >~/../etc/refuses"
    )
    back.bilbo("rcmd", "back", stayed["instance_id"], nothing)
    said = back.bilbo("restart", "back").stdout
    assert list(back.bilbo.record("back")["stays_down"]) == [stayed["instance_id"]]
    assert back.bilbo("desc", "back").stdout in said
    told("A machine allows neither sudo, lingering nor a crontab", said.rpartition("\n\n")[2], 0,
         "the cluster, whose machine does not start its services at a boot")  # fmt: skip
