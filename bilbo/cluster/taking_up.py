"""How `scale`, `pause` and `resume` take up a recorded cluster, wherever a bilbo has left it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bilbo.cluster.ownership import right_account, stored
from bilbo.cluster.resting import as_told
from bilbo.cluster.shared_state import unlocked
from bilbo.cluster.unwritten import finish, write_unwritten
from bilbo.cluster.work import Work
from bilbo.errors import BilboError
from bilbo.model import ClusterSpec
from bilbo.record import DESTROYING, Record


def not_ending(record: Record) -> Record:
    """Returns the record. Raises BilboError if the cluster is being destroyed."""
    if record.status == DESTROYING:
        raise BilboError(
            f"cluster {record.name!r} is being destroyed",
            hint=f"To continue: bilbo destroy {record.name}",
        )
    return record


def take_up(spec: ClusterSpec, before: Record, work: Work) -> tuple[Record, Mapping[str, Any]]:
    """Waits for a Terraform that a killed bilbo left, writes what it could not write, and returns
    the record, as a shared state has it, and Terraform's state.

    Raises RecordError for a locked state or another account, TerraformError, AwsError.
    """
    name = spec.name
    right_account(spec, before, work)
    write_unwritten(name, work)
    if spec.state:
        unlocked(spec.state, name, work)
    finish(name, work)
    state = stored(work.target, work.terraform(name), name, spec.state)
    before = as_told(before, state) if spec.state else before
    return before, state
