"""What does bilbo cost on top of the Terraform that it runs?

Compares it with raw Terraform in the same kind of folder, with text output and `init` done before:
plan, create and destroy of a scheduler and two workers.
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
    """bilbo's command and raw Terraform, in turn."""
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
            prepared(home, profile, OURS)  # destroy also removes the result of `init`
    return result(found)


def prepared(home: Path, profile: str, name: str) -> Path:
    """The Terraform folder of a planned cluster: rendered and initialised."""
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
        "What does bilbo cost on top of the Terraform that it runs?",
        table,
        bounds,
        [
            f"Python {sys.version.split()[0]}; CPU covers all processes, including the provider. "
            "`create` covers only Terraform's part, including the checks of AWS before it; "
            "`destroy` includes the check afterwards that nothing is left in AWS."
        ],
    )


# Why a bound may not be met; measured by importing each package alone.
_BOTO3 = (
    "Terraform costs the same in both; bilbo's own is boto3's import and EC2's model, 0.5 s, for "
    "its calls to AWS outside Terraform"
)
WHY = {
    "plan": "Python and its packages (click, jsonschema, jinja2, the stand-in's client) take 0.3 s "
    "to start, of 3.5 s for a plan",
    "create": f"{_BOTO3}, and asyncssh's import, 0.2 s, which compares key pairs and is needed "
    "later",
    "destroy": _BOTO3,
}


if __name__ == "__main__":
    main(measure)
