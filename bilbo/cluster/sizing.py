"""Estimates workers' sizes from their instance types, before any host exists."""

from __future__ import annotations

import json

from bilbo import aws
from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.errors import AwsError
from bilbo.files import private_write
from bilbo.model import ClusterSpec, Measurement

# The share of a machine's memory that Linux reports as usable; the kernel keeps the rest.
# Measured on an m5.xlarge: 16,178,872,320 bytes of 16 GiB.
_USABLE = 0.94
_FIGURES = 4  # that AWS tells of a type: see aws.instance_types


def estimates(spec: ClusterSpec, work: Work) -> dict[str, str]:
    """Returns a line per group that the engine has something to say of, except for types that AWS
    does not describe to us.

    An instance type never changes, so AWS's answer is kept in bilbo's home.
    """
    if spec.engine is None:
        return {}
    engine = ENGINES[spec.engine]
    groups = [*([spec.head] if spec.head else []), *spec.workers]
    types = _instance_types({group.machine.ec2type for group in groups}, work)
    lines = {
        group.name: engine.estimate(
            group,
            Measurement(cpus, threads, int(memory * _USABLE), tuple(map(str, range(gpus)))),
        )
        for group in groups
        if (found := types.get(group.machine.ec2type))
        for cpus, threads, memory, gpus in (found,)
    }
    return {name: line for name, line in lines.items() if line}


def _instance_types(wanted: set[str], work: Work) -> dict[str, list[int]]:
    path = work.store.home / "instance-types.json"
    try:
        kept: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8"))
        # Earlier releases did not ask for GPUs.
        known = {name: found for name, found in kept.items() if len(found) == _FIGURES}
    except (OSError, ValueError, AttributeError, TypeError):
        known = {}
    if wanted <= known.keys():
        return known
    try:
        known |= aws.instance_types(work.target, sorted(wanted - known.keys()))
        private_write(path, json.dumps(known, sort_keys=True))
    except (AwsError, OSError):
        # A missing estimate must not fail a plan.
        pass
    return known
