"""What breaks beside Terraform is seen, told and mended: one cluster, one fault at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, Bilbo, clients, nothing_is_left
from distributed import Client
from reliability import errors, told

NAME = "looked"
PROFILE = f"{NAME}.json"
PROCESSES = 2


@pytest.fixture(scope="module", autouse=True)
def looked(bilbo: Bilbo) -> Iterator[None]:
    """A cluster with a notebook, a scheduler, and a worker of two processes."""
    document = {
        "instance": INSTANCE,
        "notebook": {},
        "dask": {"worker": {"count": 1, "nproc": PROCESSES, "nthread": 1}},
    }
    bilbo("--local", "create", bilbo.profile(NAME, document))
    yield
    bilbo("destroy", NAME, "-y")
    nothing_is_left(bilbo.home)


def home_of(bilbo: Bilbo, node: dict[str, Any]) -> Path:
    """A machine's home folder."""
    return bilbo.home / "local" / "instances" / str(node["instance_id"]) / "home"


def end(bilbo: Bilbo, node: dict[str, Any], service: str) -> None:
    """`kill -9` of a service, its supervisor, and all that it started."""
    os.killpg(supervisor(bilbo, node, service), signal.SIGKILL)


def supervisor(bilbo: Bilbo, node: dict[str, Any], service: str) -> int:
    """The pid of a service's supervisor."""
    kept = home_of(bilbo, node) / ".bilbo" / NAME / str(node["instance_id"])
    return int(json.loads((kept / f"{service}.pid").read_text())["pid"])


def record_of(bilbo: Bilbo) -> dict[str, Any]:
    """The record on disk."""
    found: dict[str, Any] = json.loads(path_of(bilbo).read_text())
    return found


def path_of(bilbo: Bilbo) -> Path:
    """The record's file."""
    return bilbo.home / "clusters" / NAME / "cluster.json"


def client(bilbo: Bilbo) -> Client:
    """A client of the scheduler."""
    found: Client = Client(record_of(bilbo)["dask_scheduler_address"], set_as_default=False)
    return found


def computes(bilbo: Bilbo, processes: int = PROCESSES) -> None:
    """All processes are in, and compute."""
    with client(bilbo) as there:
        assert len(there.scheduler_info(n_workers=-1)["workers"]) == processes
        assert there.submit(sum, [1, 2, 3]).result(timeout=30) == 6


def computes_again(bilbo: Bilbo) -> None:
    """Without bilbo's doing, all processes are in before long, and compute."""
    deadline = time.monotonic() + 90
    while True:
        with contextlib.suppress(OSError, TimeoutError, AssertionError):
            return computes(bilbo)
        assert time.monotonic() < deadline
        time.sleep(0.5)


def until_amiss(bilbo: Bilbo, what: str) -> str:
    """What `desc --refresh` tells once it tells of `what`."""
    deadline = time.monotonic() + 60
    while True:
        done = bilbo("desc", NAME, "--refresh", code=None)
        if what in done.stdout:
            assert done.returncode == 3
            return done.stdout[done.stdout.index("Not as recorded:") :]
        assert time.monotonic() < deadline, done.stdout
        time.sleep(0.3)


def without_logs(shown: str) -> str:
    """What is told, without the lines of logs, which differ from run to run."""
    return "\n".join(line for line in shown.splitlines() if " | " not in line)


def machine(bilbo: Bilbo, role: str) -> dict[str, Any]:
    """A machine in `desc --refresh --json`."""
    document = json.loads(bilbo("desc", NAME, "--refresh", "--json", code=None).stdout)
    found: dict[str, Any] = next(each for each in document["machines"] if each["role"] == role)
    return {"well": document["well"], **found}


def test_all_is_well(bilbo: Bilbo) -> None:
    """What runs is told by name, for people and for programs."""
    text = bilbo("desc", NAME, "--refresh").stdout
    assert "AWS and the hosts match the record." in text
    assert "dask-worker runs on 1 of 1 machine(s)" in text and "2 of 2 process(es) joined" in text
    assert f"{NAME}: AWS and the hosts match" in bilbo("clusters", "--refresh").stdout
    worker = machine(bilbo, "worker")
    assert worker["well"] and (worker["joined"], worker["members"]) == (2, 2)


def test_jupyterlab_is_killed(bilbo: Bilbo) -> None:
    """A killed JupyterLab is told with its cause; `create` starts it and nothing else."""
    before = record_of(bilbo)
    end(bilbo, before["notebook"], "jupyter")
    shown = until_amiss(bilbo, "runs no jupyter")
    told("`kill -9` of JupyterLab and its supervisor, as `desc --refresh` tells",
         without_logs(shown), 3, "`create` starts it; all else goes on")  # fmt: skip
    (listed,) = json.loads(bilbo("clusters", "--refresh", "--json", code=3).stdout)
    seen = listed["machines"][0]
    assert seen["mend"] == "start" and not seen["services"][0]["running"]

    worker = before["workers"][0]
    os.kill(supervisor(bilbo, worker, "dask-worker"), signal.SIGKILL)
    until_amiss(bilbo, "runs dask-worker, but its supervisor was killed: it must start anew")
    computes(bilbo)
    (service,) = machine(bilbo, "worker")["services"]
    assert service["running"] and not service["supervised"]

    done = bilbo("create", PROFILE)
    assert "runs no jupyter" in done.stderr and "Nothing to do" not in done.stdout
    assert f"worker {worker['instance_id']} runs dask-worker, but its supervisor" in done.stderr
    assert "dask-scheduler is already running" in done.stderr
    assert machine(bilbo, "notebook")["well"]
    computes(bilbo)


def test_one_process_of_a_worker_gives_up(bilbo: Bilbo) -> None:
    """A worker that runs with fewer processes than it should is told; `scale` starts it anew."""
    worker = record_of(bilbo)["workers"][0]
    with client(bilbo) as there:
        there.retire_workers(names=[f"{worker['instance_id']}-1"], close_workers=True)
    shown = until_amiss(bilbo, "1 of its 2 processes has not joined")
    told("A process of a worker lost its connection, and its nanny gave up",
         without_logs(shown), 3, "`create` and `scale` start the worker anew")  # fmt: skip
    bilbo("scale", NAME, "1")
    computes(bilbo)


def test_the_scheduler_is_shut_down(bilbo: Bilbo) -> None:
    """After `Client.shutdown` the machines start scheduler and workers again; bilbo has nothing to
    do once they are back."""
    client(bilbo).shutdown()
    computes_again(bilbo)
    done = bilbo("create", PROFILE)
    told("`Client.shutdown()`, then `create`", done.stdout, 0,
         "the cluster, which computes again; what its workers had in memory is lost")  # fmt: skip


def test_the_scheduler_is_dead(bilbo: Bilbo) -> None:
    """Where nothing starts the scheduler again, `scale` names it and changes nothing; `restart` has
    all workers in again, wherever AWS has moved the machines meanwhile."""
    scheduler = record_of(bilbo)["scheduler"]
    os.kill(supervisor(bilbo, scheduler, "dask-scheduler"), signal.SIGKILL)
    done = bilbo("scale", NAME, "2", code=1)
    assert "its supervisor was killed: it must start anew" in done.stderr
    computes(bilbo)  # with all that its workers have in memory
    end(bilbo, scheduler, "dask-scheduler")
    shown = until_amiss(bilbo, "runs no dask-scheduler")
    told("`kill -9` of the scheduler and its supervisor, as `desc --refresh` tells",
         without_logs(shown), 3, "`create` or `restart` start all anew")  # fmt: skip
    for count in ("2", "0"):
        done = bilbo("scale", NAME, count, code=1)
        assert "bilbo restart" in done.stderr and "Traceback" not in done.stderr
    told("`scale` with a dead scheduler", without_logs(errors(done.stderr)), 1,
         "the machines, as they were")  # fmt: skip
    assert record_of(bilbo)["status"] == "partial"
    was = displaced(bilbo)
    assert "has another address" in bilbo("desc", NAME, "--refresh", code=3).stdout
    done = bilbo("restart", NAME)
    assert "has moved to" in done.stderr
    assert record_of(bilbo)["scheduler"]["public_ip"] == was
    computes(bilbo)


def displaced(bilbo: Bilbo, role: str = "scheduler") -> str:
    """Gives a machine another address in the record, as if it had moved; the true one. That costs
    less than to stop and start it, as a test below does."""
    path = path_of(bilbo)
    address: str = record_of(bilbo)[role]["public_ip"]
    moved = path.read_text().replace(f'"public_ip": "{address}"', '"public_ip": "127.3.3.3"')
    path.write_text(moved)
    return address


@pytest.mark.parametrize(
    "reach",
    [
        lambda bilbo: bilbo("notebook", NAME, "-u"),
        lambda bilbo: bilbo("rcmd", NAME, "scheduler", "true"),
        lambda bilbo: bilbo("logs", NAME, "scheduler", "-n", "1"),
        lambda bilbo: bilbo("dashboard", NAME, "-u"),
        lambda bilbo: bilbo("ssh", NAME, "scheduler"),  # a shell without input, which ends
    ],
    ids=["notebook", "rcmd", "logs", "dashboard", "ssh"],
)
def test_commands_go_on_at_a_new_address(
    bilbo: Bilbo, reach: Callable[[Bilbo], Any], request: pytest.FixtureRequest
) -> None:
    """A machine with another public address is found, told, and recorded there."""
    role = request.node.callspec.id if "notebook" in request.node.callspec.id else "scheduler"
    address = displaced(bilbo, role)
    began = time.monotonic()
    done = reach(bilbo)
    assert time.monotonic() - began < 20
    assert f"has moved to {address}" in done.stderr
    assert record_of(bilbo)[role]["public_ip"] == address
    if done.args[3] in ("dashboard", "notebook"):
        assert done.stdout.startswith(f"http://{address}:")


def test_dask_ends_an_idle_scheduler(bilbo: Bilbo) -> None:
    """A scheduler that ended by Dask's own `idle-timeout` is started again."""

    def hasten(dask_scheduler: Any) -> None:
        """As with the setting, but only once all have joined."""
        from tornado.ioloop import PeriodicCallback

        vars(dask_scheduler)["idle_timeout"] = 0.5
        PeriodicCallback(dask_scheduler.check_idle, 100).start()

    before = identity(bilbo)
    with client(bilbo) as there:
        there.run_on_scheduler(hasten)
    deadline = time.monotonic() + 60
    while identity(bilbo) in ("", before):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    computes_again(bilbo)
    said = bilbo("logs", NAME, "scheduler", "-n", "2000").stdout.splitlines()
    line = next(each for each in reversed(said) if "bilbo: " in each)
    told("Dask's `idle-timeout` ends the scheduler",
         re.sub(r"in \d+ s", "in … s", line[line.index("bilbo: ") :]), 0,
         "the cluster, which computes again")  # fmt: skip


def identity(bilbo: Bilbo) -> str:
    """Which scheduler answers; empty if none does."""
    try:
        with Client(
            record_of(bilbo)["dask_scheduler_address"], set_as_default=False, timeout=5
        ) as there:
            return str(there.scheduler_info()["id"])
    except (OSError, TimeoutError):
        return ""


def test_machines_are_stopped_and_started(bilbo: Bilbo) -> None:
    """While a machine is stopped `restart` stops nothing; after its start, and a reboot of the
    others, `create` has the cluster computing again, and then nothing to do."""
    before = record_of(bilbo)
    ids = [before["scheduler"]["instance_id"]]
    others = [before["notebook"]["instance_id"], before["workers"][0]["instance_id"]]
    ec2, _ = clients(bilbo.home)
    ec2.stop_instances(InstanceIds=ids)
    ec2.get_waiter("instance_stopped").wait(InstanceIds=ids, WaiterConfig={"Delay": 1})
    done = bilbo("restart", NAME, code=1)
    assert "does not run in AWS; nothing was stopped" in done.stderr
    told("`restart` while the scheduler's machine is stopped", errors(done.stderr), 1,
         "the cluster, as it was")  # fmt: skip
    ec2.start_instances(InstanceIds=ids)
    ec2.reboot_instances(InstanceIds=others)
    bilbo("create", PROFILE)
    computes(bilbo)
    assert "Nothing to do." in bilbo("create", PROFILE).stdout
    shown = bilbo("desc", NAME, "--refresh").stdout
    told("The scheduler's machine is stopped and started, the others rebooted; then `create`, "
         "as `desc --refresh` tells", shown[shown.index("AWS and the hosts"):], 0,
         "the cluster, which computes again")  # fmt: skip
