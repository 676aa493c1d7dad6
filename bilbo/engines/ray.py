"""Ray: a head, which runs no tasks unless told to, and a Ray node on each worker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

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
    HEAD,
    ClusterSpec,
    HostPlan,
    Measurement,
    MembersPage,
    Node,
    NodeGroup,
    Page,
    Service,
)

GCS_PORT = 6379
DASHBOARD_PORT = 8265
CLIENT_PORT = 10001

PACKAGES = ("ray", "cloudpickle", "msgpack", "numpy", "pandas", "pyarrow")
# Ray refuses nodes and clients with another version of Ray.
BREAKING = ("ray",)

# Ray uses 30 % of a machine's memory for its object store.
_OBJECT_STORE = 0.3

# What each Ray node needs besides its own command.
_SETTINGS = [
    "unset RAY_ADDRESS",
    "export RAY_USAGE_STATS_ENABLED=0",
    "# Ray renames its processes; by what is in their environment they are found and ended.",
    "export SPT_NOENV=1",
    "# Ray keeps sockets in its folder, whose paths have 107 bytes at most: it gets a short name,",
    "# which must outlive Ray's processes, or their last tasks fail with it.",
    'rm -rf -- "$here/ray.1"',
    'if [ -d "$here/ray" ]; then mv -- "$here/ray" "$here/ray.1"; fi',
    'mkdir -p -- "$here/ray" || exit',
    "# Nobody can foresee the name; where it is taken all the same, ln fails. Once it is there,",
    "# only its owner can take it away, if /tmp is as it should be.",
    'if [ -n "$(find /tmp/ -maxdepth 0 -perm /0022 ! -perm -1000)" ]; then',
    '    echo "Other users can replace what is in /tmp. Mend that: chmod +t /tmp" >&2',
    "    exit 1",
    "fi",
    "for old in /tmp/ray-*; do",
    '    if [ "$(readlink -- "$old")" = "$here/ray" ]; then rm -f -- "$old"; fi',
    "done",
    "folder=/tmp/ray-$(od -An -tx1 -N8 /dev/urandom | tr -d ' ')",
    'ln -sT -- "$here/ray" "$folder" || exit',
    "# A node of Ray's ends itself after 15 s if its agent, on a busy machine, has not written by",
    "# then on which ports it listens (ray issue 65983). It is told them, and one is written here.",
    "read -ra port < <(python3 - <<'PYTHON'",
    "import socket",
    "sockets = [socket.socket() for _ in range(6)]",
    "for each in sockets:",
    '    each.bind(("", 0))',
    "print(*(each.getsockname()[1] for each in sockets))",
    "PYTHON",
    ")",
    "export RAY_OVERRIDE_NODE_ID_FOR_TESTING",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING=$(od -An -vtx1 -N28 -w28 /dev/urandom | tr -d ' ')",
    'written="dashboard_agent_listen_port_$RAY_OVERRIDE_NODE_ID_FOR_TESTING"',
    "( (",
    "    for ((i = 0; i < 600; i++)); do",
    '        for session in "$here"/ray/session_2*/; do',
    '            if [ -d "$session" ]; then printf %s "${port[5]}" >"$session$written"; exit; fi',
    "        done",
    "        sleep 0.1",
    "    done",
    ") &)",
]
# A head that comes back is another cluster to Ray. A worker of the one before ends itself when it
# asks whether it still counts (src/ray/raylet/node_manager.cc), and its supervisor starts it anew.
_SELF_CHECKS = [
    "# How often the worker asks the head whether it still counts, in milliseconds.",
    "export RAY_raylet_liveness_self_check_interval_ms=10000",
]
# The head starts a server for each Ray client.
_CLIENTS = [
    "# It forks and execs, and gRPC's own handling of forks crashes the server before its exec:",
    "# switched off, as gRPC's doc/fork_support.md says for that case.",
    "export GRPC_ENABLE_FORK_SUPPORT=false",
    "# The server has this long to start, of Ray's own accord 30 s.",
    "export RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S=180",
]
_COMMON = [
    "--block",
    "--disable-usage-stats",
    "--log-color false",
    '--temp-dir "$folder"',
    '--node-manager-port "${port[0]}"',
    '--object-manager-port "${port[1]}"',
    '--runtime-env-agent-port "${port[2]}"',
    '--metrics-export-port "${port[3]}"',
    '--dashboard-agent-grpc-port "${port[4]}"',
    '--dashboard-agent-listen-port "${port[5]}"',
    "--min-worker-port 0",  # the kernel chooses: other nodes may be on the same machine
    "--max-worker-port 0",
]


def head(spec: ClusterSpec, node: Node) -> HostPlan:
    """Ray's head, ready when its dashboard lists its own node: others cannot join before."""
    host = node.private_ip
    own = {
        "node-ip-address": host,
        "node-name": node.instance_id,
        "port": GCS_PORT,
        "dashboard-host": host,
        "dashboard-port": DASHBOARD_PORT,
        "ray-client-server-port": CLIENT_PORT,
        **_size(group_of(spec, node), cpus=0),
    }
    service = Service(
        name="ray-head",
        script=_script(
            f"Ray's head of cluster {spec.name}",
            ["ray start --head", *options(own)],
            _CLIENTS,
        ),
        listens=((host, GCS_PORT), (host, DASHBOARD_PORT), (host, CLIENT_PORT)),
        page=replace(roll(node).page, contains=node.instance_id),
    )
    return _host(spec, node, service.name, lambda _: service)


def worker(spec: ClusterSpec, node: Node, head: Node) -> HostPlan:
    """A Ray node with the CPUs measured on its host, ready when the head lists its name."""
    return _host(spec, node, "ray-worker", partial(_worker_service, spec, node, head), replace=True)


def _worker_service(spec: ClusterSpec, node: Node, head: Node, measurement: Measurement) -> Service:
    size = _size(group_of(spec, node), cpus=measurement.cpus)
    own = {
        "address": f"{head.private_ip}:{GCS_PORT}",
        "node-ip-address": node.private_ip,
        "node-name": node.instance_id,
        **size,
    }
    return Service(
        name="ray-worker",
        script=_script(
            f"Ray's worker of cluster {spec.name}",
            ["ray start", *options(own)],
            [*_SELF_CHECKS, *waits_again(head, GCS_PORT)],
        ),
        members=(node.instance_id,),
        facts={"num_cpus": size["num-cpus"]},
    )


def _script(what: str, command: list[str], settings: Sequence[str] = ()) -> str:
    return bash(what, [HERE, READ_ENVIRONMENT, *_SETTINGS, *settings], [*command, *_COMMON])


def _size(group: NodeGroup, cpus: int) -> dict[str, Any]:
    """What a node of the group offers, as options; Ray measures the rest itself."""
    said = group.settings
    size: dict[str, Any] = {"num-cpus": int(said.get("num_cpus", cpus))}
    if "num_gpus" in said:
        size["num-gpus"] = int(said["num_gpus"])
    if group.resources:
        size["resources"] = json.dumps(dict(group.resources), sort_keys=True)
    if "object_store_memory" in said:
        size["object-store-memory"] = int(said["object_store_memory"])
    return size


def estimate(group: NodeGroup, measurement: Measurement) -> str:
    """What `plan` says about a worker's size, and of a head alone what is wrong with it."""
    said = group.settings
    store = said.get("object_store_memory", measurement.memory * _OBJECT_STORE)
    parts = {"CPUs": said.get("num_cpus", measurement.cpus)}
    if "num_gpus" in said:
        parts["GPUs"] = said["num_gpus"]
    gib = measurement.memory / 2**30
    parts["Memory"] = f"about {gib:.1f} GiB, of it for objects {store / 2**30:.1f} GiB"
    size = ", ".join(f"{name}: {value}" for name, value in parts.items())
    # Ray's rules, with what it calls available as the whole: _private/services.py,
    # determine_plasma_store_config, and _private/resource_and_label_spec.py, where less than this
    # is left for tasks.
    if measurement.memory - store >= min(100e6, 0.05 * measurement.memory):
        return "" if group.role == HEAD else size
    return (
        f"{size}. Warning: object_store_memory leaves no memory for tasks, and Ray will not start"
    )


def _host(
    spec: ClusterSpec, node: Node, name: str, service: Any, *, replace: bool = False
) -> HostPlan:
    return host_plan(
        spec,
        node,
        name,
        service,
        executable="ray",
        packages=PACKAGES,
        oldest={"ray": "2.54"},
        # CVE-2025-62593 (fixed in 2.52) and CVE-2026-27482 (fixed in 2.54).
        why_oldest={"ray": "a web page in a browser could run code or end jobs by its dashboard"},
        replace=replace,
    )


def roll(node: Node) -> MembersPage:
    """The dashboard's list of live nodes."""
    alive = "filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
    page = Page(node.private_ip, DASHBOARD_PORT, f"/api/v0/nodes?limit=10000&{alive}")
    return MembersPage(
        page, items=("data", "result", "result"), name="node_name", address="node_id"
    )


def environment(head: Node) -> Mapping[str, str]:
    """The variable that `ray.init()` without arguments reads. The notebook is not a node of the
    cluster, so it connects through Ray's client."""
    return {"RAY_ADDRESS": f"ray://{head.private_ip}:{CLIENT_PORT}"}


def member(head: Node) -> Mapping[str, str]:
    """The same for programs on a node of the cluster, which join it without a client's server."""
    return {"RAY_ADDRESS": f"{head.private_ip}:{GCS_PORT}"}


def addresses(head: Node) -> Mapping[str, str]:
    """The head's addresses for programs on its nodes, for people's machines, and for browsers."""
    return {
        "ray_address": f"{head.private_ip}:{GCS_PORT}",
        "ray_client_address": f"ray://{address(head)}:{CLIENT_PORT}",
        "ray_dashboard_url": f"http://{address(head)}:{DASHBOARD_PORT}",
    }


RAY = Engine(
    name="ray",
    title="Ray",
    head_role=HEAD,
    ports={DASHBOARD_PORT: "Ray dashboard", CLIENT_PORT: "Ray client"},
    head=head,
    worker=worker,
    roll=roll,
    notebook=environment,
    member=member,
    addresses=addresses,
    dashboard="ray_dashboard_url",
    client="ray_client_address",
    connect="ray.init({})",
    packages=PACKAGES,
    breaking=BREAKING,
    leave="leave_ray",
    estimate=estimate,
)
