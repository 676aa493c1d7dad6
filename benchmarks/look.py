"""What does the look cost, at AWS, every host and the scheduler at once?

The hosts are one process that answers in the agent's place, and AWS is a page, so that only bilbo
is measured.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench import (
    INSTANCE,
    Bound,
    Cost,
    Result,
    Size,
    interleaved,
    main,
    median,
    run,
    script,
    spread,
)
from ssh_stage import MANY, addresses, pinned, servers

SMALL = 5
SECONDS, MANY_SECONDS, MIB = 10, 15, 100


def look_at(key: str, port: int, hosts: list[str], endpoint: str) -> None:
    """One look at a cluster of these hosts, the first of which is the scheduler. Prints seconds."""
    from hostless import Silent

    from bilbo.cluster.look import look
    from bilbo.cluster.work import Work
    from bilbo.model import SCHEDULER, WORKER, Inventory, Node, Target
    from bilbo.record import Record, Store

    nodes = [
        Node(
            WORKER if number else SCHEDULER, WORKER if number else SCHEDULER, f"i-{number:017x}",
            host, host, "", "t3.micro", "ami-1", "local", "ubuntu", key, port,
        )
        for number, host in enumerate(hosts)
    ]  # fmt: skip
    profile = {"instance": INSTANCE, "dask": {"worker": {"count": len(nodes) - 1}}}
    inventory = Inventory(head=nodes[0], workers=tuple(nodes[1:]))
    record = Record(
        "t", "ready", "us-east-1", "dask", "2026-01-01T00:00:00+00:00", profile, "",
        endpoint_url=endpoint, inventory=inventory, account="000000000000",
    )  # fmt: skip
    environment = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    with tempfile.TemporaryDirectory() as home:
        store = Store(Path(home))
        store.prepare()
        work = Work(store, Target("us-east-1", endpoint, environment), Silent())
        began = time.perf_counter()
        seen = look(record, work, others=False)
        took = time.perf_counter() - began
    if not seen.well:
        sys.exit(f"not well: {[each.wrong for each in seen.to_mend()][:3]} {seen.trouble}")
    print(took)


def described(hosts: list[str]) -> bytes:
    """AWS's answer to DescribeInstances."""
    items = "".join(
        f"<item><instanceId>i-{number:017x}</instanceId><ipAddress>{host}</ipAddress>"
        "<instanceState><code>16</code><name>running</name></instanceState></item>"
        for number, host in enumerate(hosts)
    )
    answer = f"<reservationSet><item><instancesSet>{items}</instancesSet></item></reservationSet>"
    space = "http://ec2.amazonaws.com/doc/2016-11-15/"
    text = f'<DescribeInstancesResponse xmlns="{space}">{answer}</DescribeInstancesResponse>'
    return text.encode()


@contextlib.contextmanager
def answering(page: bytes) -> Iterator[str]:
    """An endpoint that answers every request with this page."""

    class Aws(BaseHTTPRequestHandler):
        """AWS."""

        def do_POST(self) -> None:
            """The one answer."""
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Aws)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def measure(size: Size) -> Result:
    """A small cluster, and a thousand hosts."""
    most = 8 if size.smallest else MANY
    with tempfile.TemporaryDirectory() as name, servers(Path(name), most) as (key, port, _):

        def looking(count: int) -> Cost:
            hosts = addresses(count).splitlines()
            listed = Path(name) / "hosts"
            listed.write_text("\n".join(hosts), encoding="utf-8")
            with answering(described(hosts)) as endpoint:
                cost = run(
                    [
                        *pinned(0),
                        *script("look.py", "at", str(key), str(port), str(listed), endpoint),
                    ]
                )
            return Cost(float(cost.output.split()[-1]), cost.cpu, cost.memory)

        costs = interleaved(
            {"small": lambda: looking(SMALL), "many": lambda: looking(most)}, size.runs
        )
    rows = [
        [count, spread([c.wall for c in found]), spread([c.cpu for c in found]),
         f"{median([c.memory for c in found]):.0f}"]
        for count, found in zip((SMALL, most), costs.values(), strict=True)
    ]  # fmt: skip
    return Result(
        "What does the look at AWS, every host and the scheduler cost?",
        [["hosts", "seconds", "CPU in s, imports included", "MiB"], *rows],
        [
            Bound(f"seconds for {SMALL} hosts", SECONDS, median([c.wall for c in costs["small"]])),
            Bound(f"seconds for {most} hosts", MANY_SECONDS, max(c.wall for c in costs["many"])),
            Bound(f"memory for {most} hosts, in MiB", MIB, max(c.memory for c in costs["many"])),
        ],
        [
            "AWS, hosts and scheduler are asked at the same time. The hosts are one process on its "
            "own core, which answers in the agent's place."
        ],
        raw={name: [json.dumps(cost.wall) for cost in found] for name, found in costs.items()},
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["at"]:
        key, port, listed, endpoint = sys.argv[2:]
        look_at(key, int(port), Path(listed).read_text(encoding="utf-8").split(), endpoint)
    else:
        main(measure)
