"""How long until a cluster is ready, stage by stage, and how close is that to the floor?

The floor is raw Terraform (`init`, `apply`), followed by a bare script that starts the same
services at once. Both begin with an empty folder. `time_to_ready_ray` does the same for Ray. Then
`create` runs again, which has nothing to do, with the look at AWS and hosts and without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import (
    INSTANCE,
    ONE_PROCESS,
    Bound,
    Cost,
    Result,
    Size,
    bilbo,
    environment,
    interleaved,
    main,
    median,
    ratio,
    run,
    script,
    spread,
    standin_home,
    write_profile,
)

from bilbo import local, services
from bilbo.engines import ENGINES
from bilbo.engines.ray import GCS_PORT
from bilbo.inventory import inventory
from bilbo.model import HostPlan, Measurement, Page
from bilbo.profile import building
from bilbo.terraform.environment import environment as terraform_environment

LIMIT = 1.15
LOOK_LIMIT = 1.1
TOKEN = "bare"
# `create` as it was before it looked.
WITHOUT_LOOK = """
from concurrent.futures import Future
from importlib import import_module
from bilbo.reality import Reality

def looked(before, work):
    nothing = Future()
    nothing.set_result(Reality())
    return nothing

import_module("bilbo.cluster.create").looked = looked
import_module("bilbo.cli").main()
"""
# What stderr shows when a stage of bilbo has ended. {} are the engine and its head's role.
ENDS = {
    "init, look": "Create {} cluster",
    "apply": "Start {} {}",
    "connect": ": measuring",
    "start": " started",
}
STAGES = (*ENDS, "ready")


@dataclass(frozen=True)
class Measured:
    """A cluster of an engine: a notebook, a head, and two workers of one thread."""

    engine: str
    settings: Mapping[str, Any]
    # Ray's workers exit without a head; Dask's wait for it.
    after: int | None = None

    @property
    def head_role(self) -> str:
        """The head's role."""
        return ENGINES[self.engine].head_role

    def document(self) -> dict[str, Any]:
        """The profile."""
        return {
            "region": "us-east-1",
            "access": {"cidrs": ["127.0.0.0/8"]},
            "instance": INSTANCE,
            "notebook": {},
            self.engine: self.settings,
        }


DASK = Measured("dask", {"worker": {"count": 2, **ONE_PROCESS}})
_STORE = {"object_store_memory": 80_000_000}
RAY = Measured("ray", {"head": _STORE, "worker": {"count": 2, "num_cpus": 1, **_STORE}}, GCS_PORT)


def timed_create(home: Path, what: Measured, path: str, name: str) -> dict[str, float]:
    """Seconds of each stage of `bilbo create`, and `total`."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "bilbo", "--local", "create", path, "-n", name],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    ends = {stage: words.format(what.engine, what.head_role) for stage, words in ENDS.items()}
    last: dict[str, float] = {}
    said = []
    assert process.stderr
    for line in process.stderr:
        said.append(line)
        for stage, words in ends.items():
            if words in line:
                last[stage] = time.perf_counter() - began
    if process.wait():
        raise RuntimeError("".join(said))
    total = time.perf_counter() - began
    times = [0.0, *(last[stage] for stage in ENDS), total]
    lasted = [after - before for before, after in pairwise(times)]
    return {**dict(zip(STAGES, lasted, strict=True)), "total": total}


def unchanged(home: Path, path: str, name: str, runs: int) -> dict[str, list[Cost]]:
    """What `create` costs that has nothing to do, with the look and without."""
    arguments = ("create", path, "-n", name)

    def one(*program: str) -> Cost:
        cost = run([sys.executable, *program, *arguments], env=environment(home))
        if "Nothing to do." not in cost.output:
            raise RuntimeError(cost.output)
        return cost

    return interleaved(
        {"with": lambda: one("-m", "bilbo"), "without": lambda: one("-c", WITHOUT_LOOK)}, runs
    )


def timed_terraform(home: Path, folder: Path) -> dict[str, float]:
    """Seconds of raw Terraform."""
    env = _terraform_environment(home)
    began = time.perf_counter()
    run(["terraform", "init", "-input=false"], env=env, cwd=folder)
    initialised = time.perf_counter()
    run(["terraform", "apply", "-auto-approve", "-input=false"], env=env, cwd=folder)
    return {"init, look": initialised - began, "apply": time.perf_counter() - initialised}


def timed_services(home: Path, what: Measured, folder: Path) -> dict[str, float]:
    """Seconds of the bare script, on the instances in a folder's state."""
    began = time.perf_counter()
    env = _terraform_environment(home)
    said = json.loads(run(["terraform", "output", "-json"], env=env, cwd=folder).output)
    outputs = {name: each["value"] for name, each in said.items()}
    target = local.target(home)
    assert target is not None
    key = str(home / "local" / "local.pem")
    subprocess.run(
        script("bare_services.py", key, str(target.ssh_port)),
        env=environment(home),
        input=json.dumps(bare(what, outputs)),
        text=True,
        check=True,
        timeout=300,
    )
    return {"services": time.perf_counter() - began}


def bare(what: Measured, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """What `bare_services` starts and waits for: the scripts that bilbo writes."""
    spec = building.build(what.document(), "bare", "us-east-1")
    plan = services.stage_plan(spec, inventory(spec, outputs), TOKEN)
    assert plan.head and plan.notebook and plan.roll
    head = plan.head.node.private_ip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    here = Measurement(os.cpu_count() or 1, 1, memory)

    def host(each: HostPlan) -> dict[str, Any]:
        from bilbo.remote.host import files_of

        service = each.service(here)
        return {
            "host": each.node.private_ip,
            "name": service.name,
            "files": files_of(service),
            "after": (head, what.after) if what.after and each in plan.workers else None,
        }

    def page(each: Page, *contains: str) -> dict[str, Any]:
        url = f"http://{each.host}:{each.port}{each.path}"
        return {"url": url, "headers": dict(each.headers), "contains": contains}

    members = [name for each in plan.workers for name in each.service(here).members]
    notebook = plan.notebook.service(here).page
    assert notebook
    pages = [page(plan.roll.page, *members), page(notebook)]
    return {"hosts": [host(each) for each in plan.hosts()], "pages": pages}


def _terraform_environment(home: Path) -> dict[str, str]:
    target = local.target(home)
    assert target is not None
    return terraform_environment(environment(home), target.environment, home)


def rendered(home: Path, path: str, name: str) -> Path:
    """A new Terraform folder of such a cluster, as bilbo writes it."""
    folder = home / f"raw-{name}"
    bilbo(home, "--local", "render", path, "-n", name, "-o", str(folder))
    known = f'root_devices = {{ "{INSTANCE["ami"]}" = "/dev/sda1" }}\n'
    (folder / "terraform.tfvars").write_text(known, encoding="utf-8")
    return folder


def measure(size: Size) -> Result:
    """Measures Dask."""
    return measured(DASK, size)


def measured(what: Measured, size: Size) -> Result:
    """Both, in turn; destroys each cluster before the next begins."""
    ours, floor = [], []
    again: dict[str, list[Cost]] = {"with": [], "without": []}
    with standin_home() as home:
        path = write_profile(home, "ready", what.document())
        if size.smallest:
            mine_, raw_, again = smallest(home, what, path)
            return result(what, [mine_], [raw_], again)
        for number in range(size.runs):
            folder = rendered(home, path, f"raw{number}")

            def raw(folder: Path = folder) -> None:
                terraform = timed_terraform(home, folder)
                floor.append(summed(terraform | timed_services(home, what, folder)))
                run(
                    ["terraform", "destroy", "-auto-approve", "-input=false"],
                    env=_terraform_environment(home),
                    cwd=folder,
                )

            def mine(name: str = f"ours{number}") -> None:
                ours.append(timed_create(home, what, path, name))
                for key, costs in unchanged(home, path, name, 2).items():
                    again[key] += costs
                bilbo(home, "destroy", name, "-y")

            for each in (raw, mine) if number % 2 else (mine, raw):
                each()
    return result(what, ours, floor, again)


def smallest(
    home: Path, what: Measured, path: str
) -> tuple[dict[str, float], dict[str, float], dict[str, list[Cost]]]:
    """All once, with their Terraform parts at the same time; the stand-in's end removes them."""
    from hostless import stop_services

    folder = rendered(home, path, "raw")
    terraform: dict[str, float] = {}
    beside = threading.Thread(target=lambda: terraform.update(timed_terraform(home, folder)))
    beside.start()
    mine = timed_create(home, what, path, "ours")
    beside.join()
    again = unchanged(home, path, "ours", 1)
    stop_services(home, "ours", what.engine)  # a machine can run only one Ray cluster
    return mine, summed(terraform | timed_services(home, what, folder)), again


def summed(stages: dict[str, float]) -> dict[str, float]:
    """The stages and their `total`."""
    return {**stages, "total": sum(stages.values())}


def result(
    what: Measured,
    ours: list[dict[str, float]],
    floor: list[dict[str, float]],
    again: Mapping[str, list[Cost]],
) -> Result:
    """The table and the bounds."""
    table: list[list[object]] = [["stage", "bilbo, s", "floor, s"]]
    for stage in (*STAGES, "services", "total"):
        cells = [
            spread([each[stage] for each in runs]) if stage in runs[0] else ""
            for runs in (ours, floor)
        ]
        table.append([stage, *cells])
    after = [sum(each[stage] for stage in STAGES[2:]) for each in ours]
    table.append(["connect to ready", spread(after), spread([each["services"] for each in floor])])
    walls = [[each.wall for each in again[key]] for key in ("with", "without")]
    table.append(["`create` again", spread(walls[0]), ""])
    table.append(["without the look", spread(walls[1]), ""])
    totals = [each["total"] for each in ours], [each["total"] for each in floor]
    over = [a - b for a, b in zip(*totals, strict=True)]
    engine = ENGINES[what.engine].title
    return Result(
        f"How long until a {engine} cluster is ready, and how close is that to the floor?",
        table,
        [
            Bound("time to ready against the floor", LIMIT, ratio(*totals)),
            Bound("unchanged `create` against one that does not look", LOOK_LIMIT, ratio(*walls)),
        ],
        [
            f"A notebook, a {what.head_role} and two workers on the stand-in; 10 s of `apply` are "
            "the provider's own wait for each aws_instance. Median, minimum and maximum; above the "
            f"floor: {median(over):.2f} s. `init` and the checks of AWS run at the same time, and "
            "so do the services of all hosts.",
        ],
    )


if __name__ == "__main__":
    main(measure)
