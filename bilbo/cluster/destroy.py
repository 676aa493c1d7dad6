"""`destroy`: removes everything of the cluster, and verifies that by tag, not by state."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from bilbo import addresses, aws
from bilbo import record as states
from bilbo.aws import Resource
from bilbo.cluster.bookkeeping import note_machines
from bilbo.cluster.credentials_watch import CredentialsWatch
from bilbo.cluster.orphans import adopt_to_destroy, orphans
from bilbo.cluster.ownership import Own, own_of, same_account
from bilbo.cluster.shared_state import initialised
from bilbo.cluster.unwritten import finish
from bilbo.cluster.work import Work, interruptible
from bilbo.errors import AwsError, BilboError, RecordError, UsageError
from bilbo.record import Record
from bilbo.terraform import Terraform

# AWS lists deleted resources for a while after it reports them as gone.
_GONE_SECONDS = 60
# How long a resource that Terraform does not know may be taken for one that is being deleted.
_ORPHAN_SECONDS = 5

_UNFINISHED = (states.CREATING, states.DESTROYING, states.FAILED)


def destroy(name: str, work: Work, also: Collection[str] = ()) -> list[Resource]:
    """Destroys what the Terraform folder and state hold, checks by tag, forgets the cluster.

    Returns what carries the cluster's tag but has another owner, and was left alone; the ids in
    `also` are destroyed too. Raises TerraformError, AwsError (something is left), RecordError,
    UsageError (an id in `also` does not carry the tag), Interrupted.
    """
    what = f"what is left of cluster {name!r} is in its Terraform state"
    hint = f"To continue: bilbo destroy {name}"
    with work.store.lock(name, "destroy"), interruptible(what, hint, work.terraform(name)):
        return _destroy(name, work, also)


def others(record: Record, work: Work, also: Collection[str] = ()) -> list[Resource]:
    """Returns what carries the cluster's tag but has another owner. Changes nothing. Raises as
    `destroy` does."""
    same_account(record, work)
    found = aws.tagged(work.target, record.name)
    if unknown := sorted({*also} - {each.id for each in found}):
        raise UsageError(
            f"--also: no resource with the tag of cluster {record.name!r} has the id "
            f"{', '.join(unknown)}",
            hint="`bilbo destroy` destroys only resources with that tag.",
        )
    own = own_of(record, work, also)
    return [each for each in found if not own.has(each)]


def _destroy(name: str, work: Work, also: Collection[str]) -> list[Resource]:
    record = _record(name, work)
    same_account(record, work)
    if also:
        others(record, work, also)
    terraform = work.terraform(name)
    finish(name, work)
    own = own_of(record, work, also)
    work.store.save(record.changed(status=states.DESTROYING))
    note_machines(record, record, work)
    if (terraform.folder / "main.tf").is_file():
        initialised(terraform, work, name)
        if record.status in _UNFINISHED or also:
            adopt_to_destroy(name, work, terraform, own)
        _terraform(name, work, terraform, own)
    left = _nothing_left(name, work, terraform, own)
    note_machines(record, record, work)
    work.store.forget(name)
    return left


def _record(name: str, work: Work) -> Record:
    record = work.store.known(name)
    if record is None:
        raise RecordError(f"cluster {name!r} is already gone")
    return record


def _terraform(name: str, work: Work, terraform: Terraform, own: Own) -> None:
    watch = _Watch(name, work, terraform, own)
    outcome = terraform.destroy(watch)
    if any("data." in error.address for error in outcome.errors):
        # Terraform reads data sources even to destroy, and what they ask for may be gone, such as
        # a subnet. It gives up then, while machines run on.
        work.progress.say("A data source cannot be read; destroying without it.")
        outcome = terraform.destroy(watch, refresh=False)
    if watch.orphaned:
        # This ends, because each round imports what was created while Terraform was killed.
        adopt_to_destroy(name, work, terraform, own)
        _terraform(name, work, terraform, own)
    elif not outcome.ok:
        raise terraform.error(outcome, f"cluster {name!r} could not be destroyed completely")


class _Watch:
    """Forwards Terraform's progress, and finds out what still uses a security group.

    AWS does not delete a group in use, and Terraform waits for minutes without saying why. If a
    machine of the cluster that is in no state uses it, Terraform is stopped and `orphaned` is set.
    """

    def __init__(self, name: str, work: Work, terraform: Terraform, own: Own) -> None:
        self._name, self._work, self._terraform, self._own = name, work, terraform, own
        self._said: set[str] = set()
        self._forward = CredentialsWatch(work)
        self.orphaned = False

    def __call__(self, event: Mapping[str, Any]) -> bool:
        self._forward(event)
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
            return  # Terraform continues, and its result is reported

    def _groups(self, address: str) -> list[str]:
        for resource in self._terraform.state().get("resources", []):
            if addresses.of_resource(resource) == address:
                return [instance["attributes"]["id"] for instance in resource["instances"]]
        return []

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._work.progress.say(text)


def _nothing_left(name: str, work: Work, terraform: Terraform, own: Own) -> list[Resource]:
    """Waits until AWS shows nothing of it. What stays is not in the state, so it is imported and
    destroyed.

    Returns what has another owner, without waiting for it.
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
        work.progress.status("AWS still lists destroyed resources; checking again")
        time.sleep(1)
