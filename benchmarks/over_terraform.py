"""What does bilbo cost beside the Terraform that it runs?

The same work by raw Terraform in the same kind of folder: text output, `init` done before. The
plan, the creation and the destruction of a scheduler and two workers.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from bench import (
    INSTANCE,
    Bound,
    Cost,
    Result,
    Size,
    bilbo,
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
from bilbo.terraform.environment import environment as terraform_environment

LIMIT = 1.10
OURS, RAW = "ours", "raw"
COUNT = ("-p", "dask.worker.count=2")


def measure(size: Size) -> Result:
    """bilbo's command and raw Terraform, by turns."""
    with standin_home() as home:
        target = local.target(home)
        assert target is not None
        env = terraform_environment(environment(home), target.environment, home)
        profile = write_profile(home, "over", {"instance": INSTANCE, "dask": {}})
        folders = {name: prepared(home, profile, name) for name in (OURS, RAW)}

        def terraform(*words: str) -> Callable[[], Cost]:
            argv = ["terraform", *words, "-input=false"]
            return lambda: run(argv, env=env, cwd=folders[RAW])

        hostless = script("hostless.py", "create", str(home), profile, OURS, "2")
        planning = {
            OURS: lambda: bilbo(home, "--local", "plan", profile, "-n", OURS, *COUNT),
            RAW: terraform("plan", "-out=raw.tfplan"),
        }
        found = {"plan": interleaved(planning, size.runs)}
        if size.smallest:
            return result(found)
        found |= {"create": {OURS: [], RAW: []}, "destroy": {OURS: [], RAW: []}}
        for number in range(size.runs):
            steps = {
                "create": {
                    OURS: lambda: run(hostless, env=environment(home)),
                    RAW: terraform("apply", "-auto-approve"),
                },
                "destroy": {
                    OURS: lambda: bilbo(home, "destroy", OURS, "-y"),
                    RAW: terraform("destroy", "-auto-approve"),
                },
            }
            for step, contenders in steps.items():
                order = (OURS, RAW) if number % 2 else (RAW, OURS)
                for who in order:
                    found[step][who].append(contenders[who]())
            prepared(home, profile, OURS)  # destroy has removed the folder, and `init` with it
    return result(found)


def prepared(home: Path, profile: str, name: str) -> Path:
    """The Terraform folder of a cluster that is only planned: rendered, and `init` done."""
    bilbo(home, "--local", "plan", profile, "-n", name, *COUNT)
    folder = home / "clusters" / name / "terraform"
    if name == OURS:
        return folder
    raw = home / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    shutil.copytree(folder, raw, symlinks=True)
    return raw


def result(found: dict[str, dict[str, list[Cost]]]) -> Result:
    """The table and the bounds."""
    table: list[list[object]] = [["step", "who", "wall in s", "ratio", "CPU in s", "ratio"]]
    bounds = []
    for step, costs in found.items():
        walls = {who: [cost.wall for cost in costs[who]] for who in costs}
        cpus = {who: [cost.cpu for cost in costs[who]] for who in costs}
        wall, cpu = ratio(walls[OURS], walls[RAW]), ratio(cpus[OURS], cpus[RAW])
        table.append(
            [step, "bilbo", spread(walls[OURS]), f"{wall:.2f}", spread(cpus[OURS]), f"{cpu:.2f}"]
        )
        table.append(["", "terraform", spread(walls[RAW]), "", spread(cpus[RAW]), ""])
        bounds += [
            Bound(f"{step}: wall against raw Terraform", LIMIT, wall),
            Bound(f"{step}: CPU against raw Terraform", LIMIT, cpu, WHY.get(step, "")),
        ]
    return Result(
        "What does bilbo cost beside the Terraform that it runs?",
        table,
        bounds,
        [
            f"Python {sys.version.split()[0]}; CPU is that of all processes together, the "
            "provider's included. `create` is Terraform's part of it, its look at AWS beforehand "
            "included; `destroy` looks afterwards whether AWS holds anything still."
        ],
    )


# Where it lies that a bound is not met, if it is not; measured by importing each alone.
_BOTO3 = (
    "Terraform costs the same in both; bilbo's own is boto3's import and EC2's model, 0.5 s, for "
    "what is asked of AWS beside Terraform"
)
WHY = {
    "plan": "Python and its packages (click, jsonschema, jinja2, the stand-in's client) take 0.3 s "
    "to begin, of a plan of 3.5 s",
    "create": f"{_BOTO3}, and asyncssh's, 0.2 s, which compares key pairs and is needed later",
    "destroy": _BOTO3,
}


if __name__ == "__main__":
    main(measure)
