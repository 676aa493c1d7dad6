"""How long until a cluster is ready, stage by stage, and how near is that to the floor?

The floor is raw Terraform (`init`, `apply`) and then the same services started by a bare script,
all at once. Both begin with an empty folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

from bench import (
    INSTANCE,
    ONE_PROCESS,
    Bound,
    Result,
    Size,
    bilbo,
    environment,
    main,
    median,
    ratio,
    run,
    script,
    spread,
    standin_home,
    write_profile,
)

from bilbo import local
from bilbo.terraform.environment import environment as terraform_environment

LIMIT = 1.15
# The stages of bilbo, each with the words by which its end is seen on stderr.
ENDS = {
    "init, look": "Create dask cluster",
    "apply": "Start dask scheduler",
    "connect": ": measuring",
    "start": " started",
}
STAGES = (*ENDS, "ready")


def timed_create(home: Path, profile: str, name: str) -> dict[str, float]:
    """Seconds of each stage of `bilbo create`, and `total`."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "bilbo", "--local", "create", profile, "-n", name],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    last: dict[str, float] = {}
    said = []
    assert process.stderr
    for line in process.stderr:
        said.append(line)
        for stage, words in ENDS.items():
            if words in line:
                last[stage] = time.perf_counter() - began
    if process.wait():
        raise RuntimeError("".join(said))
    total = time.perf_counter() - began
    ends = [0.0, *(last[stage] for stage in ENDS), total]
    lasted = [after - before for before, after in pairwise(ends)]
    return {**dict(zip(STAGES, lasted, strict=True)), "total": total}


def timed_floor(home: Path, folder: Path) -> dict[str, float]:
    """Seconds of raw Terraform, of the bare script, and `total`."""
    target = local.target(home)
    assert target is not None
    env = terraform_environment(environment(home), target.environment, home)
    began = time.perf_counter()
    run(["terraform", "init", "-input=false"], env=env, cwd=folder)
    initialised = time.perf_counter()
    run(["terraform", "apply", "-auto-approve", "-input=false"], env=env, cwd=folder)
    applied = time.perf_counter()
    outputs = json.loads(run(["terraform", "output", "-json"], env=env, cwd=folder).output)
    node = {name: outputs[name]["value"]["private_ip"] for name in ("scheduler", "notebook")}
    workers = [each["private_ip"] for each in outputs["workers"]["value"]["worker"].values()]
    key = str(home / "local" / "local.pem")
    hosts = [node["scheduler"], node["notebook"], *workers]
    run(script("bare_services.py", key, str(target.ssh_port), *hosts), env=environment(home))
    end = time.perf_counter()
    return {
        "init, look": initialised - began,
        "apply": applied - initialised,
        "services": end - applied,
        "total": end - began,
    }


def rendered(home: Path, profile: str, name: str) -> Path:
    """An empty Terraform folder of such a cluster, as bilbo writes it."""
    folder = home / f"raw-{name}"
    bilbo(home, "--local", "render", profile, "-n", name, "-o", str(folder))
    return folder


def measure(size: Size) -> Result:
    """Both, by turns; each cluster is destroyed before the next begins."""
    ours, floor = [], []
    with standin_home() as home:
        worker = {"count": 2, **ONE_PROCESS}
        asked = {"instance": INSTANCE, "notebook": {}, "dask": {"worker": worker}}
        document = {**asked, "region": "us-east-1", "access": {"cidrs": ["127.0.0.0/8"]}}
        profile = write_profile(home, "ready", document)
        for number in range(size.runs):
            folder = rendered(home, profile, f"raw{number}")

            def raw(folder: Path = folder) -> None:
                floor.append(timed_floor(home, folder))
                if not size.smallest:
                    destroyed(home, folder)

            def mine(name: str = f"ours{number}") -> None:
                ours.append(timed_create(home, profile, name))
                if not size.smallest:  # it goes with the stand-in
                    bilbo(home, "destroy", name, "-y")

            if size.smallest:
                both = [threading.Thread(target=each) for each in (raw, mine)]
                for thread in both:
                    thread.start()
                for thread in both:
                    thread.join()
            else:
                for each in (raw, mine) if number % 2 else (mine, raw):
                    each()
    return result(ours, floor)


def destroyed(home: Path, folder: Path) -> None:
    """What the floor has made is gone."""
    target = local.target(home)
    assert target is not None
    env = terraform_environment(environment(home), target.environment, home)
    run(["terraform", "destroy", "-auto-approve", "-input=false"], env=env, cwd=folder)


def result(ours: list[dict[str, float]], floor: list[dict[str, float]]) -> Result:
    """The table and the bound."""
    table: list[list[object]] = [["stage", "bilbo, s", "floor, s"]]
    for stage in (*STAGES, "services", "total"):
        cells = [
            spread([each[stage] for each in runs]) if stage in runs[0] else ""
            for runs in (ours, floor)
        ]
        table.append([stage, *cells])
    after = [sum(each[stage] for stage in STAGES[2:]) for each in ours]
    table.append(["connect to ready", spread(after), spread([each["services"] for each in floor])])
    totals = [each["total"] for each in ours], [each["total"] for each in floor]
    over = [a - b for a, b in zip(*totals, strict=True)]
    return Result(
        "How long until a cluster is ready, stage by stage, and how near is that to the floor?",
        table,
        [Bound("time to ready against the floor", LIMIT, ratio(*totals))],
        [
            "A notebook, a scheduler and two workers on the stand-in; 10 s of `apply` are the "
            "provider's own wait for each aws_instance. Medians, least and most; over the floor: "
            f"{median(over):.2f} s. `init` and the look at AWS beforehand run at the same time, "
            "and so do the services of all hosts.",
        ],
    )


if __name__ == "__main__":
    main(measure)
