"""Ray on the stand-in AWS: real Ray nodes, a cloud notebook's kernel, a client of this machine.

The tests share one cluster and run in order. It is made by a saved plan, its state is shared, and
it has two groups of workers: notebook [1], head [2], a worker of group cpu [3], and of gpu [4].
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, Bilbo, client, nothing_is_left
from browser import run_in_kernel
from reliability import errors, told
from waiting import eventually

from bilbo import bundle, local
from bilbo.agent import figures_ray

NAME = "ray"
BUCKET = "rays"
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
where = sorted({{each[1] for each in found}})
asked = [square.options(num_gpus=1), square.options(resources={{"big": 2}})]
asked = [each[1] for each in ray.get([each.remote(2) for each in asked])]
print(json.dumps([sum(each[0] for each in found), where, asked]))
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

squares = [square.remote(number) for number in range(int(sys.argv[2]))]
ray.wait(squares, num_returns=2)
print("computing", flush=True)
print(sum(ray.get(squares)), flush=True)
"""
# Outlives its client, on the only node that has a GPU.
ACTOR = """
import sys, ray

ray.init(sys.argv[1], log_to_driver=False)

@ray.remote
class Counter:
    def count(self):
        return 1

counter = Counter.options(lifetime="detached", name="counter", num_gpus=1).remote()
assert ray.get(counter.count.remote()) == 1
"""


# Does what it is told, a line each, and says so.
HOLDER = """
import sys, ray

ray.init(sys.argv[1], log_to_driver=False)

@ray.remote
def wait(seconds):
    import time
    time.sleep(seconds)

@ray.remote
class Idle:
    pass

print("connected", flush=True)
held = []
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


@pytest.fixture(scope="module")
def profile(bilbo: Bilbo, only_ray: None) -> str:
    """The profile, and the bucket of its state."""
    client(bilbo.home, "s3").create_bucket(Bucket=BUCKET)
    groups = [
        {"name": "cpu", "count": 1, **ONE_CPU},
        {"name": "gpu", "count": 1, **ONE_CPU, "num_gpus": 1, "resources": {"big": 2}},
    ]
    document = {
        "region": "us-east-1",
        "access": {"cidrs": ["127.0.0.0/8"]},
        "state": {"bucket": BUCKET},
        "instance": INSTANCE,
        "notebook": {},
        "ray": {"head": SMALL, "worker": groups},
    }
    return bilbo.profile(NAME, document)


@pytest.fixture(scope="module")
def partly(bilbo: Bilbo, profile: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is said when a saved plan is applied and one worker's host is sick."""
    plan = str(tmp_path_factory.mktemp("plan") / "ray.plan")
    planned = bilbo("--local", "plan", profile, "-o", plan)
    assert "CPUs: 1, GPUs: 1, Memory: about" in planned.stdout
    local.inject(bilbo.home, "ssh=ray-ray-worker-gpu:reject")
    digest = bundle.read(Path(plan)).digest
    made = bilbo("--local", "create", profile, "--plan", plan, "--digest", digest, code=3)
    local.inject(bilbo.home, "clear")
    return made.stderr


@pytest.fixture(scope="module")
def record(bilbo: Bilbo, profile: str, partly: str) -> dict[str, Any]:
    """The record of the cluster, once the same command has completed it."""
    completed = bilbo("create", profile)
    assert "ray-worker is ready" in completed.stderr
    return bilbo.record(NAME)


class Client:
    """A Python of this machine that computes on the cluster, through Ray's client."""

    def __init__(self, record: dict[str, Any], tasks: int) -> None:
        self._tasks = tasks
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, record["ray_client_address"], str(tasks)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def computes(self) -> None:
        """Waits until some of its tasks are done."""
        assert self._process.stdout
        assert self._process.stdout.readline() == "computing\n", self._process.communicate()[1]

    def is_right(self) -> None:
        """What it computes is right, once all of it is done."""
        out, err = self._process.communicate(timeout=90)
        assert self._process.returncode == 0, err
        assert int(out) == sum(number**2 for number in range(self._tasks))


def alive(record: dict[str, Any]) -> set[str]:
    """The instances on which a node of Ray's lives, as its dashboard tells."""
    return {*nodes_of(record)}


def nodes_of(record: dict[str, Any]) -> dict[str, str]:
    """The living nodes by instance, each with what tells it from the one before; none where nobody
    answers."""
    page = record["ray_dashboard_url"] + "/api/v0/nodes"
    try:
        with urllib.request.urlopen(page, timeout=20) as answer:
            nodes = json.load(answer)["data"]["result"]["result"]
    except OSError:
        return {}
    return {each["node_name"]: each["node_id"] for each in nodes if each["state"] == "ALIVE"}


def eventually_alive(record: dict[str, Any], instances: set[str]) -> None:
    """Until Ray has noticed who is no more, which it does by silence where a node was ended."""
    deadline = time.monotonic() + 60
    while alive(record) != instances:
        assert time.monotonic() < deadline, alive(record)
        time.sleep(0.5)


def test_one_sick_worker_of_two(partly: str) -> None:
    """A saved plan is applied; a host that cannot be used is named, and Ray works without it."""
    stages = [
        "Create ray cluster 'ray'.",
        "Create notebook.",
        "Start notebook.",
        "Start ray head & workers.",
        "Waiting for Ray dashboard ready.",
    ]
    assert [line for line in partly.splitlines() if line in stages] == stages
    assert "refuses the key" in partly
    told("One worker of Ray's is sick", errors(partly), 3,
         "head, notebook and the other worker; nothing, after `bilbo destroy`")  # fmt: skip


def test_says_what_there_is(bilbo: Bilbo, record: dict[str, Any]) -> None:
    """desc, dashboard, logs and check know Ray as they know Dask, and the record its addresses."""
    head, workers = record["head"], record["workers"]
    assert "scheduler" not in record and record["type"] == "ray"
    assert record["ray_address"] == f"{head['private_ip']}:6379"
    assert alive(record) == {head["instance_id"], *(each["instance_id"] for each in workers)}
    shown = bilbo("desc", NAME).stdout
    head_first = r"\nType: ray\n\nHead:\n\[2\] .*\n"
    groups = r"\nWorkers \(cpu\):\n\[3\] .*\n\nWorkers \(gpu\):\n\[4\] .*\n"
    assert re.search(head_first + groups, shown)
    assert shown.endswith(f"\nConnect: ray.init('ray://{head['public_ip']}:10001')\n")
    page = bilbo("dashboard", NAME, "-u").stdout.strip()
    with urllib.request.urlopen(page) as answer:
        assert b"<title>Ray Dashboard</title>" in answer.read()
    assert "Ray runtime started" in bilbo("logs", NAME, "head").stdout
    assert "All versions match [2] head." in bilbo("check", NAME).stdout


def test_opens_only_what_people_reach(record: dict[str, Any]) -> None:
    """Dashboard and client are open to the addresses admitted; the head's own port to nobody."""
    text = (Path(record["terraform_dir"]) / "main.tf").read_text(encoding="utf-8")
    ports = re.search(r"ports = \{\n(.*?)\}", text, re.DOTALL)
    assert ports and re.findall(r'"(\d+)"', ports[1]) == ["10001", "2222", "8265", "8888"]


def finds(head: str, holder: subprocess.Popen[str], does: str, expected: list[str]) -> None:
    """Has the client do something; then Ray's figures say so."""
    assert holder.stdin and holder.stdout
    holder.stdin.write(f"{does}\n")
    assert holder.stdout.readline() == "done\n"
    eventually(lambda: [what for what, _ in figures_ray.engine(head)] == expected, 60)


def test_its_figures_say_whether_it_is_idle(record: dict[str, Any]) -> None:
    """What the watcher asks Ray: an object that a client holds, a task and an actor are not idle; a
    client that holds nothing is. Before the notebook, whose kernel stays connected."""
    head = record["head"]["private_ip"]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, record["ray_client_address"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == "connected\n"
        finds(head, holder, "pass", [])
        finds(head, holder, "held.append(ray.put(bytes(10)))", ["Ray holds 1 object"])
        finds(head, holder, "held.clear()", [])
        finds(head, holder, "held.append(wait.remote(1000))", ["Ray has 1 task"])
        # The client holds the function that it has used.
        finds(head, holder, "ray.cancel(held.pop(), force=True)", ["Ray holds 1 object"])
        finds(head, holder, "held.append(Idle.remote())", ["Ray has 1 actor"])
    eventually(lambda: figures_ray.engine(head) == [], 120)


def test_a_cloud_notebook_is_on_the_cluster(record: dict[str, Any]) -> None:
    """`ray.init()` without an argument in a cloud notebook computes on both workers, and what asks
    for a GPU or a resource on the worker that has it."""
    code = "import ray\nray.init(log_to_driver=False)\n" + SPREAD.format(pause=1, tasks=12)
    total, where, asked = json.loads(run_in_kernel(record["notebook_url"], code).splitlines()[-1])
    assert total == sum(number**2 for number in range(12))
    assert where == sorted(each["private_ip"] for each in record["workers"])
    (gpu,) = [each["private_ip"] for each in record["workers"] if each["group"] == "gpu"]
    assert asked == [gpu, gpu]


def test_a_team_mate_has_it_too(bilbo: Bilbo, record: dict[str, Any], tmp_path: Path) -> None:
    """With the state's address and the key, another home knows the cluster and its groups."""
    target = local.target(bilbo.home)
    assert target is not None and target.endpoint_url
    aws = {**target.environment, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": target.endpoint_url}
    other = Bilbo(tmp_path / "other")
    key = str(bilbo.home / "local" / "local.pem")
    other("attach", NAME, f"s3://{BUCKET}/bilbo", "-i", key, around=aws)
    shown = [
        each.stdout.partition("Notebook:")[2]
        for each in (other("desc", NAME, around=aws), bilbo("desc", NAME))
    ]
    assert shown[0] == shown[1] and "Connect: ray.init(" in shown[0]
    assert other("rcmd", NAME, "gpu", "echo here", around=aws).stdout == "here\n"


def seen_dead(bilbo: Bilbo, what: str) -> None:
    """`desc --refresh` tells that this was killed, which its page then shows."""
    shown = bilbo("desc", NAME, "--refresh", code=3).stdout
    first, *lines, hint = shown[shown.index("Not as recorded:") :].splitlines()
    (line,) = (line for line in lines if f"runs no ray-{what}" in line)
    told(f"`kill -9` of Ray's {what} and its supervisor, as `desc --refresh` tells",
         f"{first}\n{line}\n{hint}", 3,
         "`restart` starts head and workers anew, `create` what is dead")  # fmt: skip


def test_a_killed_worker_costs_no_result(bilbo: Bilbo, record: dict[str, Any]) -> None:
    """From this machine: a worker dies in the middle, the result is right. The look tells of it,
    and of the head that dies next; restart mends both."""
    computing = Client(record, 24)
    computing.computes()
    kill = "kill -9 -- -$(grep -o '[0-9][0-9]*' ~/.bilbo/ray/*/ray-{}.pid | head -1)"
    bilbo("rcmd", NAME, "4", kill.format("worker"))
    computing.is_right()
    seen_dead(bilbo, "worker")
    bilbo("rcmd", NAME, "head", kill.format("head"))
    seen_dead(bilbo, "head")
    again = bilbo("restart", NAME)
    assert "Restart ray head & workers.\n" in again.stderr
    assert {each["instance_id"] for each in record["workers"]} <= alive(record)


def test_machines_that_boot_come_back(bilbo: Bilbo, record: dict[str, Any]) -> None:
    """The head's and a worker's reboot at once: they start again by themselves, and the worker that
    stayed joins the new head. The look finds nothing amiss."""
    rebooted = [record["head"]["instance_id"], record["workers"][1]["instance_id"]]
    before = nodes_of(record)
    client(bilbo.home, "ec2").reboot_instances(InstanceIds=rebooted)
    deadline = time.monotonic() + 240
    while before.keys() != (now := nodes_of(record)).keys() or now.items() & before.items():
        assert time.monotonic() < deadline, (before, now)
        time.sleep(0.5)
    computing = Client(record, 4)
    computing.computes()
    computing.is_right()
    while "AWS and the hosts match" not in bilbo("desc", NAME, "--refresh", code=None).stdout:
        assert time.monotonic() < deadline
        time.sleep(1)


def test_scales_while_it_computes(bilbo: Bilbo, record: dict[str, Any]) -> None:
    """A worker joins and leaves under a computation; who leaves is drained first, and no task is
    lost."""
    computing = Client(record, 200)
    computing.computes()
    bilbo("scale", NAME, "cpu=2")
    there = {each["instance_id"] for each in bilbo.record(NAME)["workers"]}
    assert alive(record) == {record["head"]["instance_id"], *there} and len(there) == 3
    scaled = bilbo("scale", NAME, "cpu=1")
    assert "Retire 1 worker of group 'cpu'.\n" in scaled.stderr
    left = {each["instance_id"] for each in bilbo.record(NAME)["workers"]}
    assert alive(record) == {record["head"]["instance_id"], *left} and len(left) == 2
    computing.is_right()


def test_actors_are_not_lost_unasked(bilbo: Bilbo, record: dict[str, Any]) -> None:
    """An actor cannot be moved: its node leaves by force alone."""
    subprocess.run([sys.executable, "-c", ACTOR, record["ray_client_address"]], check=True)
    refused = bilbo("scale", NAME, "gpu=0", code=1).stderr
    assert "its actors would be lost" in refused and "--force" in refused
    assert len(bilbo.record(NAME)["workers"]) == 2
    bilbo("scale", NAME, "gpu=0", "--force")
    (left,) = bilbo.record(NAME)["workers"]
    eventually_alive(record, {record["head"]["instance_id"], left["instance_id"]})


def test_destroys_everything(bilbo: Bilbo, record: dict[str, Any]) -> None:
    """Nothing of the cluster is left, neither in AWS nor of Ray's many processes."""
    bilbo("destroy", NAME, "--yes")
    nothing_is_left(bilbo.home)
