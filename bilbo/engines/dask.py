"""Dask: a scheduler, and workers with several processes each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from bilbo.engines.engine import (
    HERE,
    READ_ENVIRONMENT,
    Engine,
    address,
    bash,
    group_of,
    host_plan,
    options,
    waits_again,
)
from bilbo.model import (
    SCHEDULER,
    ClusterSpec,
    HostPlan,
    Measurement,
    MembersPage,
    Node,
    NodeGroup,
    Page,
    Service,
)

SCHEDULER_PORT = 8786
DASHBOARD_PORT = 8787
SETTINGS = "settings_dask"  # the agent's program that keeps the machine's settings in force
GPUS_VARIABLE = "BILBO_GPUS"  # read by SETTINGS
WAITS = "await_dask"  # the agent's program that makes a worker wait for its scheduler

PACKAGES = (
    *("dask", "distributed", "cloudpickle", "msgpack"),
    *("numpy", "pandas", "pyarrow", "lz4", "s3fs"),
)
# The packages of Dask's wire format; a difference in the others is the user's own risk.
BREAKING = ("distributed", "msgpack", "cloudpickle")
ROLL = "roll_dask"  # the agent's module with which the scheduler lists its workers
# The list of workers, and Dask's own read-only routes. Not `scheduler.api`: any web page, in the
# browser of someone who can reach the port, could retire workers with it. Not `proxy`: it forwards
# to workers' pages, which are switched off, and through them to any other address.
ROUTES = [
    ROLL,
    *(f"distributed.http.scheduler.{name}" for name in ("prometheus", "info", "json")),
    *(f"distributed.http.{name}" for name in ("health", "statics")),
]
# It takes precedence over the machine's own configuration files.
ROUTES_VARIABLE = "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES"


class WorkerSize(NamedTuple):
    """A worker host's processes, threads per process, and bytes of memory per process."""

    nworkers: int
    nthreads: int
    memory_limit: int


def worker_size(measurement: Measurement, group: NodeGroup) -> WorkerSize:
    """One process per GPU, or else per logical CPU, as many threads as a core has, and an equal
    share of the memory; the group's `nproc` and `nthread` take precedence."""
    nworkers = int(group.settings.get("nproc", len(measurement.gpus) or measurement.cpus))
    nthreads = int(group.settings.get("nthread", measurement.threads_per_core))
    return WorkerSize(nworkers, nthreads, measurement.memory // nworkers)


def own_gpus(measurement: Measurement, group: NodeGroup) -> tuple[str, ...]:
    """The GPUs, one for each process; empty where the group's `nproc` is another number, because
    then every process sees all of them."""
    fits = len(measurement.gpus) == worker_size(measurement, group).nworkers
    return measurement.gpus if fits else ()


def estimate(group: NodeGroup, measurement: Measurement) -> str:
    """What `plan` says about a worker's size; nothing about the scheduler."""
    if group.role == SCHEDULER:
        return ""
    size = worker_size(measurement, group)
    gib = measurement.memory / size.nworkers / 2**30
    return (
        f"Processes: {size.nworkers}, Threads: {size.nthreads}, "
        f"Memory: about {gib:.1f} GiB per process"
        + ", each with a GPU of its own"
        * bool(own_gpus(measurement, group))
    )


def head(spec: ClusterSpec, node: Node) -> HostPlan:
    """A Dask scheduler, ready when it lists its workers."""
    host = node.private_ip
    command = options(
        {"host": host, "port": SCHEDULER_PORT, "dashboard-address": f"{host}:{DASHBOARD_PORT}"}
    )
    service = Service(
        name="dask-scheduler",
        script=bash(
            f"Dask's scheduler of cluster {spec.name}",
            [
                HERE,
                READ_ENVIRONMENT,
                f"# {ROLL}.py there lists the workers. Nothing that changes anything is served.",
                'export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"',
                f"export {ROUTES_VARIABLE}={shlex.quote(json.dumps(ROUTES))}",
            ],
            ["dask scheduler", *command],
        ),
        programs=(ROLL,),
        listens=((host, SCHEDULER_PORT), (host, DASHBOARD_PORT)),
        page=roll(node).page,
    )
    return _host(spec, node, service.name, lambda _: service)


def worker(spec: ClusterSpec, node: Node, head: Node) -> HostPlan:
    """A Dask worker, sized by its host's measurement, ready when the scheduler lists its name."""
    make = partial(_worker_service, spec, node, head)
    return _host(spec, node, "dask-worker", make, replace=True)


def _worker_service(spec: ClusterSpec, node: Node, head: Node, measurement: Measurement) -> Service:
    """The worker of one host, named after its instance, so that the scheduler can list it."""
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
    gpus = own_gpus(measurement, group)
    offered = {**({"GPU": 1} if gpus else {}), **group.resources}
    if offered:
        command += options({"resources": replace(group, resources=offered).offers})
    more = group.settings.get("args", ())
    scheduler = shlex.quote(f"tcp://{head.private_ip}:{SCHEDULER_PORT}")
    own = [
        # The generated security group allows no access to a worker's own page, and each costs
        # 0.4 s of CPU and 18 MiB per process.
        "--no-dashboard",
        f'--preload-nanny "$here/{SETTINGS}.py"',
        f'--preload-nanny "$here/{WAITS}.py"',
        '--local-directory "$here/scratch"',
    ]
    return Service(
        name="dask-worker",
        script=bash(
            f"Dask's worker of cluster {spec.name}",
            [
                HERE,
                *waits_again(head, DASHBOARD_PORT),
                READ_ENVIRONMENT,
                *([f"export {GPUS_VARIABLE}={shlex.quote(','.join(gpus))}"] if gpus else []),
            ],
            [f"dask worker {scheduler}", *command, *own, *map(shlex.quote, more)],
        ),
        programs=(SETTINGS, WAITS),
        members=member_names(node.instance_id, size.nworkers),
        facts=size._asdict(),
    )


def member_names(instance_id: str, nworkers: int) -> tuple[str, ...]:
    """The names that Dask's scheduler gives the processes of one `dask worker --name`."""
    if nworkers == 1:
        return (instance_id,)
    return tuple(f"{instance_id}-{number}" for number in range(nworkers))


def _host(
    spec: ClusterSpec,
    node: Node,
    name: str,
    service: Callable[[Measurement], Service],
    *,
    replace: bool = False,
) -> HostPlan:
    return host_plan(
        spec,
        node,
        name,
        service,
        executable="dask",
        packages=PACKAGES,
        oldest={"dask": "2024.1"},
        replace=replace,
    )


def roll(node: Node) -> MembersPage:
    """The scheduler's list of its workers, in bilbo's own format.

    Dask's `/json/identity.json`, which needs no setting, answers 500 while workers compute, because
    their metrics have keys that JSON does not allow. For a thousand workers it is also megabytes.
    """
    page = Page(node.private_ip, DASHBOARD_PORT, "/bilbo/workers", earlier="/api/v1/get_workers")
    return MembersPage(page, items=("workers",), name="name", address="address")


def environment(head: Node) -> Mapping[str, str]:
    """What `Client()` without arguments reads, and where its `dashboard_link` leads: people's
    browsers reach another address than the machines do."""
    return {
        "DASK_SCHEDULER_ADDRESS": f"tcp://{head.private_ip}:{SCHEDULER_PORT}",
        LINK_VARIABLE: addresses(head)["dask_dashboard_url"],
    }


LINK_VARIABLE = "DASK_DISTRIBUTED__DASHBOARD__LINK"
CONFIG_FILE = "dask.json"
# DASK_CONFIG names one place alone: what the machine has there is read too, before bilbo's own.
_CONFIGURE = (
    'mkdir -p -- "$here/dask"',
    'if [ -n "${DASK_CONFIG:-}" ] && [ "$DASK_CONFIG" != "$here/dask" ]; then',
    '    for each in "$DASK_CONFIG" "$DASK_CONFIG"/*; do',
    '        if [ -f "$each" ]; then ln -sf -- "$each" "$here/dask/machine-${each##*/}"; fi',
    "    done",
    "fi",
    f'ln -sf -- "$here/{CONFIG_FILE}" "$here/dask/profile.json"',
    'export DASK_CONFIG="$here/dask"',
)


def configure(group: NodeGroup) -> tuple[Mapping[str, str], Sequence[str]]:
    """The profile's `dask.config` as a file, and the lines that have Dask read it last of all
    files; what bilbo itself sets is in variables, which go before files."""
    config = group.settings.get("config")
    if not config:
        return {}, ()
    link = config.get("distributed", {})
    link = link.get("dashboard", {}) if isinstance(link, dict) else {}
    own = [f"unset {LINK_VARIABLE}"] if isinstance(link, dict) and "link" in link else []
    return {CONFIG_FILE: json.dumps(config, sort_keys=True)}, [*_CONFIGURE, *own]


def addresses(head: Node) -> Mapping[str, str]:
    """The scheduler's address for a `Client` outside the cluster, and its dashboard."""
    return {
        "dask_scheduler_address": f"tcp://{address(head)}:{SCHEDULER_PORT}",
        "dask_dashboard_url": f"http://{address(head)}:{DASHBOARD_PORT}/status",
    }


DASK = Engine(
    name="dask",
    title="Dask",
    head_role=SCHEDULER,
    ports={SCHEDULER_PORT: "Dask scheduler", DASHBOARD_PORT: "Dask dashboard"},
    head=head,
    worker=worker,
    roll=roll,
    notebook=environment,
    member=environment,
    configure=configure,
    addresses=addresses,
    dashboard="dask_dashboard_url",
    client="dask_scheduler_address",
    connect="Client({})",
    packages=PACKAGES,
    breaking=BREAKING,
    leave="leave_dask",
    patient=True,
    estimate=estimate,
    desc_connects=False,  # the specification's summary ends with the workers
)
