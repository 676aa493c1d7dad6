"""Ray on the stand-in AWS: real Ray nodes, a cloud notebook's kernel, a client of this machine.

The tests share one cluster and run in order: notebook [1], head [2], workers [3] and [4].
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, Bilbo, nothing_is_left
from browser import run_in_kernel

NAME = "ray"
SMALL = {"object_store_memory": 80_000_000}
ONE_CPU = {**SMALL, "num_cpus": 1}
SPREAD = """
import json, ray

@ray.remote(scheduling_strategy="SPREAD")
def square(number):
    import time
    time.sleep({pause})
    return number**2, ray.util.get_node_ip_address()

found = ray.get([square.remote(number) for number in range({tasks})])
print(json.dumps([sum(each[0] for each in found), sorted({{each[1] for each in found}})]))
"""
# Tells when it has begun, so that something can be done to the cluster meanwhile.
CLIENT = """
import json, sys, ray

ray.init(sys.argv[1], log_to_driver=False)

@ray.remote
def square(number):
    import time
    time.sleep(0.5)
    return number**2

squares = [square.remote(number) for number in range(24)]
ray.wait(squares, num_returns=2)
print("computing", flush=True)
print(sum(ray.get(squares)), flush=True)
"""
SUM = sum(number**2 for number in range(24))


@pytest.fixture(scope="module")
def record(bilbo: Bilbo) -> dict[str, Any]:
    """The record of the cluster, which is made at its first use."""
    document = {
        "instance": INSTANCE,
        "notebook": {},
        "ray": {"head": SMALL, "worker": {"count": 2, **ONE_CPU}},
    }
    made = bilbo("--local", "create", bilbo.profile(NAME, document))
    stages = [
        "Create ray cluster 'ray'.",
        "Create notebook.",
        "Start notebook.",
        "Start ray head & workers.",
        "Waiting for Ray dashboard ready.",
    ]
    assert [line for line in made.stderr.splitlines() if line in stages] == stages
    return bilbo.record(NAME)


class Client:
    """A Python of this machine that computes on the cluster, through Ray's client."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, record["ray_client_address"]],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def computes(self) -> None:
        """Waits until some of its tasks are done."""
        assert self._process.stdout
        assert self._process.stdout.readline() == "computing\n", self._process.communicate()[1]

    def result(self) -> int:
        """What it computed, once all of it is done."""
        out, err = self._process.communicate(timeout=90)
        assert self._process.returncode == 0, err
        return int(out)


def alive(record: dict[str, Any]) -> set[str]:
    """The instances on which a node of Ray's lives, as its dashboard tells."""
    with urllib.request.urlopen(record["ray_dashboard_url"] + "/api/v0/nodes") as answer:
        nodes = json.load(answer)["data"]["result"]["result"]
    return {each["node_name"] for each in nodes if each["state"] == "ALIVE"}


def test_says_what_there_is(bilbo: Bilbo, record: dict[str, Any]) -> None:
    """desc, dashboard, logs and check know Ray as they know Dask, and the record its addresses."""
    head, workers = record["head"], record["workers"]
    assert "scheduler" not in record and record["type"] == "ray"
    assert record["ray_address"] == f"{head['private_ip']}:6379"
    assert alive(record) == {head["instance_id"], *(each["instance_id"] for each in workers)}
    shown = bilbo("desc", NAME).stdout
    numbered = r"\nType: ray\n\nHead:\n\[2\] .*\n\nWorkers:\n\[3\] .*\n\[4\] .*\n"
    assert re.search(numbered, shown)
    assert shown.endswith(f"\nConnect: ray.init('ray://{head['public_ip']}:10001')\n")
    page = bilbo("dashboard", NAME, "-u").stdout.strip()
    with urllib.request.urlopen(page) as answer:
        assert b"<title>Ray Dashboard</title>" in answer.read()
    assert "Ray runtime started" in bilbo("logs", NAME, "head").stdout
    assert "All have the versions of [2] head." in bilbo("check", NAME).stdout


def test_opens_only_what_people_reach(record: dict[str, Any]) -> None:
    """Dashboard and client are open to the addresses admitted; the head's own port to nobody."""
    text = (Path(record["terraform_dir"]) / "main.tf").read_text(encoding="utf-8")
    ports = re.search(r"ports = \{\n(.*?)\}", text, re.DOTALL)
    assert ports and re.findall(r'"(\d+)"', ports[1]) == ["10001", "2222", "8265", "8888"]


def test_a_cloud_notebook_is_on_the_cluster(record: dict[str, Any]) -> None:
    """`ray.init()` without an argument in a cloud notebook computes on both workers."""
    code = "import ray\nray.init(log_to_driver=False)\n" + SPREAD.format(pause=1, tasks=12)
    total, where = json.loads(run_in_kernel(record["notebook_url"], code).splitlines()[-1])
    assert total == sum(number**2 for number in range(12))
    assert where == sorted(each["private_ip"] for each in record["workers"])


def test_a_killed_worker_costs_no_result(bilbo: Bilbo, record: dict[str, Any]) -> None:
    """From this machine: a worker dies in the middle, the result is right; restart mends it."""
    client = Client(record)
    client.computes()
    kill = "kill -9 -- -$(grep -o '[0-9][0-9]*' ~/.bilbo/ray/ray-worker.pid | head -1)"
    bilbo("rcmd", NAME, "4", kill)
    assert client.result() == SUM
    again = bilbo("restart", NAME)
    assert "Restart ray head & workers.\n" in again.stderr
    assert {each["instance_id"] for each in record["workers"]} <= alive(record)


def test_scales_while_it_computes(bilbo: Bilbo, record: dict[str, Any]) -> None:
    """A worker that leaves is drained first, and no task is lost."""
    client = Client(record)
    client.computes()
    scaled = bilbo("scale", NAME, "1", "--yes")
    assert "Retire 1 worker of group 'worker'.\n" in scaled.stderr
    assert client.result() == SUM
    (left,) = bilbo.record(NAME)["workers"]
    assert alive(record) == {record["head"]["instance_id"], left["instance_id"]}


def test_destroys_everything(bilbo: Bilbo, record: dict[str, Any]) -> None:
    """Nothing of the cluster is left, neither in AWS nor of Ray's many processes."""
    bilbo("destroy", NAME, "--yes")
    nothing_is_left(bilbo.home)
