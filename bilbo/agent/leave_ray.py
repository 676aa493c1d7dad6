"""Removes workers from a Ray cluster: a program for the Python that Ray's head runs on.

Standard input is JSON: `groups`, a list of `{"hosts": [instance id, …], "leave": how many}`, and
`must` (whether to remove hosts with actors). Standard output is JSON: `left`, the instance ids on
which no node of the cluster runs any more, and `kept`, a line for each host that cannot leave.
"""

# ruff: noqa: UP006, UP035 - hosts may have an old Python

import json
import os
import re
import sys
import time
import urllib.request
from importlib import import_module
from typing import Any, Dict, List, Set

GCS_PORT = 6379
DASHBOARD_PORT = 8265
PATIENCE = 120.0  # seconds for running tasks to end; the others run again elsewhere
PAUSE = 0.25


class Head:
    """Ray's head: its dashboard's lists, and its GCS, which drains nodes."""

    def __init__(self, host: str) -> None:
        self._host = host

    def ask(self, what: str) -> List[Dict[str, Any]]:
        """The entries of one of the state API's lists."""
        address = f"http://{self._host}:{DASHBOARD_PORT}/api/v0/{what}"
        # Whatever proxy the machine's login files set, the head is reached without it.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address, timeout=60) as answer:
            found: List[Dict[str, Any]] = json.load(answer)["data"]["result"]["result"]
            return found

    def nodes(self) -> Dict[str, str]:
        """The id of every live node by its name, which is the instance's id."""
        alive = "filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
        found = self.ask("nodes?limit=10000&" + alive)
        return {each["node_name"]: each["node_id"] for each in found}

    def busy(self) -> List[str]:
        """The node of each running task."""
        running = "filter_keys=state&filter_predicates=%3D&filter_values=RUNNING"
        return [str(each["node_id"]) for each in self.ask("tasks?limit=10000&" + running)]

    def settled(self) -> Set[str]:
        """The nodes with actors, whose state is lost with the node."""
        alive = "filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
        return {str(each["node_id"]) for each in self.ask("actors?limit=10000&" + alive)}

    def drain(self, nodes: List[str]) -> None:
        """Makes nodes refuse new tasks, finish running ones, and then exit."""
        raylet: Any = import_module("ray._raylet")
        reasons: Any = import_module("ray.core.generated.autoscaler_pb2").DrainNodeReason
        client = raylet.GcsClient(address=f"{self._host}:{GCS_PORT}")
        deadline = int((time.time() + PATIENCE) * 1000)
        reason = reasons.Value("DRAIN_NODE_REASON_PREEMPTION")  # cannot be refused
        for node in nodes:
            client.drain_node(node, reason, "bilbo scales the cluster", deadline)


def leave(head: Head, asked: Dict[str, Any]) -> Dict[str, List[str]]:
    """Chooses workers and waits until they have left."""
    nodes, busy, settled = head.nodes(), head.busy(), head.settled()

    def cost(host: str) -> Any:
        """Absent hosts cost nothing; then those without actors, then the fewest tasks."""
        node = nodes.get(host)
        return node is not None, node in settled, busy.count(node or ""), host

    chosen = [
        host
        for group in asked["groups"]
        for host in sorted(group["hosts"], key=cost)[: group["leave"]]
    ]
    kept = [host for host in chosen if nodes.get(host) in settled]
    if kept and not asked["must"]:
        why = "its actors would be lost with all that they hold"
        return {"left": [], "kept": [f"{host}: {why}" for host in kept]}
    going = {host: nodes[host] for host in chosen if host in nodes}
    if going:
        head.drain(list(going.values()))
    end = time.monotonic() + PATIENCE
    while has_not_left(head, going, settled) and time.monotonic() < end:
        time.sleep(PAUSE)
    return {"left": chosen, "kept": []}


def has_not_left(head: Head, going: Dict[str, str], settled: Set[str]) -> bool:
    """Whether a node is still alive or, if actors keep it from exiting, still runs a task."""
    alive, busy = head.nodes(), head.busy()
    there = [node for host, node in going.items() if host in alive]
    return any(node in busy or node not in settled for node in there)


def main() -> None:
    """Asks the head named in the environment."""
    address = re.match(r"ray://(.*):\d+$", os.environ["RAY_ADDRESS"])
    assert address
    try:
        answer = leave(Head(address.group(1)), json.load(sys.stdin))
    except OSError as error:
        sys.exit(f"the head does not answer: {error}")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
