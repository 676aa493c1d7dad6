"""What workers are expected to get, from their instance types, before any host exists."""

from __future__ import annotations

import json

from bilbo import aws
from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.errors import AwsError
from bilbo.files import private_write
from bilbo.model import ClusterSpec, Measurement

# What Linux reports of a machine's memory, beside what AWS sells: the kernel keeps the rest.
# 16,178,872,320 of an m5.xlarge's 16 GiB were measured.
_USABLE = 0.94


def estimates(spec: ClusterSpec, work: Work) -> dict[str, str]:
    """A line a worker group; a group whose type AWS does not describe to us has none.

    An instance type never changes, so what AWS said is kept in bilbo's home.
    """
    if spec.engine is None:
        return {}
    engine = ENGINES[spec.engine]
    types = _instance_types({group.machine.ec2type for group in spec.workers}, work)
    return {
        group.name: engine.estimate(group, Measurement(cpus, threads, int(memory * _USABLE)))
        for group in spec.workers
        if (found := types.get(group.machine.ec2type))
        for cpus, threads, memory in (found,)
    }


def _instance_types(wanted: set[str], work: Work) -> dict[str, list[int]]:
    path = work.store.home / "instance-types.json"
    try:
        known: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if wanted <= known.keys():
        return known
    try:
        known |= aws.instance_types(work.target, sorted(wanted - known.keys()))
        private_write(path, json.dumps(known, sort_keys=True))
    except (AwsError, OSError):
        # An estimate is a courtesy: its absence must not fail a plan.
        pass
    return known
