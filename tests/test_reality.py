"""What of a cluster is as recorded, and what would mend the rest: decided from data alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bilbo import reality
from bilbo.model import NOTEBOOK, SCHEDULER, WORKER, Inventory, Node
from bilbo.present.condition import amiss, condition, condition_document
from bilbo.reality import CORRECT, LAUNCH, NOTHING, REACH, RENEW, START, WAIT, Reality, Told, judged
from bilbo.record import Record
from bilbo.status import ANOTHERS, HostStatus, InstanceDifference, ServiceStatus


def node(role: str, number: int) -> Node:
    """A machine of a role; its id and its addresses follow from the number."""
    address = f"10.0.0.{number}"
    return Node(role, role, f"i-{number}", address, address, "", "t3", "ami-1", "k", "u", "key")


NOTEBOOK_NODE, HEAD, ONE, TWO = (
    node(role, number) for number, role in enumerate([NOTEBOOK, SCHEDULER, WORKER, WORKER], 1)
)
INVENTORY = Inventory(NOTEBOOK_NODE, HEAD, (ONE, TWO))
SERVICES = {"i-1": "jupyter", "i-2": "dask-scheduler", "i-3": "dask-worker", "i-4": "dask-worker"}
ALL_IN = frozenset({"i-3-0", "i-3-1", "i-4-0", "i-4-1"})
RECORD = Record("t", "ready", "us-east-1", "dask", "2026-01-01T00:00:00+00:00", {}, "",
                inventory=INVENTORY)  # fmt: skip


def runs(name: str, *, age: float = 100.0, members: frozenset[str] | None = None) -> HostStatus:
    """A host whose service runs."""
    return HostStatus((ServiceStatus(name, running=True, age=age),), members)


def unsupervised(name: str) -> HostStatus:
    """A host whose service runs, and only its supervisor was killed."""
    service = ServiceStatus(name, running=True, age=100.0, unsupervised=True)
    return HostStatus((service,), ALL_IN if name == "dask-scheduler" else None)


def ended(name: str, code: int | None = 1, **more: Any) -> HostStatus:
    """A host whose service has ended."""
    return HostStatus((ServiceStatus(name, running=False, code=code, log=("why",), **more),))


WELL = Told(
    SERVICES,
    {"i-3": 2, "i-4": 2},
    {each.instance_id: ("running", each.public_ip) for each in INVENTORY.nodes()},
    {
        "i-1": runs("jupyter"),
        "i-2": runs("dask-scheduler", age=120.0, members=ALL_IN),
        "i-3": runs("dask-worker"),
        "i-4": runs("dask-worker"),
    },
)


def with_host(name: str, status: HostStatus | str, told: Told = WELL) -> Told:
    """The same, but one host answers otherwise."""
    return replace(told, hosts={**told.hosts, name: status})


def with_members(*names: str, age: float = 120.0) -> Told:
    """The same, but only these have joined a scheduler of this age."""
    return with_host("i-2", runs("dask-scheduler", age=age, members=frozenset(names)))


def in_aws(name: str, state: str, public_ip: str = "") -> Told:
    """The same, but AWS has one instance otherwise."""
    assert WELL.instances is not None
    return replace(WELL, instances={**WELL.instances, name: (state, public_ip)})


def without(name: str) -> Told:
    """The same, but AWS does not have one instance."""
    assert WELL.instances is not None
    return replace(WELL, instances={k: v for k, v in WELL.instances.items() if k != name})


YOUNG = with_host("i-3", runs("dask-worker", age=5.0), with_members("i-4-0", "i-4-1"))
OLDER_THAN_ITS_HEAD = with_host(
    "i-3", runs("dask-worker", age=30.0), with_members("i-4-0", "i-4-1", age=20.0)
)


@pytest.mark.parametrize(
    ("told", "name", "mend", "wrong"),
    [
        (WELL, "i-1", NOTHING, ""),
        (with_host("i-1", ended("jupyter", -9)), "i-1", START,
         "runs no jupyter: it was ended by signal 9"),
        (with_host("i-2", ended("dask-scheduler", 0)), "i-2", START,
         "runs no dask-scheduler: it ended with exit code 0"),
        (with_host("i-2", ended("dask-scheduler", 0)), "i-3", RENEW,
         "runs dask-worker, but there is no scheduler"),
        (with_host("i-3", ended("dask-worker", None)), "i-3", START,
         "runs no dask-worker: it was killed together with its supervisor"),
        (with_host("i-2", unsupervised("dask-scheduler")), "i-2", RENEW,
         "runs dask-scheduler, but its supervisor was killed: it must start anew"),
        (with_host("i-2", unsupervised("dask-scheduler")), "i-3", NOTHING, ""),
        (with_host("i-3", ended("dask-worker", None, rebooted=True)), "i-3", START,
         "runs no dask-worker: it ended when its machine was rebooted"),
        (with_host("i-3", ended("dask-worker", 1, restarting=True)), "i-3", WAIT,
         "is starting dask-worker again: it ended with exit code 1"),
        (with_host("i-3", HostStatus()), "i-3", START,
         "runs no dask-worker: it was never started"),
        (with_host("i-3", runs("jupyter")), "i-3", START,
         "runs no dask-worker: it was never started"),
        (with_host("i-3", "it refuses"), "i-3", REACH, "does not answer: it refuses"),
        (with_host("i-2", runs("dask-scheduler")), "i-2", WAIT,
         "runs dask-scheduler, but it does not answer"),
        (with_host("i-2", runs("dask-scheduler")), "i-3", NOTHING, ""),
        (with_members("i-3-1", "i-4-0", "i-4-1", "i-33-0"), "i-3", WAIT,
         "runs dask-worker, but 1 of its 2 processes has not joined the scheduler"),
        (with_members(), "i-3", RENEW,
         "runs dask-worker, but 2 of its 2 processes have not joined the scheduler"),
        (YOUNG, "i-3", WAIT,
         "runs dask-worker, but 2 of its 2 processes have not joined the scheduler"),
        (OLDER_THAN_ITS_HEAD, "i-3", RENEW,
         "runs dask-worker, but 2 of its 2 processes have not joined the scheduler"),
        (in_aws("i-2", "stopped"), "i-2", LAUNCH, "is stopped"),
        (in_aws("i-2", "stopped"), "i-3", RENEW, "runs dask-worker, but there is no scheduler"),
        (without("i-4"), "i-4", LAUNCH, "is gone"),
        (in_aws("i-1", "running", "10.9.9.9"), "i-1", CORRECT, "has another address, 10.9.9.9"),
        (replace(WELL, instances=None), "i-1", NOTHING, ""),
        (replace(WELL, members={}), "i-3", NOTHING, ""),
    ],
)  # fmt: skip
def test_what_mends_a_machine(told: Told, name: str, mend: str, wrong: str) -> None:
    """Each machine is judged by what AWS, its host and the engine's head tell."""
    seen = judged(INVENTORY, told)
    (machine,) = (each for each in seen.machines if each.node.instance_id == name)
    assert (machine.mend, "; ".join(machine.wrong)) == (mend, wrong)
    assert seen.well == all(not each.mend for each in seen.machines)


def test_an_address_and_a_dead_service_are_both_told() -> None:
    """A machine that was stopped and started has another address, and nothing runs on it."""
    told = with_host("i-1", ended("jupyter", None), in_aws("i-1", "running", "10.9.9.9"))
    machine = judged(INVENTORY, told).machines[0]
    assert machine.mend == START and len(machine.wrong) == 2 and machine.moved


def test_instances_that_the_record_does_not_know() -> None:
    """An instance of the cluster's own is amiss; another owner's is told, and is not."""
    mine = InstanceDifference("i-9", WORKER, "unknown")
    other = InstanceDifference("i-8", WORKER, ANOTHERS)
    assert not judged(INVENTORY, WELL, [mine, other]).well
    assert judged(INVENTORY, WELL, [other]).well
    assert judged(INVENTORY, in_aws("i-2", "stopped"), [mine]).differences() == [
        InstanceDifference("i-2", SCHEDULER, "stopped"),
        mine,
    ]


def test_nothing_is_well_that_nobody_has_told() -> None:
    """Without AWS's answer a cluster is not called well, although its hosts answer."""
    seen = judged(INVENTORY, replace(WELL, instances=None), trouble="AWS did not answer")
    assert not seen.well and not seen.to_mend() and not seen.head_is_dead
    assert "AWS did not answer" in "\n".join(amiss(RECORD, seen))


def test_workers_that_the_head_does_not_list() -> None:
    """As many processes must be listed as the worker once had; unknown counts as one."""
    assert reality.absent(INVENTORY, {"i-3": 2, "i-4": 2}, ALL_IN) == set()
    assert reality.absent(INVENTORY, {"i-3": 2}, {"i-3-0", "i-4"}) == {"i-3"}
    assert reality.absent(INVENTORY, {}, {"i-33"}) == {"i-3", "i-4"}


def test_what_is_shown() -> None:
    """Services by name, the dead with their log; workers lost with the head are only counted."""
    assert condition(RECORD, judged(INVENTORY, WELL)).splitlines() == [
        "Services:",
        "  jupyter runs on 1 of 1 machine(s), for 1m",
        "  dask-scheduler runs on 1 of 1 machine(s), for 2m",
        "  dask-worker runs on 2 of 2 machine(s), for 1m; 4 of 4 process(es) joined",
        "",
        "AWS and the hosts match the record.",
    ]
    again = ServiceStatus("jupyter", running=True, age=100.0, restarts=2)
    shown = condition(RECORD, judged(INVENTORY, with_host("i-1", HostStatus((again,)))))
    assert "\n  jupyter runs on 1 of 1 machine(s), for 1m; started again 2 time(s)\n" in shown
    dead = judged(INVENTORY, with_host("i-2", ended("dask-scheduler", 0)))
    assert dead.head_is_dead
    assert amiss(RECORD, dead) == [
        "Not as recorded:",
        "  [2] scheduler i-2 runs no dask-scheduler: it ended with exit code 0",
        "      | why",
        "  2 worker(s) must start anew with the scheduler",
        "To repair it, run `bilbo create` with its profile and -n t.",
    ]
    assert amiss(RECORD, judged(INVENTORY, YOUNG))[-1].startswith("It may mend itself")


def test_what_programs_read() -> None:
    """The document has each machine, its services, and what would mend it."""
    document = condition_document(judged(INVENTORY, with_host("i-1", ended("jupyter", -9))))
    assert not document["well"] and document["aws"] is None and document["differences"] == []
    first, second, third, _ = document["machines"]
    assert first["services"] == [
        {"name": "jupyter", "running": False, "supervised": False, "age": None, "exit_code": -9,
         "cause": "was ended by signal 9", "restarts": 0, "log": ["why"]}
    ]  # fmt: skip
    assert first["mend"] == "start" and second["answers"] and third["joined"] == 2
    assert Reality().well
