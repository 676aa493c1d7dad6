"""`destroy`: nothing of the cluster is left, looked up by tag and not by state."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from bilbo import addresses, aws
from bilbo import record as states
from bilbo.aws import Resource
from bilbo.cluster.orphans import adopt_to_destroy, orphans
from bilbo.cluster.ownership import Own, own_of, same_account
from bilbo.cluster.shared_state import initialised
from bilbo.cluster.work import Work, finish_earlier
from bilbo.errors import AwsError, BilboError, Interrupted, RecordError, UsageError
from bilbo.record import Record
from bilbo.terraform import Terraform

# AWS shows what is being deleted for a while after it said that it is gone.
_GONE_SECONDS = 60
# The longest that what Terraform did not know may look as if it were on its way out.
_ORPHAN_SECONDS = 5

_UNFINISHED = (states.CREATING, states.DESTROYING, states.FAILED)


def destroy(name: str, work: Work, also: Collection[str] = ()) -> list[Resource]:
    """Destroys what the stored folder and state hold, checks by tag, forgets the cluster.

    Returns what carries the cluster's tag, is another's, and was left alone; the ids in `also` are
    destroyed with it. Raises TerraformError, AwsError (something is left), RecordError, UsageError
    (an id in `also` is not that of such a thing), Interrupted.
    """
    with work.store.lock(name, "destroy"):
        try:
            return _destroy(name, work, also)
        except KeyboardInterrupt as error:
            raise _interrupted(name) from error


def others(record: Record, work: Work, also: Collection[str] = ()) -> list[Resource]:
    """What carries the cluster's tag and is another's. Raises what `destroy` does, but touches
    nothing."""
    same_account(record, work)
    found = aws.tagged(work.target, record.name)
    if unknown := sorted({*also} - {each.id for each in found}):
        raise UsageError(
            f"--also: nothing in AWS with the tag of cluster {record.name!r} has the id "
            f"{', '.join(unknown)}",
            hint="`bilbo destroy` takes nothing else.",
        )
    own = own_of(record, work, also)
    return [each for each in found if not own.has(each)]


def _destroy(name: str, work: Work, also: Collection[str]) -> list[Resource]:
    record = _record(name, work)
    same_account(record, work)
    if also:
        others(record, work, also)
    terraform = work.terraform(name)
    finish_earlier(terraform, work)
    own = own_of(record, work, also)
    work.store.save(record.changed(status=states.DESTROYING))
    if (terraform.folder / "main.tf").is_file():
        initialised(terraform, work, name)
        if record.status in _UNFINISHED or also:
            adopt_to_destroy(name, work, terraform, own)
        _terraform(name, work, terraform, own)
    left = _nothing_left(name, work, terraform, own)
    work.store.forget(name)
    return left


def _record(name: str, work: Work) -> Record:
    record = work.store.known(name)
    if record is None:
        raise RecordError(f"cluster {name!r} is gone already")
    return record


def _terraform(name: str, work: Work, terraform: Terraform, own: Own) -> None:
    watch = _Watch(name, work, terraform, own)
    outcome = terraform.destroy(watch)
    if outcome.interrupted:
        raise _interrupted(name)
    if watch.orphaned:
        # Each time there is something new: what came to be while its Terraform was killed.
        adopt_to_destroy(name, work, terraform, own)
        _terraform(name, work, terraform, own)
    elif not outcome.ok:
        raise terraform.error(outcome, f"cluster {name!r} could not be destroyed whole")


class _Watch:
    """Passes Terraform's progress on, and looks at what holds a security group that stays.

    AWS deletes none in use, and Terraform waits for minutes without a word of why. Where it is
    a machine of the cluster that no state knows, Terraform is stopped and `orphaned` is set.
    """

    def __init__(self, name: str, work: Work, terraform: Terraform, own: Own) -> None:
        self._name, self._work, self._terraform, self._own = name, work, terraform, own
        self._said: set[str] = set()
        self.orphaned = False

    def __call__(self, event: Mapping[str, Any]) -> bool:
        self._work.progress.terraform(event)
        if event["type"] != "apply_progress" or self.orphaned:
            return False
        resource = event["hook"]["resource"]
        if resource["resource_type"] == "aws_security_group":
            self._look(resource["addr"])
        return self.orphaned

    def _look(self, address: str) -> None:
        try:
            state = self._terraform.state()
            self.orphaned = bool(orphans(self._name, self._work, state, self._own)[0])
            for group in () if self.orphaned else self._groups(address):
                for holder in aws.holders(self._work.target, group):
                    self._say(f"Security group {group} is still used by {holder}.")
        except BilboError:
            return  # Terraform goes on, and what it comes to is told

    def _groups(self, address: str) -> list[str]:
        for resource in self._terraform.state().get("resources", []):
            if addresses.of_resource(resource) == address:
                return [instance["attributes"]["id"] for instance in resource["instances"]]
        return []

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._work.progress.say(text)


def _interrupted(name: str) -> Interrupted:
    return Interrupted(
        f"interrupted; what is left of cluster {name!r} is in its Terraform state",
        hint=f"Go on with: bilbo destroy {name}",
    )


def _nothing_left(name: str, work: Work, terraform: Terraform, own: Own) -> list[Resource]:
    """Waits until AWS shows nothing of it; what stays is not in the state, and is destroyed by it.

    Returns what is another's: nobody waits for that.
    """
    began = time.monotonic()
    adopted = False
    while True:
        found = aws.tagged(work.target, name)
        left = [each for each in found if own.has(each)]
        if not left:
            return found
        waited = time.monotonic() - began
        if waited > _ORPHAN_SECONDS and not adopted and (terraform.folder / "main.tf").is_file():
            adopted = True
            if adopt_to_destroy(name, work, terraform, own):
                _terraform(name, work, terraform, own)
                continue
        if waited > _GONE_SECONDS:
            raise AwsError(
                f"AWS still holds {len(left)} resource(s) of cluster {name!r}",
                details=tuple(f"{item.kind} {item.id} {item.state}".rstrip() for item in left),
                hint=f"Try again in a minute: bilbo destroy {name}",
            )
        work.progress.status("AWS still shows what was destroyed; looking again")
        time.sleep(1)
