"""Lets workers leave a Ray cluster: a program for the Python that Ray's head runs on.

Standard input is JSON: `groups`, a list of `{"hosts": [instance id, …], "leave": how many}`, and
`must` (whether to let hosts go whose actors cannot be made anew elsewhere). Standard output is
JSON: `left`, the instance ids on which no node of the cluster's runs any more, and `kept`, a line
for each that cannot go.
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
PATIENCE = 120.0  # seconds that running tasks have to end; those that have not are run again
PAUSE = 0.25


class Head:
    """Ray's head: what its dashboard tells, and the drain that its GCS does."""

    def __init__(self, host: str) -> None:
        self._host = host

    def ask(self, what: str) -> List[Dict[str, Any]]:
        """The entries of one of the state API's lists."""
        address = f"http://{self._host}:{DASHBOARD_PORT}/api/v0/{what}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            found: List[Dict[str, Any]] = json.load(answer)["data"]["result"]["result"]
            return found

    def nodes(self) -> Dict[str, str]:
        """The id of every node that lives, by its name: the instance's id."""
        alive = "filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
        found = self.ask("nodes?limit=10000&" + alive)
        return {each["node_name"]: each["node_id"] for each in found}

    def busy(self) -> List[str]:
        """The node of each task that runs."""
        running = "filter_keys=state&filter_predicates=%3D&filter_values=RUNNING"
        return [str(each["node_id"]) for each in self.ask("tasks?limit=10000&" + running)]

    def settled(self) -> Set[str]:
        """The nodes with actors, whose state goes with them."""
        alive = "filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
        return {str(each["node_id"]) for each in self.ask("actors?limit=10000&" + alive)}

    def drain(self, nodes: List[str]) -> None:
        """Has nodes take no new tasks, end those that run, and end themselves then."""
        raylet: Any = import_module("ray._raylet")
        reasons: Any = import_module("ray.core.generated.autoscaler_pb2").DrainNodeReason
        client = raylet.GcsClient(address=f"{self._host}:{GCS_PORT}")
        deadline = int((time.time() + PATIENCE) * 1000)
        reason = reasons.Value("DRAIN_NODE_REASON_PREEMPTION")  # cannot be refused
        for node in nodes:
            client.drain_node(node, reason, "bilbo scales the cluster", deadline)


def leave(head: Head, asked: Dict[str, Any]) -> Dict[str, List[str]]:
    """Chooses who leaves, and waits until it has left."""
    nodes, busy, settled = head.nodes(), head.busy(), head.settled()

    def cost(host: str) -> Any:
        """Who is not in costs nothing; then who has no actors, and the fewest tasks."""
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
    """Whether any of the nodes still lives or, where actors keep it from ending, runs a task."""
    alive, busy = head.nodes(), head.busy()
    there = [node for host, node in going.items() if host in alive]
    return any(node in busy or node not in settled for node in there)


def main() -> None:
    """Asks the head that the environment names."""
    address = re.match(r"ray://(.*):\d+$", os.environ["RAY_ADDRESS"])
    assert address
    print(json.dumps(leave(Head(address.group(1)), json.load(sys.stdin))))


if __name__ == "__main__":
    main()
