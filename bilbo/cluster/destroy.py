"""`destroy`: nothing of the cluster is left, looked up by tag and not by state."""

from __future__ import annotations

import time

from bilbo import aws
from bilbo import record as states
from bilbo.cluster.work import Work, interruptible
from bilbo.errors import AwsError, Interrupted

# AWS shows what is being deleted for a while after it said that it is gone.
_GONE_SECONDS = 60


def destroy(name: str, work: Work) -> None:
    """Destroys what the stored folder and state hold, checks by tag, forgets the cluster.

    Raises TerraformError, AwsError (something is left), RecordError, Interrupted.
    """
    with work.store.lock(name, "destroy"), interruptible(name):
        record = work.store.load(name)
        work.store.save(record.changed(status=states.DESTROYING))
        terraform = work.terraform(name)
        if (terraform.folder / "main.tf").is_file():
            terraform.init()
            outcome = terraform.destroy(work.progress.terraform)
            if outcome.interrupted:
                raise _interrupted(name)
            if not outcome.ok:
                raise terraform.error(outcome, f"cluster {name!r} could not be destroyed whole")
        _look_again(name, work)
        work.store.forget(name)


def _interrupted(name: str) -> Interrupted:
    return Interrupted(
        f"interrupted; what is left of cluster {name!r} is in its Terraform state",
        hint=f"Go on with: bilbo destroy {name}",
    )


def _look_again(name: str, work: Work) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    while left := aws.tagged(work.target, name):
        if time.monotonic() > deadline:
            raise AwsError(
                f"AWS still holds {len(left)} resource(s) of cluster {name!r}",
                details=tuple(f"{item.kind} {item.id} {item.state}".rstrip() for item in left),
                hint=f"Try again in a minute: bilbo destroy {name}",
            )
        time.sleep(1)
