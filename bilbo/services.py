"""What each host of a cluster runs, decided without looking at any of them.

An engine is an `Engine`: what its head and its workers run, what ready means, and what a notebook
must know of it. `stage_plan` puts engine and notebook together for `remote` to carry out.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from urllib.parse import quote

from bilbo.model import (
    ClusterSpec,
    HostPlan,
    Inventory,
    Measurement,
    Node,
    NodeGroup,
    Page,
    Service,
    StagePlan,
)

SCHEDULER_PORT = 8786
DASHBOARD_PORT = 8787
NOTEBOOK_PORT = 8888

TOKEN_FILE = "jupyter.token"
HERE = 'here=$(cd -- "$(dirname "$0")" && pwd)'  # the folder that a script lies in
DASK_PACKAGES = (
    *("dask", "distributed", "cloudpickle", "msgpack"),
    *("numpy", "pandas", "pyarrow", "lz4", "s3fs"),
)
# What Dask's processes speak to each other in; the others differ at the user's own risk.
DASK_BREAKING = ("distributed", "msgpack", "cloudpickle")
JUPYTER_PACKAGES = ("jupyterlab", "jupyter_server")


class WorkerSize(NamedTuple):
    """A worker host's processes, threads per process, and bytes of memory per process."""

    nworkers: int
    nthreads: int
    memory_limit: int


@dataclass(frozen=True)
class Engine:
    """What bilbo needs to know of a way to compute.

    `head` and `worker` make what is started: the head first and alone, the workers once its page
    answers. `roll` is where the head tells who has joined. `notebook` is the environment by which
    a notebook finds the cluster without being told. `packages` ought to agree between hosts and
    clients; where one of `breaking` does not, they cannot work together. `leave` is the agent's
    program that, run on the head's host in the notebook's environment, lets workers leave.
    """

    name: str
    head: Callable[[ClusterSpec, Node], HostPlan]
    worker: Callable[[ClusterSpec, Node, Node], HostPlan]
    roll: Callable[[Node], Page]
    notebook: Callable[[Node], Mapping[str, str]]
    packages: tuple[str, ...]
    breaking: tuple[str, ...]
    leave: str


def stage_plan(spec: ClusterSpec, inventory: Inventory, token: str) -> StagePlan:
    """What to start where. Workers without a head are planned too, so that they are reported."""
    engine = ENGINES[spec.engine] if spec.engine else None
    head = inventory.head
    return StagePlan(
        cluster=spec.name,
        head=engine.head(spec, head) if engine and head else None,
        notebook=notebook_plan(spec, inventory, token, engine) if inventory.notebook else None,
        workers=tuple(
            engine.worker(spec, node, head or node) for node in inventory.workers if engine
        ),
        roll=engine.roll(head) if engine and head else None,
        breaking=engine.breaking if engine else (),
    )


def worker_size(measurement: Measurement, group: NodeGroup) -> WorkerSize:
    """A process per logical CPU, a thread per thread of a core, the memory shared out evenly;
    the group's `nproc` and `nthread` go before."""
    nworkers = group.nproc or measurement.cpus
    nthreads = group.nthread or measurement.threads_per_core
    return WorkerSize(nworkers, nthreads, measurement.memory // nworkers)


def address(node: Node) -> str:
    """Where people reach a node: its public address, if it has one."""
    return node.public_ip or node.private_ip


def notebook_url(node: Node, token: str) -> str:
    """JupyterLab's address for a browser, the token included."""
    return f"http://{address(node)}:{NOTEBOOK_PORT}/?token={quote(token, safe='')}"


def dask_scheduler_address(node: Node) -> str:
    """The scheduler's address for a `Client` outside the cluster."""
    return f"tcp://{address(node)}:{SCHEDULER_PORT}"


def dask_dashboard_url(node: Node) -> str:
    """The scheduler's dashboard for a browser."""
    return f"http://{address(node)}:{DASHBOARD_PORT}/status"


def group_of(spec: ClusterSpec, node: Node) -> NodeGroup:
    """The group that a node belongs to. Raises KeyError where the two are of different clusters."""
    return {group.name: group for group in spec.groups()}[node.group]


def bash(what: str, lines: list[str], command: list[str]) -> str:
    """A script for people to read: `lines`, then `command` in place of the shell.

    `command` has one option a line, each already quoted for the shell.
    """
    start = ["#!/bin/bash", f"# Written by bilbo: {what}."]
    end = ['cd "$HOME" || exit', "exec " + " \\\n    ".join(command)]
    return "\n".join([*start, *lines, *end]) + "\n"


def options(values: Mapping[str, object]) -> list[str]:
    """`--name value` for each, quoted."""
    return [f"--{name} {shlex.quote(str(value))}" for name, value in values.items()]


def dask_head(spec: ClusterSpec, node: Node) -> HostPlan:
    """A Dask scheduler, ready when it tells who it is."""
    host = node.private_ip
    command = options(
        {"host": host, "port": SCHEDULER_PORT, "dashboard-address": f"{host}:{DASHBOARD_PORT}"}
    )
    service = Service(
        name="dask-scheduler",
        script=bash(f"Dask's scheduler of cluster {spec.name}", [], ["dask scheduler", *command]),
        listens=((host, SCHEDULER_PORT), (host, DASHBOARD_PORT)),
        page=dask_roll(node),
    )
    return dask_host(spec, node, service.name, lambda _: service)


def dask_worker(spec: ClusterSpec, node: Node, head: Node) -> HostPlan:
    """A Dask worker, its size measured on its host, ready when the scheduler knows its name."""
    make = partial(dask_worker_service, spec, node, head)
    return dask_host(spec, node, "dask-worker", make, replace=True)


def dask_worker_service(
    spec: ClusterSpec, node: Node, head: Node, measurement: Measurement
) -> Service:
    """The worker of one host, named after its instance so that the scheduler can tell who is in."""
    group = group_of(spec, node)
    size = worker_size(measurement, group)
    command = options(
        {
            "host": node.private_ip,
            "name": node.instance_id,
            "nworkers": size.nworkers,
            "nthreads": size.nthreads,
            "memory-limit": size.memory_limit,
            "dashboard-address": f"{node.private_ip}:0",
        }
    )
    if group.resources:
        command += options({"resources": group.offers})
    scheduler = shlex.quote(f"tcp://{head.private_ip}:{SCHEDULER_PORT}")
    where = '--local-directory "$here/scratch"'
    return Service(
        name="dask-worker",
        script=bash(
            f"Dask's worker of cluster {spec.name}",
            [HERE],
            [f"dask worker {scheduler}", *command, where],
        ),
        members=dask_member_names(node.instance_id, size.nworkers),
        facts=size._asdict(),
    )


def dask_member_names(instance_id: str, nworkers: int) -> tuple[str, ...]:
    """The names under which Dask's scheduler knows the processes of one `dask worker --name`."""
    if nworkers == 1:
        return (instance_id,)
    return tuple(f"{instance_id}-{number}" for number in range(nworkers))


def dask_host(
    spec: ClusterSpec,
    node: Node,
    name: str,
    service: Callable[[Measurement], Service],
    *,
    replace: bool = False,
) -> HostPlan:
    """What every host of Dask's must have."""
    return HostPlan(
        node=node,
        service_name=name,
        service=service,
        executables=("dask",),
        packages=DASK_PACKAGES,
        oldest={"dask": "2024.1"},
        init_cmd=group_of(spec, node).machine.init_cmd,
        requirements=group_of(spec, node).machine.packages,
        replace=replace,
    )


def dask_roll(node: Node) -> Page:
    """The scheduler's page on itself, all its workers included."""
    return Page(node.private_ip, DASHBOARD_PORT, "/json/identity.json")


def dask_environment(head: Node) -> Mapping[str, str]:
    """What `Client()` without an argument looks for."""
    return {"DASK_SCHEDULER_ADDRESS": f"tcp://{head.private_ip}:{SCHEDULER_PORT}"}


DASK = Engine(
    name="dask",
    head=dask_head,
    worker=dask_worker,
    roll=dask_roll,
    notebook=dask_environment,
    packages=DASK_PACKAGES,
    breaking=DASK_BREAKING,
    leave="leave_dask",
)

ENGINES: Mapping[str, Engine] = {engine.name: engine for engine in (DASK,)}


def notebook_plan(
    spec: ClusterSpec, inventory: Inventory, token: str, engine: Engine | None
) -> HostPlan:
    """JupyterLab, ready when its API accepts the token.

    A running one is never restarted for a change: a person's kernels are in it.
    """
    node = inventory.notebook
    if node is None:
        raise ValueError("the inventory has no notebook")
    known = engine.notebook(inventory.head) if engine and inventory.head else {}
    service = Service(
        name="jupyter",
        script=notebook_script(spec, node, known),
        files={TOKEN_FILE: token},
        listens=((node.private_ip, NOTEBOOK_PORT),),
        page=Page(
            node.private_ip, NOTEBOOK_PORT, "/api/status", {"Authorization": f"token {token}"}
        ),
    )
    return HostPlan(
        node=node,
        service_name=service.name,
        service=lambda _: service,
        executables=("jupyter", "jupyter-lab"),
        packages=(*JUPYTER_PACKAGES, *(engine.packages if engine else ())),
        init_cmd=group_of(spec, node).machine.init_cmd,
        requirements=group_of(spec, node).machine.packages,
    )


def notebook_script(spec: ClusterSpec, node: Node, environment: Mapping[str, str]) -> str:
    """JupyterLab reads its token from a file that only the user can read: argv is for everyone to
    see, and an environment variable is inherited, and may be printed, by every kernel."""
    lines = [HERE, "unset JUPYTER_TOKEN", f'export JUPYTER_TOKEN_FILE="$here/{TOKEN_FILE}"']
    # JupyterLab writes the token into a file there that anyone could read elsewhere.
    lines += ['export JUPYTER_RUNTIME_DIR="$here/jupyter"']
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines += ["as_root=()", 'if [ "$(id -u)" = 0 ]; then as_root=(--allow-root); fi']
    command = [
        "jupyter lab",
        "--no-browser",
        f"--ip={shlex.quote(node.private_ip)}",
        f"--port={NOTEBOOK_PORT}",
        "--ServerApp.port_retries=0",
        '--ServerApp.root_dir="$HOME"',
        '"${as_root[@]}"',
    ]
    return bash(f"JupyterLab of cluster {spec.name}", lines, command)
