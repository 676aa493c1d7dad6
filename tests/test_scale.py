"""Worker groups and `scale`: counts change while the cluster computes, and nothing is lost.

The tests of the cluster share one, in the order in which they stand.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, Running, client, clients, nothing_is_left
from reliability import errors, told

from bilbo import bundle, local
from bilbo.cli.commands.lifecycle import _counts
from bilbo.errors import ProfileError
from bilbo.profile import building, checking
from bilbo.render import render

GROUPS = [
    {"name": "cpu", "count": 1, **ONE_PROCESS},
    {"name": "gpu", **ONE_PROCESS, "resources": {"GPU": 1, "MEM": 2.5}},
]
NAME = "sized"
BUCKET = "sizes"


def document(worker: Any) -> dict[str, Any]:
    """A profile of a scheduler and these workers."""
    return {"instance": INSTANCE, "dask": {"worker": worker}}


def main_tf(worker: Any) -> str:
    """The root module of such a profile."""
    spec = building.build(document(worker), "c", "us-east-1")
    return render(replace(spec, cidrs=("127.0.0.0/8",)))["main.tf"]


# -- groups --------------------------------------------------------------------------------


def test_each_group_has_a_module_of_its_own() -> None:
    """Each listed group is a module with its own name, count and tag; outputs tell them apart."""
    text = main_tf(GROUPS)
    for group in ("cpu", "gpu"):
        assert f'module "worker_{group}" {{' in text
        assert f'"c-dask-worker-{group}"' in text
        assert f'"bilbo:group"   = "{group}"' in text
    assert '{ "cpu" = module.worker_cpu.nodes, "gpu" = module.worker_gpu.nodes }' in text


def test_a_listed_group_named_worker_is_the_one_of_before() -> None:
    """An object and a list of one group `worker` render the same bytes: others can join them."""
    assert main_tf({"count": 2}) == main_tf([{"name": "worker", "count": 2}])


def test_another_count_is_another_number() -> None:
    """A changed count changes one line of one file."""
    before, after = main_tf({"count": 2}).splitlines(), main_tf({"count": 1000}).splitlines()
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert changed == [("  instance_count     = 2", "  instance_count     = 1000")]


@pytest.mark.parametrize(
    ("worker", "says"),
    [
        ([], "dask.worker: must not be empty"),
        ([{"count": 1}], "dask.worker.0: the key name is missing"),
        ([{"name": "a"}, {"name": "a"}], "dask.worker.1.name: is already the name of group 0"),
        ([{"name": "workers"}], "dask.worker.0.name: workers is reserved; choose another name"),
        ([{"name": "A"}], "dask.worker.0.name: must be a group's name"),
        ([{"name": "a" * 21}], "dask.worker.0.name: must be a group's name"),
        ({"name": "a"}, "dask.worker.name: "),
        ({"resources": {"a b": 1}}, "dask.worker.resources.a b: a resource's name"),
        ({"resources": {"a": "1"}}, "dask.worker.resources.a: must be a number"),
        ({"resources": {"a": -1}}, "dask.worker.resources.a: must be from 0"),
        (3, "dask.worker: must be an object or a list"),
    ],
)
def test_groups_that_are_refused(worker: Any, says: str) -> None:
    """What cannot be a group is refused at its place."""
    with pytest.raises(ProfileError) as refused:
        checking.check_profile(document(worker))
    assert any(says in line for line in refused.value.details), refused.value.details


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        ("4", {None: 4}),
        ("cpu=4 gpu=0", {"cpu": 4, "gpu": 0}),
        ("four", None),
        ("-1", None),
        ("10001", None),
        ("1.5", None),
        ("=3", None),
        ("cpu=", None),
        ("cpu=1 cpu=2", None),
        ("1 2", None),
        ("1 cpu=2", None),
    ],
)
def test_counts(words: str, counts: dict[str | None, int] | None) -> None:
    """`scale` takes N, or GROUP=N once for each group, and nothing else."""
    context, parameter = click.Context(click.Command("x")), click.Argument(["counts"])
    if counts is None:
        with pytest.raises(click.BadParameter):
            _counts(context, parameter, tuple(words.split()))
    else:
        assert _counts(context, parameter, tuple(words.split())) == counts


# -- a cluster -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sized(bilbo: Bilbo) -> str:
    """The profile of a cluster that runs: two groups, and a shared state."""
    client(bilbo.home, "s3").create_bucket(Bucket=BUCKET)
    asked = {
        **document(GROUPS),
        "region": "us-east-1",
        "access": {"cidrs": ["127.0.0.0/8"]},
        "state": {"bucket": BUCKET},
    }
    name = bilbo.profile(NAME, asked)
    bilbo("--local", "create", name)
    return name


def group(bilbo: Bilbo, name: str) -> set[str]:
    """The instances that AWS holds in a group."""
    _, groups = clients(bilbo.home)
    (found,) = groups.describe_auto_scaling_groups(
        AutoScalingGroupNames=[f"{NAME}-dask-worker-{name}"]
    )["AutoScalingGroups"]
    return {each["InstanceId"] for each in found["Instances"]}


def counted(bilbo: Bilbo) -> list[str]:
    """The groups of the record's workers, sorted."""
    return sorted(node["group"] for node in bilbo.record(NAME)["workers"])


def no_change_is_planned(bilbo: Bilbo, **counts: int) -> None:
    """A plan of the profile with these counts has nothing to do."""
    names = [each["name"] for each in GROUPS]
    changed = [
        word
        for name, count in counts.items()
        for word in ("-p", f"dask.worker.{names.index(name)}.count={count}")
    ]
    planned = bilbo("plan", f"{NAME}.json", "--detailed-exitcode", *changed)
    assert "Nothing to do." in planned.stdout


class Computing:
    """Tasks that are given to a cluster for as long as this lasts; what went wrong, if anything."""

    def __init__(self, address: str) -> None:
        from distributed import Client

        connect: Any = Client
        self.client = connect(address, set_as_default=False)
        self.held = self.client.map(lambda n: bytes([n % 256]) * 100_000, range(40), pure=False)
        self.kept = self.client.scatter([1, 2, 3])
        self.on_gpu = 0
        self.rounds = 0
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Computing:
        self._thread.start()
        return self

    def _work(self) -> None:
        def slow(number: int) -> int:
            time.sleep(0.05)
            return number * number

        while not self._stop.is_set():
            try:
                futures = self.client.map(slow, range(60), pure=False)
                gpu = self.client.submit(slow, 7, pure=False, resources={"GPU": 1})
                total = sum(self.client.gather(futures))
                self.on_gpu += int(gpu.result(timeout=60) == 49)
                if total != sum(number * number for number in range(60)):
                    self.wrong.append(f"round {self.rounds}: {total}")
                self.rounds += 1
            except Exception as error:
                self.wrong.append(f"round {self.rounds}: {error!r}")
                return

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)
        held = self.client.gather(self.held)
        assert held == [bytes([n % 256]) * 100_000 for n in range(40)]
        assert self.client.gather(self.kept) == [1, 2, 3]
        self.client.close()
        assert self.wrong == []
        assert self.rounds and self.on_gpu == self.rounds


def test_up_and_down_while_it_computes(bilbo: Bilbo, sized: str) -> None:
    """Workers join and leave under a computation: all results are right, and only those that
    were retired are gone; the plan is clean afterwards."""
    address = bilbo.record(NAME)["dask_scheduler_address"]
    notebook_and_head = 1
    with Computing(address) as computing:
        bilbo("scale", NAME, "cpu=4")
        up = group(bilbo, "cpu")
        local.calls(bilbo.home, reset=True)
        bilbo("scale", NAME, "cpu=2")
        down = group(bilbo, "cpu")
        calls = local.calls(bilbo.home, reset=True)
        there = computing.client.scheduler_info(n_workers=-1)["workers"].values()
        assert {str(each["name"]) for each in there} == down | group(bilbo, "gpu")
    assert len(up) == 4 and len(down) == 2 and down < up
    assert calls["autoscaling:SetInstanceProtection"] == 1
    assert counted(bilbo) == ["cpu", "cpu", "gpu"]
    assert len(bilbo.record(NAME)["instances"]) == 3 + notebook_and_head
    no_change_is_planned(bilbo, cpu=2)
    assert bilbo("scale", NAME, "cpu=2").stdout == "Nothing to do.\n"


def test_groups_are_known_by_name(bilbo: Bilbo, sized: str) -> None:
    """`desc` lists each group apart, and `rcmd` runs on a group's instances alone."""
    said = bilbo("desc", NAME).stdout
    assert "\nWorkers (cpu):\n[2]" in said and "\nWorkers (gpu):\n[4]" in said
    assert bilbo("rcmd", NAME, "gpu", "echo", "here").stdout == "here\n"
    assert bilbo("rcmd", NAME, "worker/cpu", "echo here").stdout.count("here") == 2
    refused = bilbo("scale", NAME, "3", code=2).stderr
    assert f"bilbo scale {NAME} cpu=N gpu=N" in refused
    assert "no worker group 'tpu'" in bilbo("scale", NAME, "tpu=3", code=2).stderr


def test_a_saved_plan_lets_workers_leave_too(bilbo: Bilbo, sized: str, tmp_path: Path) -> None:
    """A reviewed plan with a lower count retires whom it ends, as `scale` does."""
    plan = str(tmp_path / "down.plan")
    bilbo("plan", sized, "-p", "dask.worker.0.count=1", "-o", plan)
    with Computing(bilbo.record(NAME)["dask_scheduler_address"]):
        digest = bundle.read(Path(plan)).digest
        said = bilbo("create", sized, "--plan", plan, "--digest", digest).stderr
    assert "Retire 1 worker of group 'cpu'." in said
    assert counted(bilbo) == ["cpu", "gpu"]
    no_change_is_planned(bilbo)


def test_what_failed_half_way_is_completed(bilbo: Bilbo, sized: str) -> None:
    """Refused by AWS after workers were retired, the same command or `create` puts all right."""
    bilbo("scale", NAME, "cpu=2")
    bilbo("local", "fault", "deny=autoscaling:UpdateAutoScalingGroup")
    refused = bilbo("scale", NAME, "cpu=1", code=None)
    assert refused.returncode in (1, 3)
    assert "autoscaling:UpdateAutoScalingGroup" in refused.stderr
    assert len(group(bilbo, "cpu")) == 2
    bilbo("local", "fault", "clear")
    bilbo("scale", NAME, "cpu=1")
    assert counted(bilbo) == ["cpu", "gpu"] and bilbo.record(NAME)["status"] == "ready"
    bilbo("scale", NAME, "cpu=2")
    bilbo("local", "fault", "deny=autoscaling:SetInstanceProtection")
    assert "SetInstanceProtection" in bilbo("scale", NAME, "cpu=1", code=1).stderr
    assert bilbo.record(NAME)["status"] == "partial"
    bilbo("local", "fault", "clear")
    bilbo("create", sized, "-p", "dask.worker.0.count=2")
    record = bilbo.record(NAME)
    assert record["status"] == "ready" and len(record["workers"]) == 3
    no_change_is_planned(bilbo, cpu=2)


def test_ctrl_c_while_it_scales(bilbo: Bilbo, sized: str) -> None:
    """Interrupted while workers join and while they leave, the same command completes it."""
    running = Running(bilbo.start("scale", NAME, "cpu=3"))
    running.wait_for("starting dask-worker")
    running.interrupt()
    assert running.end() == 130
    told("Ctrl-C while `scale` starts workers", errors(running.said), 130,
         "the cluster, which the same command completes")  # fmt: skip
    bilbo("scale", NAME, "cpu=3")
    assert bilbo.record(NAME)["status"] == "ready" and len(counted(bilbo)) == 4
    running = Running(bilbo.start("scale", NAME, "cpu=2"))
    running.wait_for("Retire 1 worker")
    running.interrupt()
    assert running.end() == 130
    told("Ctrl-C while `scale` retires workers", errors(running.said), 130,
         "the cluster, which the same command completes")  # fmt: skip
    bilbo("scale", NAME, "cpu=2")
    assert bilbo.record(NAME)["status"] == "ready" and counted(bilbo) == ["cpu", "cpu", "gpu"]
    no_change_is_planned(bilbo, cpu=2)


def test_data_is_not_dropped_unasked(bilbo: Bilbo, sized: str) -> None:
    """The last workers go with what they hold only by force, in `scale` as in `create`, where -y
    agrees to ending machines alone; without machines, all is well."""
    from distributed import Client

    connect: Any = Client
    with connect(bilbo.record(NAME)["dask_scheduler_address"], set_as_default=False) as client:
        held = client.submit(lambda: 42, pure=False)
        assert held.result() == 42
        refused = bilbo("scale", NAME, "cpu=0", "gpu=0", code=1).stderr
        assert "hold what no other worker can take" in refused and "--force" in refused
        assert len(group(bilbo, "cpu")) == 2
        none = ("-p", "dask.worker.0.count=0", "-p", "dask.worker.1.count=0")
        refused = bilbo("create", sized, *none, "-y", code=1).stderr
        assert "hold what no other worker can take" in refused and "--force" in refused
        assert len(group(bilbo, "cpu")) == 2 and held.result() == 42
        bilbo("create", sized, *none, "-y", "--force")
    assert group(bilbo, "cpu") == group(bilbo, "gpu") == set()
    bilbo("scale", NAME, "gpu=1")
    assert counted(bilbo) == ["gpu"]
    with connect(bilbo.record(NAME)["dask_scheduler_address"], set_as_default=False) as client:
        held = client.submit(lambda: 42, pure=False)
        assert held.result() == 42
        assert "--force" in bilbo("scale", NAME, "gpu=0", code=1).stderr
        bilbo("scale", NAME, "gpu=0", "--force")
    assert group(bilbo, "gpu") == set()
    bilbo("destroy", NAME, "-y")
    nothing_is_left(bilbo.home)
    assert json.loads(bilbo("clusters", "--json").stdout) == []
