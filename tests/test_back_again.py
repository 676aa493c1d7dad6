"""A cluster whose machines boot and whose services die: it computes again, without bilbo.

`make chaos` runs any fault at random for 50 rounds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, client, nothing_is_left
from distributed import Client
from reliability import told
from waiting import eventually

from bilbo import local

ROUNDS = int(os.environ.get("BILBO_CHAOS_ROUNDS", "2"))
SEED = os.environ.get("BILBO_CHAOS_SEED") or str(time.time_ns())
# Deaths within ten minutes after which a service's supervisor gives up with the next ones: such a
# service needs `create`, whatever the fault. A fault costs a worker two at most.
TIRED = 4


def ended(pids: list[int]) -> None:
    """Until none of the processes is there any more."""
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 60)


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
        self.ec2 = client(bilbo.home, "ec2")

    def moved(self, url: str, node: dict[str, Any]) -> str:
        """A recorded address as it is now: a machine that was stopped has another."""
        (found,) = self.ec2.describe_instances(InstanceIds=[node["instance_id"]])["Reservations"]
        now = found["Instances"][0].get("PublicIpAddress", "192.0.2.1")
        return url.replace(f"//{node['public_ip']}:", f"//{now}:")

    @property
    def address(self) -> str:
        """Where the scheduler is."""
        return self.moved(self.record["dask_scheduler_address"], self.record["scheduler"])

    def create(self) -> None:
        """`create`, and again as it says, until the cluster is whole."""

        def done() -> bool:
            said = self.bilbo("create", self.profile, code=None)
            assert said.returncode in (0, 3), said.stderr
            return said.returncode == 0

        eventually(done, 300)
        self.record = self.bilbo.record("back")

    def home(self, node: dict[str, Any]) -> Path:
        """A machine's folder of the cluster."""
        home = self.bilbo.home / "local" / "instances" / str(node["instance_id"]) / "home"
        return home / ".bilbo" / "back" / str(node["instance_id"])

    def supervisor(self, node: dict[str, Any], service: str) -> int:
        return int(json.loads((self.home(node) / f"{service}.pid").read_text())["pid"])

    def runs(self, node: dict[str, Any], service: str) -> list[int]:
        """The processes of the service that its supervisor started."""
        supervisor = self.supervisor(node, service)
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
        return [int(pid) for pid in children.split()]

    def kill(self, node: dict[str, Any], service: str) -> None:
        """Kill the service itself, its supervisor not."""
        for pid in self.runs(node, service):
            os.kill(pid, signal.SIGKILL)

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Every machine by its service, a worker's with its place: `dask-worker 0`."""
        workers = {f"dask-worker {n}": node for n, node in enumerate(self.record["workers"])}
        return {
            "jupyter": self.record["notebook"],
            "dask-scheduler": self.record["scheduler"],
            **workers,
        }

    def tired(self) -> bool:
        """Whether a service has died so often of late that it may not be started again."""

        def deaths(service: str, node: dict[str, Any]) -> int:
            runs = json.loads((self.home(node) / f"{service.split()[0]}.runs").read_text())
            return sum(1 for run in runs["ended"] if run["at"] > time.time() - 600)

        return any(deaths(service, node) >= TIRED for service, node in self.nodes().items())

    def computes(self, workers: int = 2) -> None:
        """The scheduler has so many workers, and each of them computes."""

        def answers() -> bool:
            try:
                with Client(self.address, timeout=5, set_as_default=False) as asked:
                    asked.wait_for_workers(workers, timeout=20)
                    there = list(asked.scheduler_info(n_workers=-1)["workers"])
                    each = [asked.submit(pow, 2, 5, pure=False, workers=[one]) for one in there]
                    assert all(one.result(timeout=20) == 32 for one in each)
                    return len(there) == workers
            except (OSError, TimeoutError, CancelledError):
                return False

        eventually(answers, 300)

    def notebook(self) -> bool:
        """Whether JupyterLab answers to the token."""
        url = self.record["notebook_url"].replace("?", "api/status?", 1)
        url = self.moved(url, self.record["notebook"])
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
    eventually(back.notebook, 30)
    said = back.bilbo("logs", "back", "scheduler").stdout
    (line,) = (line for line in said.splitlines() if "bilbo: " in line)
    told("A scheduler is killed", line[line.index("bilbo: ") :], 0,
         "the cluster, which computes again; what its workers had in memory is lost")  # fmt: skip
    os.kill(back.supervisor(back.record["notebook"], "jupyter"), signal.SIGKILL)
    seen = back.bilbo("desc", "back", "--refresh", code=3).stdout
    assert back.notebook()  # the next test's boot starts it anew
    told("`kill -9` of a service's supervisor, as `desc --refresh` tells",
         "".join(seen[seen.index("Not as recorded:"):].splitlines(keepends=True)[:2]), 3,
         "the service, which goes on; `create` or a boot starts it anew")  # fmt: skip


def test_machines_that_boot_come_back(back: Back) -> None:
    """By a reboot of all, and by a stop and start of the scheduler's alone."""
    nodes = [back.record["notebook"], back.record["scheduler"], *back.record["workers"]]
    before = [back.supervisor(node, "dask-worker") for node in back.record["workers"]]
    back.ec2.reboot_instances(InstanceIds=[node["instance_id"] for node in nodes])
    ended(before)
    back.computes()
    eventually(back.notebook, 30)
    scheduler = [back.record["scheduler"]["instance_id"]]
    back.ec2.stop_instances(InstanceIds=scheduler)
    time.sleep(3)  # the workers die of it, and wait
    back.ec2.start_instances(InstanceIds=scheduler)
    back.computes()
    said = back.bilbo("create", back.profile).stdout
    told("All machines reboot, and the scheduler's is stopped and started in the console", said, 0,
         "the cluster, which computes again")  # fmt: skip


class Chaos:
    """Faults of a cluster of a notebook, a scheduler and two workers, chosen by `chance`. Each
    returns what it did, and whether waiting alone mends that."""

    def __init__(self, back: Back, chance: random.Random) -> None:
        self._back = back
        self._chance = chance
        self._faults = (
            self.kill_a_service,
            self.reboot,
            self.stop_and_start,
            self.break_a_connection,
            self.shut_down,
            self.kill_a_supervisor,
        )

    def any_fault(self) -> tuple[str, bool]:
        """One of the faults."""
        return self._chance.choice(self._faults)()

    def _service(self) -> tuple[str, dict[str, Any]]:
        return self._chance.choice(list(self._back.nodes().items()))

    def kill_a_service(self) -> tuple[str, bool]:
        service, node = self._service()
        self._back.kill(node, service.split()[0])
        return f"kill -9 of {service}", True

    def reboot(self) -> tuple[str, bool]:
        nodes = self._back.nodes()
        chosen = self._chance.sample(list(nodes), self._chance.randint(1, len(nodes)))
        ids = [nodes[service]["instance_id"] for service in chosen]
        before = [self._back.supervisor(nodes[each], each.split()[0]) for each in chosen]
        self._back.ec2.reboot_instances(InstanceIds=ids)
        ended(before)
        return f"reboot of the machines of {', '.join(chosen)}", True

    def stop_and_start(self) -> tuple[str, bool]:
        """A worker's group takes a machine that is stopped for lost; `create` starts it."""
        service, node = self._service()
        ids = [node["instance_id"]]
        self._back.ec2.stop_instances(InstanceIds=ids)
        if "worker" in service:
            return f"stop of {service}'s machine", False
        waiter = self._back.ec2.get_waiter("instance_stopped")
        waiter.wait(InstanceIds=ids, WaiterConfig={"Delay": 1})
        self._back.ec2.start_instances(InstanceIds=ids)
        return f"stop and start of {service}'s machine", True

    def break_a_connection(self) -> tuple[str, bool]:
        worker = self._chance.choice(self._back.record["workers"])
        before = self._back.runs(worker, "dask-worker")

        def abort(name: str, dask_scheduler: Any) -> None:
            dask_scheduler.stream_comms[dask_scheduler.aliases[name]].abort()

        with Client(self._back.address, timeout=60, set_as_default=False) as client:
            client.run_on_scheduler(abort, worker["instance_id"])
        ended(before)
        return "a broken connection between a worker and the scheduler", True

    def shut_down(self) -> tuple[str, bool]:
        before = self._back.runs(self._back.record["scheduler"], "dask-scheduler")
        Client(self._back.address, timeout=60, set_as_default=False).shutdown()
        ended(before)
        return "Client.shutdown()", True

    def kill_a_supervisor(self) -> tuple[str, bool]:
        """The service goes on, but nothing would start it again."""
        service, node = self._service()
        os.kill(self._back.supervisor(node, service.split()[0]), signal.SIGKILL)
        return f"kill -9 of {service}'s supervisor", False


@pytest.mark.timeout(300 + 300 * ROUNDS)
def test_any_fault_mends_by_waiting_or_by_create(back: Back) -> None:
    """Any fault at any service; then `create`, or nothing where the cluster mends itself."""
    chance = random.Random(SEED)
    print(f"\nBILBO_CHAOS_SEED={SEED}")
    chaos = Chaos(back, chance)
    back.computes()
    for number in range(1, ROUNDS + 1):
        waits = chance.choice((True, False))
        tired = back.tired()
        what, alone = chaos.any_fault()
        began = time.monotonic()
        if waits and alone and not tired:
            how = "waiting"
        else:
            how = "create"
            back.create()
        back.computes()
        eventually(back.notebook, 300)
        print(f"round {number}: {what}; {how}: {time.monotonic() - began:.0f} s", flush=True)
    back.create()
    assert "Nothing to do." in back.bilbo("create", back.profile).stdout


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
    ended([before])
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
