"""`destroy`: nothing of the cluster is left, looked up by tag and not by state."""

from __future__ import annotations

import time

from bilbo import aws
from bilbo import record as states
from bilbo.cluster.adopt import adopt_to_destroy
from bilbo.cluster.work import Work, finish_earlier
from bilbo.errors import AwsError, Interrupted, RecordError
from bilbo.record import Record
from bilbo.terraform import Terraform

# AWS shows what is being deleted for a while after it said that it is gone.
_GONE_SECONDS = 60
# The longest that what Terraform did not know may look as if it were on its way out.
_ORPHAN_SECONDS = 5

_UNFINISHED = (states.CREATING, states.DESTROYING, states.FAILED)


def destroy(name: str, work: Work) -> None:
    """Destroys what the stored folder and state hold, checks by tag, forgets the cluster.

    Raises TerraformError, AwsError (something is left), RecordError, Interrupted.
    """
    with work.store.lock(name, "destroy"):
        try:
            _destroy(name, work)
        except KeyboardInterrupt as error:
            raise _interrupted(name) from error


def _destroy(name: str, work: Work) -> None:
    record = _record(name, work)
    terraform = work.terraform(name)
    finish_earlier(terraform, work)
    work.store.save(record.changed(status=states.DESTROYING))
    if (terraform.folder / "main.tf").is_file():
        terraform.init()
        if record.status in _UNFINISHED:
            adopt_to_destroy(name, work, terraform)
        _terraform(name, work, terraform)
    _nothing_left(name, work, terraform)
    work.store.forget(name)


def _record(name: str, work: Work) -> Record:
    record = work.store.known(name)
    if record is None:
        raise RecordError(f"cluster {name!r} is gone already")
    return record


def _terraform(name: str, work: Work, terraform: Terraform) -> None:
    outcome = terraform.destroy(work.progress.terraform)
    if outcome.interrupted:
        raise _interrupted(name)
    if not outcome.ok:
        raise terraform.error(outcome, f"cluster {name!r} could not be destroyed whole")


def _interrupted(name: str) -> Interrupted:
    return Interrupted(
        f"interrupted; what is left of cluster {name!r} is in its Terraform state",
        hint=f"Go on with: bilbo destroy {name}",
    )


def _nothing_left(name: str, work: Work, terraform: Terraform) -> None:
    """Waits until AWS shows nothing; what stays is not in the state, and is destroyed by it."""
    began = time.monotonic()
    adopted = False
    while left := aws.tagged(work.target, name):
        waited = time.monotonic() - began
        if waited > _ORPHAN_SECONDS and not adopted and (terraform.folder / "main.tf").is_file():
            adopted = True
            if adopt_to_destroy(name, work, terraform):
                _terraform(name, work, terraform)
                continue
        if waited > _GONE_SECONDS:
            raise AwsError(
                f"AWS still holds {len(left)} resource(s) of cluster {name!r}",
                details=tuple(f"{item.kind} {item.id} {item.state}".rstrip() for item in left),
                hint=f"Try again in a minute: bilbo destroy {name}",
            )
        work.progress.status("AWS still shows what was destroyed; looking again")
        time.sleep(1)
