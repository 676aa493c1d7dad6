"""Does bilbo start a scheduler and four workers faster than dask.distributed's SSHCluster?

On the same stand-in hosts, each in its own process, until all workers have joined.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import (
    INSTANCE,
    ONE_PROCESS,
    Bound,
    Cost,
    Result,
    Size,
    environment,
    interleaved,
    main,
    ratio,
    run,
    script,
    spread,
    standin_home,
    write_profile,
)

from bilbo import local

NAME = "five"
JOINED = "all have joined at "


def ours(home: Path) -> None:
    """bilbo's SSH stage, from the record. Raises unless all services are ready."""
    from hostless import work_of

    from bilbo.cluster.settling import settle
    from bilbo.cluster.starting import conclude, start, with_nodes
    from bilbo.profile import building

    work = work_of(home)
    record = work.store.load(NAME)
    spec = settle(building.build(record.profile, NAME, record.region), work, record, my_ip=False)
    record = with_nodes(record, spec, record.inventory)
    conclude(spec, work, record, start(spec, work, record))
    joined()


def joined() -> None:
    """Prints the time. The measurement ends here; the rest is cleanup."""
    print(f"{JOINED}{time.time()}", flush=True)


def theirs(key: str, port: int, hosts: list[str]) -> None:
    """SSHCluster, with the options of its documentation."""
    from distributed import Client
    from distributed.deploy.ssh import SSHCluster

    connect = {"port": port, "username": "ubuntu", "client_keys": [key], "known_hosts": None}
    with (
        SSHCluster(
            hosts,
            connect_options={**connect, "config": None},
            worker_options={"nthreads": 1},
            scheduler_options={"port": 0, "dashboard_address": f"{hosts[0]}:0"},
            remote_python=sys.executable,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(len(hosts) - 1)
        joined()


def measure(size: Size) -> Result:
    """Both, in turn."""
    count = 1 if size.smallest else 4
    with standin_home() as home:
        target = local.target(home)
        assert target is not None
        document = {"instance": INSTANCE, "dask": {"worker": {**ONE_PROCESS}}}
        profile = write_profile(home, NAME, document)
        env = environment(home)
        run(script("hostless.py", "create", str(home), profile, NAME, str(count)), env=env)
        from bilbo.record import Store

        found = Store(home).load(NAME).inventory
        hosts = [node.private_ip for node in found.nodes()]
        key, port = str(home / "local" / "local.pem"), str(target.ssh_port)

        def until_joined(*arguments: str) -> Cost:
            began = time.time()
            cost = run(script("ssh_cluster.py", *arguments), env=env)
            (ended,) = (
                float(line.removeprefix(JOINED))
                for line in cost.output.splitlines()
                if line.startswith(JOINED)
            )
            return Cost(ended - began, cost.cpu, cost.memory)

        def bilbos() -> Cost:
            cost = until_joined("ours", str(home))
            run(script("ssh_cluster.py", "stop", str(home)), env=env)
            return cost

        def daskss() -> Cost:
            return until_joined("theirs", key, port, *hosts)

        contenders: dict[str, Callable[[], Cost]] = {"bilbo": bilbos, "SSHCluster": daskss}
        costs = interleaved(contenders, 2 * size.runs - 1)  # their times are close
    return result(count, {name: [cost.wall for cost in each] for name, each in costs.items()})


def result(count: int, walls: dict[str, list[float]]) -> Result:
    """The table and the bound."""
    over = ratio(walls["bilbo"], walls["SSHCluster"])
    return Result(
        "Does bilbo start a scheduler and four workers faster than SSHCluster?",
        [
            ["who", "seconds until all workers joined"],
            *([name, spread(each)] for name, each in walls.items()),
            ["ratio", f"{over:.2f}"],
        ],
        [Bound("time to all workers joined against SSHCluster", 1.0, over)],
        [
            f"A scheduler and {count} worker(s) of one process each, on hosts of the stand-in. "
            "Each ran in a new process; its start and imports are included.",
        ],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["stop"]:
        from hostless import stop_services

        stop_services(Path(sys.argv[2]), NAME, "dask")
    elif sys.argv[1:2] == ["theirs"]:
        theirs(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    else:
        main(measure)
