"""How many calls to AWS do plan, create, scale and destroy make, by the number of workers?

Counted at the stand-in's endpoint. A poll, the same request repeated during a wait, counts once;
the totals are beside it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench import (
    INSTANCE,
    Bound,
    Line,
    Plot,
    Result,
    Size,
    bilbo,
    environment,
    main,
    run,
    script,
    standin_home,
    write_profile,
)

from bilbo import local
from bilbo.terraform.environment import environment as terraform_environment

SIZES = (2, 20, 200, 1000)
PLAIN = (2, 20, 100)
# A profile like the specification's: its own security group, and no burstable type, which costs the
# provider one more call.
LIMITS = {"plan": 20, "create": 30, "scale up": 15, "scale in": 15}
WATCHED = (
    "bilbo looks at a group that Terraform makes, and suspends what AWS would do by itself; and it "
    "asks for the account's quota, for what runs, and for the key of volumes"
)
OPERATIONS = ("plan", "create", "plan again", "scale up", "scale in", "destroy")
LEAVERS_A_CALL = 50
# With this the provider only checks whether a wait for a group is over: a poll, which the bounds
# exclude. It returns pages of 100, with one entry per new worker.
POLLED = ("autoscaling:DescribeScalingActivities",)

FIRST = "the first plan in a new home looks up the instance type once, and the home remembers it"


class Counted(NamedTuple):
    """Distinct requests, all requests, and the distinct ones by action."""

    different: int
    total: int
    actions: Mapping[str, int]

    @property
    def bounded(self) -> int:
        """The distinct requests that are not polls."""
        return self.different - sum(self.actions.get(action, 0) for action in POLLED)


def counted(home: Path, work: Callable[[], object]) -> Counted:
    """The calls that `work` makes."""
    local.calls(home, reset=True)
    work()
    actions = local.calls(home, different=True)
    return Counted(sum(actions.values()), sum(local.calls(home, reset=True).values()), actions)


def group_of_workers(
    home: Path, name: str, document: Mapping[str, Any], count: int, *, all_of_it: bool = True
) -> dict[str, Counted]:
    """The calls of bilbo's operations on a cluster with `count` workers."""
    profile = write_profile(home, name, document)
    more = count + max(1, count // 10)

    def hostless(action: str, workers: int) -> Callable[[], object]:
        argv = script("hostless.py", action, str(home), profile, name, str(workers))
        return lambda: run(argv, env=environment(home))

    def plan() -> object:
        engine = "ray" if "ray" in document else "dask"
        wanted = f"{engine}.worker.count={count}"
        return bilbo(home, "--local", "plan", profile, "-n", name, "-p", wanted)

    found = {"plan": counted(home, plan), "create": counted(home, hostless("create", count))}
    if all_of_it:
        found["plan again"] = counted(home, plan)
    found["scale up"] = counted(home, hostless("scale", more))
    found["scale in"] = counted(home, hostless("scale", count))
    if all_of_it:
        found["destroy"] = counted(home, lambda: bilbo(home, "destroy", name, "-y"))
    return found


def plain_instances(home: Path, count: int, group: str) -> dict[str, Counted]:
    """The same with raw Terraform, for a cluster with one aws_instance per machine."""
    target = local.target(home)
    assert target is not None
    env = terraform_environment(environment(home), target.environment, home)
    folder = Path(tempfile.mkdtemp(prefix="plain-", dir=home))

    def terraform(*words: str) -> Callable[[], object]:
        return lambda: run(["terraform", *words, "-input=false"], env=env, cwd=folder)

    def write(workers: int) -> None:
        instance = {
            "ami": INSTANCE["ami"],
            "instance_type": "m5.xlarge",
            "key_name": INSTANCE["keyname"],
            "vpc_security_group_ids": [group],
            "root_block_device": {"encrypted": True, "volume_type": "gp3"},
        }
        resources = {"scheduler": instance, "worker": {**instance, "count": workers}}
        document = {
            "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws"}}},
            "provider": {"aws": {"region": target.region}},
            "resource": {"aws_instance": resources},
        }
        (folder / "main.tf.json").write_text(json.dumps(document), encoding="utf-8")

    write(count)
    terraform("init")()
    apply = terraform("apply", "-auto-approve")
    found = {
        "plan": counted(home, terraform("plan")),
        "create": counted(home, apply),
        "plan again": counted(home, terraform("plan")),
    }
    write(count + max(1, count // 10))
    found["scale up"] = counted(home, apply)
    write(count)
    found["scale in"] = counted(home, apply)
    found["destroy"] = counted(home, terraform("destroy", "-auto-approve"))
    shutil.rmtree(folder)
    return found


def security_group(home: Path) -> str:
    """The default security group of the stand-in's default VPC, which now admits SSH."""
    from bilbo import aws

    target = local.target(home)
    assert target is not None
    ec2 = aws.client(target, "ec2")
    groups = ec2.describe_security_groups()["SecurityGroups"]
    found = next(each["GroupId"] for each in groups if each["GroupName"] == "default")
    people = [{"CidrIp": "127.0.0.0/8"}]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": people}
    ec2.authorize_security_group_ingress(GroupId=found, IpPermissions=[rule])
    return str(found)


def measure(size: Size) -> Result:
    """bilbo at every size, its other profiles at the smallest, and plain aws_instances."""
    sizes, plain = ((2,), ()) if size.smallest else (SIZES, PLAIN)
    found: dict[str, dict[str, Counted]] = {}
    with standin_home() as home:
        group = security_group(home)
        own = {
            "instance": {**INSTANCE, "ec2type": "m5.xlarge", "security_group": group},
            "dask": {},
        }
        for count in sizes:
            found[f"bilbo, {count:,} workers"] = group_of_workers(
                home, f"g{count}", own, count, all_of_it=not size.smallest
            )
        if not size.smallest:
            for what, document in (
                ("generated security group", {"instance": INSTANCE, "dask": {}}),
                ("and notebook", {"instance": INSTANCE, "notebook": {}, "dask": {}}),
                ("Ray", {"instance": own["instance"], "ray": {}}),
            ):
                name = f"o{len(found)}"
                found[f"bilbo, 2 workers, {what}"] = group_of_workers(home, name, document, 2)
        for count in plain:
            found[f"plain, {count:,} workers"] = plain_instances(home, count, group)
    return result(sizes, plain, found)


def result(
    sizes: tuple[int, ...], plain: tuple[int, ...], found: Mapping[str, Mapping[str, Counted]]
) -> Result:
    """The table, the bounds and the plot."""
    table: list[list[object]] = [["cluster", *OPERATIONS]]
    for name, counts in found.items():
        cells = (
            f"{counts[each].different} ({counts[each].total})" if each in counts else ""
            for each in OPERATIONS
        )
        table.append([name, *cells])
    ours = [found[f"bilbo, {count:,} workers"] for count in sizes]
    bounds = [
        Bound(
            f"different calls to {operation}, at most",
            limit,
            _worst(ours, operation, sizes),
            WATCHED if operation == "create" else "",
        )
        for operation, limit in LIMITS.items()
    ]
    bounds.append(
        Bound("difference between the sizes, in any operation", 0, _growing(ours, sizes), FIRST)
    )
    lines = [
        Line(
            name,
            [(float(n), float(found[f"{who}, {n:,} workers"]["create"].different)) for n in counts],
        )
        for name, who, counts in (("bilbo", "bilbo", sizes), ("plain aws_instance", "plain", plain))
    ]
    title = "Calls to AWS to create a cluster"
    plot = Plot("api-calls", title, "workers", "different requests", lines)
    return Result(
        "How many calls to AWS do plan, create, scale and destroy make?",
        table,
        bounds,
        [
            "Distinct requests, and in parentheses all requests, including repeated ones. The "
            f"bounds exclude {' and '.join(POLLED)}, with which the provider only checks whether a "
            "wait for a group is over (100 entries per page, one for each new worker). The cluster "
            "has a scheduler and an existing security group, like the specification's example. The "
            "provider itself needs 9 calls for each additional aws_instance (a notebook) and 7 for "
            "a generated security group; these are shown for two workers. Scaling goes up by a "
            "tenth and back. For scaling in, the bounds exclude all calls after the first that set "
            "protection, one per 50 leaving workers.",
        ],
        [plot] if plain else [],
        raw={
            name: {operation: each._asdict() for operation, each in counts.items()}
            for name, counts in found.items()
        },
    )


def _growing(ours: list[Mapping[str, Counted]], sizes: tuple[int, ...]) -> int:
    found = {
        operation: [_at(counts, operation, n) for counts, n in zip(ours, sizes, strict=True)]
        for operation in ours[0]
    }
    return max(max(each) - min(each) for each in found.values())


def _at(counts: Mapping[str, Counted], operation: str, workers: int) -> int:
    leavers = max(1, workers // 10)
    extra = -(-leavers // LEAVERS_A_CALL) - 1 if operation == "scale in" else 0
    return counts[operation].bounded - extra


def _worst(ours: list[Mapping[str, Counted]], operation: str, sizes: tuple[int, ...]) -> int:
    return max(_at(counts, operation, count) for counts, count in zip(ours, sizes, strict=True))


if __name__ == "__main__":
    main(measure)
