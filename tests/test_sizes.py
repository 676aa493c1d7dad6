"""Sizes in a profile: refused or warned of where the engine would refuse them on every machine."""

from __future__ import annotations

from typing import Any

import pytest
from reliability import told

from bilbo.engines import ray
from bilbo.errors import ProfileError
from bilbo.model import HEAD, WORKER, Machine, Measurement, NodeGroup
from bilbo.profile.checking import check_profile, schema

GIB = 2**30


def refusal(**group: Any) -> str:
    """What is wrong with a group of Ray workers; empty if nothing."""
    try:
        check_profile({"ray": {"worker": group}})
    except ProfileError as error:
        return "\n".join(error.details)
    return ""


@pytest.mark.parametrize(
    "resources",
    [
        *({name: 1} for name in ("CPU", "GPU", "memory", "object_store_memory")),
        *({"slot": amount} for amount in (0.5, 100e12 * 1.01, 1, 0, 2.0, 100e12)),
        {"GPUs": 1, "gpu": 1, "memory_": 1},
    ],
)
def test_rays_own_rules_for_resources(resources: dict[str, float]) -> None:
    """bilbo refuses what Ray itself refuses, and nothing else."""
    from ray._private.parameter import RayParams
    from ray._private.resource_and_label_spec import ResourceAndLabelSpec

    try:
        RayParams(resources=resources)
        spec = ResourceAndLabelSpec(1, 0, 10**9, 10**9, dict(resources))
        spec = spec.resolve(is_head=False, node_ip_address="10.0.0.1")
        spec.to_resource_dict()  # type: ignore[no-untyped-call]
        takes = True
    except (AssertionError, ValueError):
        takes = False
    assert (refusal(resources=resources) == "") == takes


def test_the_remedy_for_a_resource_of_rays_own() -> None:
    """The message names the key that asks for a GPU."""
    said = refusal(resources={"GPU": 1})
    assert "ray.worker.resources.GPU: Ray counts this itself: set num_cpus, num_gpus" in said
    told("Ray's own `GPU` among a profile's `resources`", said, 1,
         "nothing: it is found before anything is created")  # fmt: skip


def test_every_example_of_the_schema_is_valid() -> None:
    """An editor offers the examples, so a profile may hold each of them."""
    kinds = schema()["$defs"]
    for engine, role in (("dask", "dask_worker"), ("ray", "ray_head"), ("ray", "ray_worker")):
        for key, part in kinds[role]["properties"].items():
            for example in part.get("examples", ()):
                check_profile({engine: {role.partition("_")[2]: {key: example}}})


@pytest.mark.parametrize(
    ("role", "store", "warns"),
    [(WORKER, None, False), (WORKER, 8, False), (WORKER, 15, True), (WORKER, 64, True),
     (HEAD, None, False), (HEAD, 64, True)],
)  # fmt: skip
def test_an_object_store_that_does_not_fit(role: str, store: int | None, warns: bool) -> None:
    """`plan` warns of what Ray refuses once the machine runs and is billed."""
    machine = Machine("ami-1", "m5.xlarge", "key", "ubuntu", "~/key.pem")
    settings = {"object_store_memory": store * GIB} if store else {}
    group = NodeGroup(role, role, role, machine, settings=settings)
    said = ray.estimate(group, Measurement(4, 2, 15 * GIB))
    assert ("Ray will not start" in said) == warns
    if (role, store) == (WORKER, 64):
        told("Ray's object store is larger than the machine's memory, in `plan`", said, 0,
             "nothing: `plan` creates nothing")  # fmt: skip
    assert bool(said) == (warns or role == WORKER)
