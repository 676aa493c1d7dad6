"""Spot instances: how a group buys them, what happens when AWS takes one back, and on demand what
spot cannot give."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, clients, nothing_is_left
from reliability import told
from waiting import eventually

from bilbo import local
from bilbo.agent import spot
from bilbo.agent.service import HostedService
from bilbo.agent.spot import Metadata, Reclaim, ends_at
from bilbo.aws import quotas
from bilbo.cluster.purchases import purchase_notes, with_purchases
from bilbo.engines import ENGINES
from bilbo.errors import ProfileError, ReviewError
from bilbo.model import ClusterSpec, Inventory, Node
from bilbo.present import report
from bilbo.profile import building
from bilbo.remote.agent_session import agent_source
from bilbo.remote.watching import PROGRAMS
from bilbo.services import stage_plan
from bilbo.terraform import hint_for

HOST = "i-0123456789abcdef0"


def spec_of(worker: Any) -> ClusterSpec:
    return building.build({"instance": INSTANCE, "dask": {"worker": worker}}, "c", "us-east-1")


# -- what a state knows --------------------------------------------------------------------


def state(percentage: int, base: int = 0, size: int = 3, **more: Any) -> dict[str, Any]:
    """Terraform's state of the group of workers."""
    distribution = {
        "on_demand_base_capacity": base,
        "on_demand_percentage_above_base_capacity": percentage,
    }
    policy = {"instances_distribution": [distribution], "launch_template": [more]}
    attributes = {
        "name": "c-dask-worker",
        "desired_capacity": size,
        "mixed_instances_policy": [policy],
    }
    group = {"type": "aws_autoscaling_group", "instances": [{"attributes": attributes}]}
    return {"resources": [group]}


@pytest.mark.parametrize(
    ("worker", "before", "on_demand"),
    [
        ({"count": 3, "spot": True}, {}, None),  # new
        ({"count": 3, "spot": True}, state(0), 0),
        ({"count": 3, "spot": "fallback"}, state(0, base=2), 2),  # raised before, and so it stays
        ({"count": 1, "spot": "fallback"}, state(0, base=2), 1),
        ({"count": 0, "spot": "fallback"}, state(0, base=2), 0),  # begins anew
        ({"count": 4, "spot": True}, state(100), 3),  # what runs stays
        ({"count": 3}, state(0, base=2), None),
        ({"count": 3, "spot": True}, state(True, base="x"), 3),  # type: ignore[arg-type]
        ({"count": 3, "spot": True}, {"resources": [{"type": "aws_autoscaling_group"}, 1]}, None),
    ],
)
def test_what_runs_on_demand_is_in_the_state(
    worker: Any, before: dict[str, Any], on_demand: int | None
) -> None:
    """A group's on-demand base is what the state says, as far as the count goes; running workers
    of a group that becomes one of spot instances stay."""
    (group,) = with_purchases(spec_of(worker), before).workers
    assert group.on_demand == on_demand


def test_types_that_a_group_had_are_taken_away() -> None:
    """Terraform's provider keeps overrides that the files no longer name: one is named."""
    typed = state(100, override=[{"instance_type": "m5.large"}])
    (group,) = with_purchases(spec_of({"count": 3}), typed).workers
    assert group.ec2types == ("t3.micro",) and group.types
    (group,) = with_purchases(spec_of({"count": 3}), state(100)).workers
    assert not group.types


SAID = [
    ({"count": 4, "spot": True}, state(100), "its 3 running worker(s) stay, on demand"),
    ({"count": 3}, state(0), "is no longer one of spot instances"),
    ({"spot": True}, state(0), ""),
    ({}, state(100), ""),
    ({"spot": True}, {}, ""),
    ({"spot": True}, state(100, size=0), ""),
]


@pytest.mark.parametrize(("worker", "before", "said"), SAID)
def test_a_change_of_purchase_is_said(worker: Any, before: dict[str, Any], said: str) -> None:
    """Running workers stay, whichever way a group changes; nothing is said where nothing does."""
    notes = purchase_notes(with_purchases(spec_of(worker), before), before)
    assert [said in note for note in notes] == [True] * bool(said)


def test_a_saved_plan_with_fallback_is_refused() -> None:
    """It could not hold the second apply; with spot alone it can."""
    from bilbo.cluster.reviewed import must_be_one_apply

    must_be_one_apply(spec_of({"spot": True}))
    with pytest.raises(ReviewError, match="in a second apply"):
        must_be_one_apply(spec_of({"spot": "fallback"}))


def test_the_plan_says_it() -> None:
    """Types and purchase are in the plan's block of the group."""
    spec = spec_of({"count": 4, "spot": "fallback", "types": ["t3a.micro"]})
    (group,) = spec.workers
    text = report.plan_blocks(replace(spec, workers=(replace(group, on_demand=1),)), {})
    assert "    Instance Type: t3.micro or t3a.micro\n" in text
    assert "    Spot: yes, on demand what spot cannot give; 1 of them on demand now." in text


def test_types_of_two_architectures_are_refused() -> None:
    """One AMI starts on one of them; the names tell which, without AWS."""
    with pytest.raises(ProfileError) as caught:
        spec_of([{"name": "mixed", "types": ["t3a.micro", "t4g.micro", "g5.xlarge"]}])
    (line,) = caught.value.details
    assert "dask.worker.0.types.1: t4g.micro runs arm64, but t3.micro x86_64" in line


def test_spot_has_quotas_of_its_own() -> None:
    """Spot instances count towards other quotas than those on demand: by the smallest type, where
    all are of one family. With `fallback` a quota of spot is no obstacle."""
    more = [(group, 4) for group in spec_of([
        {"name": "a", "spot": True, "types": ["m5.large"]},
        {"name": "b", "spot": True, "types": ["g5.xlarge"]},
        {"name": "c", "spot": "fallback"},
        {"name": "d"},
    ]).workers]  # fmt: skip
    sizes = {"t3.micro": 2, "m5.large": 4, "g5.xlarge": 4}
    assert quotas.codes(more) == ["L-1216C47A", "L-34B43A08"]
    allowed = {"L-1216C47A": 8.0, "L-34B43A08": 8.0}
    assert quotas.vcpus(more, sizes, {}, allowed) == []
    (said,) = quotas.vcpus(more, sizes, {"L-34B43A08": 1}, allowed)
    assert said.startswith("8 more vCPUs of Standard") and "spot instances are needed" in said


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Could not launch Spot Instances. UnfulfillableCapacity - Unable to", "more `types`"),
        ("InsufficientInstanceCapacity - There is no Spot capacity available", "more `types`"),
        ("Max spot instance count exceeded. Launching EC2 instance failed.", "quota of spot"),
        ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", "spot.amazonaws.com"),
        ("We currently do not have sufficient m5.large capacity in the zone", "another ec2type"),
    ],
)
def test_hints_on_spot(message: str, said: str) -> None:
    """What AWS says of spot instances has advice of its own."""
    assert said in hint_for(message)


# -- the notice ----------------------------------------------------------------------------


def test_spot_workers_watch_for_the_notice() -> None:
    """Each worker of a spot group, and each spot machine, is told how to leave; no other."""
    nodes = [
        Node("worker", name, f"i-{n}", "", "127.0.0.1", "", "t3.micro", "ami-1", "k", "u", "~/k")
        for n, name in enumerate(("cheap", "own", "own"))
    ]
    nodes[2] = replace(nodes[2], spot=True)
    spec = spec_of([{"name": "cheap", "spot": True}, {"name": "own"}])
    head = replace(nodes[0], role="scheduler", group="scheduler", private_ip="127.0.0.9")
    plan = stage_plan(spec, Inventory(head=head, workers=tuple(nodes)), "token")
    assert [sorted(each.watches) for each in plan.workers] == [["spot"], [], ["spot"]]
    settings = plan.workers[0].watches["spot"]()
    assert settings["host"] == "i-0" and settings["service"] == "dask-worker"
    assert settings["environment"]["DASK_SCHEDULER_ADDRESS"] == "tcp://127.0.0.9:8786"
    assert {engine.leave for engine in ENGINES.values()} == set(PROGRAMS)


class Ec2:
    """A machine's metadata, which want a token. `tokens` are those that are good."""

    def __init__(self) -> None:
        self.values = {"instance-life-cycle": "spot"}
        self.tokens: list[str] = []
        self.asked: list[str] = []
        ec2 = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                ec2.tokens.append(f"token {len(ec2.asked)}")
                self.answer(200, ec2.tokens[-1])

            def do_GET(self) -> None:
                if self.headers["X-aws-ec2-metadata-token"] not in ec2.tokens:
                    self.answer(401, "")
                    return
                name = self.path.partition("/latest/meta-data/")[2]
                ec2.asked.append(name)
                found = ec2.values.get(name)
                self.answer(200 if found else 404, found or "")

            def answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/machine"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, seconds: float) -> None:
        """Give the notice."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        self.values["spot/instance-action"] = json.dumps({"action": "terminate", "time": when})


@pytest.fixture
def ec2() -> Iterator[Ec2]:
    made = Ec2()
    yield made
    made.server.shutdown()
    made.server.server_close()


# Writes down what it is asked, and answers what the file `answer` beside it says.
LEAVE = """
import json, os, sys
folder = os.environ["FOLDER"]
asked = json.load(sys.stdin)
open(os.path.join(folder, "asked"), "a").write(json.dumps(asked) + "\\n")
print(open(os.path.join(folder, "answer")).read())
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[HostedService]:
    """A worker's service that runs, on a machine that has spot's settings."""
    folder = tmp_path / HOST
    folder.mkdir()
    settings = {
        "host": HOST,
        "service": "dask-worker",
        "program": "leave",
        "executables": [],
        "environment": {"FOLDER": str(folder)},
    }
    (folder / "spot.json").write_text(json.dumps(settings))
    (folder / "leave.py").write_text(LEAVE)
    (folder / "answer").write_text(json.dumps({"left": [HOST], "kept": []}))
    (folder / "supervisor.py").write_text(agent_source("supervisor"))
    (folder / "dask-worker.sh").write_text("exec sleep 1000")
    service = HostedService(folder, "dask-worker")
    service.launch()
    service.keep()
    yield service
    service.stop(1)


def asked(worker: HostedService) -> list[dict[str, Any]]:
    path = worker.folder / "asked"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ended(worker: HostedService) -> bool:
    """Whether the service has ended; its last process may be on its way out."""
    return eventually(lambda: worker.supervisor() is None)


def test_the_worker_leaves_at_the_notice(ec2: Ec2, worker: HostedService) -> None:
    """Before the notice nothing happens, afterwards the worker leaves through the head and does not
    come again; a worker that bilbo starts meanwhile leaves as well."""
    reclaim = Reclaim(worker.folder, Metadata(ec2.url))
    assert reclaim.look() is None
    assert worker.supervisor() and worker.wanted() and not asked(worker)
    ec2.tokens.clear()  # expired
    ec2.take(120)
    reclaim.look()
    assert asked(worker) == [{"groups": [{"hosts": [HOST], "leave": 1}], "must": False}]
    assert ended(worker) and not worker.wanted()
    note = json.loads((worker.folder / "reclaimed.json").read_text())
    assert note["left"] and 100 < note["end"] - note["at"] < 121
    reclaim.look()
    assert len(asked(worker)) == 1
    worker.launch()
    worker.keep()
    reclaim.look()
    assert len(asked(worker)) == 2 and ended(worker)


def test_what_nobody_can_take_stays_to_the_end(ec2: Ec2, worker: HostedService) -> None:
    """A worker whose results nobody can take is asked again and again, and in the last half minute
    it has to leave; a head that does not answer is no reason to end it."""
    reclaim = Reclaim(worker.folder, Metadata(ec2.url))
    answer = worker.folder / "answer"
    answer.write_text(json.dumps({"left": [], "kept": [HOST]}))
    ec2.take(120)
    reclaim.look()
    assert worker.supervisor() and not worker.wanted()
    answer.unlink()
    with pytest.raises(OSError, match="cannot leave: FileNotFoundError"):
        reclaim.look()
    assert worker.supervisor()
    answer.write_text(json.dumps({"left": [HOST], "kept": []}))
    ec2.take(20)
    reclaim.look()
    assert asked(worker)[-1]["must"] and ended(worker)


def test_on_demand_nobody_asks(ec2: Ec2, worker: HostedService) -> None:
    """A machine that AWS does not take back asks once what it is; one without settings, nothing."""
    ec2.values["instance-life-cycle"] = "on-demand"
    reclaim = Reclaim(worker.folder, Metadata(ec2.url))
    assert reclaim.look() == reclaim.look() == spot.ASLEEP
    assert ec2.asked == ["instance-life-cycle"]
    (worker.folder / "spot.json").unlink()
    assert Reclaim(worker.folder, Metadata(ec2.url)).look() == spot.ASLEEP
    assert ec2.asked == ["instance-life-cycle"]


@pytest.mark.parametrize(
    "notice", ["", "[]", '{"time": 3}', '{"time": "soon"}', '{"action": "stop"}']
)
def test_a_notice_without_a_time_is_one_of_two_minutes(notice: str) -> None:
    """The shape of the notice is AWS's; what it does not say is assumed."""
    assert 110 < ends_at(notice) - time.time() < 125


# -- a cluster -----------------------------------------------------------------------------

NAME = "spotty"


def bought(bilbo: Bilbo) -> dict[str, str]:
    """How AWS has bought the running workers."""
    ec2, groups = clients(bilbo.home)
    (found,) = groups.describe_auto_scaling_groups(AutoScalingGroupNames=[f"{NAME}-dask-worker"])[
        "AutoScalingGroups"
    ]
    ids = [each["InstanceId"] for each in found["Instances"]]
    return {
        each["InstanceId"]: each.get("InstanceLifecycle", "on demand")
        for one in ec2.describe_instances(InstanceIds=ids)["Reservations"]
        for each in one["Instances"]
        if each["State"]["Name"] == "running"
    }


def computed_though(bilbo: Bilbo, address: str, victim: str) -> None:
    """Two hundred tasks are right although AWS takes a worker back meanwhile: not by dying under
    its tasks, but because the scheduler is told that it leaves."""
    from distributed import Client

    def slow(number: int) -> int:
        time.sleep(0.25)
        return number * number

    client: Any = Client(address, set_as_default=False)
    with client:
        futures = client.map(slow, range(200), pure=False, retries=0)
        client.gather(futures[:10])
        local.inject(bilbo.home, f"spot={victim}:20")
        assert client.gather(futures) == [number * number for number in range(200)]
        log = "\n".join(text for _, text in client.get_scheduler_logs())
        assert "Retire worker" in log or "Retiring worker" in log, log


def test_a_spot_worker_is_taken_in_the_middle(bilbo: Bilbo) -> None:
    """A group with `fallback` has on demand what spot lacks, when its cluster is created. When AWS
    takes one of its spot workers back, no task is lost; its end is told, `create` refills with
    spot, and what runs on demand stays so: the next plan has nothing to do."""
    workers = {"count": 4, "spot": "fallback", "types": ["t3a.micro"], **ONE_PROCESS}
    profile = bilbo.profile(NAME, {"instance": INSTANCE, "dask": {"worker": workers}})
    local.start(bilbo.home)
    local.inject(bilbo.home, "spot_capacity=3")
    done = bilbo("--local", "create", profile)
    assert "Spot has no capacity for all 4 worker(s) of group 'worker': 1 run" in done.stderr
    assert sorted(bought(bilbo).values()) == ["on demand", "spot", "spot", "spot"]
    record = bilbo.record(NAME)
    assert record["status"] == "ready"
    assert {node["ec2type"] for node in record["workers"]} == {"t3.micro", "t3a.micro"}
    assert bilbo("desc", NAME).stdout.count(", spot\n") == 3
    victim = next(node["instance_id"] for node in record["workers"] if node["spot"])
    computed_though(bilbo, record["dask_scheduler_address"], victim)
    eventually(lambda: victim not in bought(bilbo), 60)
    said = bilbo("desc", NAME, "--refresh", code=3).stdout
    assert f"worker {victim} is gone: AWS has taken the spot instance back" in said
    amiss = said[said.index("Not as recorded") :]
    told(TAKEN, amiss, 3, "the other workers, which have its tasks and results")
    bilbo("create", profile)
    assert sorted(bought(bilbo).values()) == ["on demand", "spot", "spot", "spot"]
    planned = bilbo("plan", profile).stdout
    assert "Nothing to do." in planned and "1 of them on demand now" in planned
    bilbo("destroy", NAME, "-y")
    nothing_is_left(bilbo.home)


TAKEN = "AWS takes a spot worker back in the middle of a computation, as `desc --refresh` tells"
