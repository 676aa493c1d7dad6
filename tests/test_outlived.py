"""One life of a cluster that ends by itself: what keeps it awake, what does not, and its end."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, clients
from jupyter_client.blocking.client import BlockingKernelClient
from waiting import eventually

from bilbo import local
from bilbo.cluster.launches import closed_groups
from bilbo.cluster.work import Work
from bilbo.profile import building
from bilbo.record import Store

NAME = "outlived"
LIFETIME = {"ttl": "2h", "idle": "20s"}
PROFILE = {
    "instance": INSTANCE,
    "notebook": {},
    "dask": {"worker": {"count": 1, **ONE_PROCESS}},
    "lifetime": LIFETIME,
}


@pytest.fixture(scope="module")
def profile(bilbo: Bilbo) -> Iterator[str]:
    """The profile of the cluster, which is gone afterwards."""
    yield bilbo.profile(NAME, PROFILE)


class Life:
    """The cluster and its machines' folders."""

    def __init__(self, bilbo: Bilbo) -> None:
        self.bilbo = bilbo
        record = json.loads(bilbo("--local", "desc", NAME, "-d").stdout)
        self.record = record
        self.ids: dict[str, str] = {"notebook": record["notebook"]["instance_id"]}
        self.ids |= {"head": record["scheduler"]["instance_id"]}
        self.ids |= {"worker": record["workers"][0]["instance_id"]}

    def folder(self, role: str) -> Path:
        return self.bilbo.home / "local" / "instances" / self.ids[role]

    def kept(self, role: str) -> Path:
        return self.folder(role) / "home" / ".bilbo" / NAME / self.ids[role]

    def awake(self) -> dict[str, Any]:
        told = self.bilbo("--local", "desc", NAME, "--refresh", "-d", code=None).stdout
        return dict(json.loads(told)["awake"])

    def states(self) -> dict[str, str]:
        ec2, _ = clients(self.bilbo.home)
        found = ec2.describe_instances()["Reservations"]
        by_id = {i["InstanceId"]: i["State"]["Name"] for r in found for i in r["Instances"]}
        return {role: by_id.get(name, "gone") for role, name in self.ids.items()}

    def jupyter(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask JupyterLab for something."""
        address, _, token = self.record["notebook_url"].partition("?token=")
        request = urllib.request.Request(
            f"{address.rstrip('/')}/api/{path}",
            json.dumps(body).encode(),
            {"Authorization": f"token {token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.loads(answer.read() or b"{}"))

    @contextlib.contextmanager
    def busy_kernel(self) -> Iterator[None]:
        """A kernel that computes."""
        kernel = self.jupyter("POST", "kernels", {"name": "python3"})["id"]
        file = self.kept("notebook") / "jupyter" / f"kernel-{kernel}.json"
        client = BlockingKernelClient(connection_file=str(file))
        client.load_connection_file()
        client.start_channels(iopub=False, stdin=False, hb=False, control=False)
        client.execute("import time; time.sleep(1000)")
        yield
        client.stop_channels()
        self.jupyter("DELETE", f"kernels/{kernel}", {})


def cost_of(life: Life, role: str) -> tuple[float, int]:
    """The seconds of CPU of a machine's watcher so far, and its bytes of memory."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(life.kept(role) / "watcher.py") in words:
            times = process.cpu_times()
            return times.user + times.system, process.memory_info().rss
    raise AssertionError(f"no watcher on the {role}")


def seen_closed(life: Life) -> None:
    """A group counts as one in which AWS launches nothing only as long as AWS says so."""
    home = life.bilbo.home
    kept = Store(home).load(NAME)
    spec = replace(building.build(kept.profile, NAME, kept.region), owner=kept.owner)
    work: Any = Work(Store(home), local.start(home), cast(Any, None))
    _, autoscaling = clients(home)
    (group,) = autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    name = group["AutoScalingGroupName"]
    assert closed_groups(spec, work) == {"worker"}
    autoscaling.resume_processes(AutoScalingGroupName=name, ScalingProcesses=["Launch"])
    assert closed_groups(spec, work) == frozenset()
    autoscaling.suspend_processes(AutoScalingGroupName=name, ScalingProcesses=["Launch"])


def test_a_life(bilbo: Bilbo, profile: str) -> None:
    """A task, a result that somebody holds and a busy kernel keep the cluster awake for longer than
    its idle time. `extend` moves its end. With a shorter idle time it ends: every machine, with
    the same reason, and no worker comes again."""
    from distributed import Client

    said = bilbo("--local", "create", profile)
    assert "Ends by itself 2h after it is ready" in said.stderr
    life = Life(bilbo)
    connect: Any = Client
    address = life.record["dask_scheduler_address"]
    with life.busy_kernel(), connect(address, timeout=30) as client:
        task = client.submit(time.sleep, 1000)
        kernel = f"a kernel computes (python3) on the notebook {life.ids['notebook']}"
        wanted = {"Dask computes 1 task", kernel}
        eventually(lambda: wanted <= {*life.awake()["by"]}, 60)
        told = json.loads(bilbo("--local", "extend", NAME, "1h", "--json").stdout)
        assert told["ends"] > life.record["ends"]
        held = client.scatter({"held": 1})
        task.cancel()
        eventually(lambda: "Dask holds 1 task or result" in life.awake()["by"], 60)
        text = bilbo("--local", "desc", NAME, "--refresh").stdout
        assert "Kept awake:\n" in text
        assert "\nAs things are it ends in 2h" in text or "\nAs things are it ends in 3h" in text
        del held
    for role in life.ids:
        seconds, memory = cost_of(life, role)
        assert seconds < 10 and memory < 64 << 20, (role, seconds, memory)
    seen_closed(life)
    bilbo("--local", "create", profile, "-p", "lifetime.idle=4s")
    ended = {"head": "stopped", "notebook": "stopped", "worker": "terminated"}
    eventually(lambda: life.states() == ended, 120)
    for role in ("head", "notebook"):
        why = json.loads((life.kept(role) / "ended").read_text())["why"]
        assert why == "nobody has used it for 4s"
        assert "cluster outlived ends in" in (life.folder(role) / "var/log/wall").read_text()
    _, autoscaling = clients(bilbo.home)
    (group,) = autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    assert {"Launch", "ReplaceUnhealthy"} <= {
        each["ProcessName"] for each in group["SuspendedProcesses"]
    }
    bilbo("--local", "destroy", NAME, "-y")
