"""`drift`: what was changed outside Terraform. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from bilbo.cluster.instances import differences
from bilbo.cluster.ownership import same_account
from bilbo.cluster.shared_state import initialised
from bilbo.cluster.work import Work, interruptible
from bilbo.plans import Review, read
from bilbo.record import Record
from bilbo.status import ANOTHERS, InstanceDifference


@dataclass(frozen=True)
class Drift:
    """What differs from Terraform's state, and which instances differ from the record: workers'
    instances are in no state."""

    review: Review
    instances: tuple[InstanceDifference, ...]

    def __bool__(self) -> bool:
        """Whether anything of the cluster was changed; resources of other owners do not count."""
        own = [each for each in self.instances if each.state != ANOTHERS]
        return bool(self.review.drift or own)


def drift(record: Record, work: Work) -> Drift:
    """Compares AWS with the cluster's state and record. Raises TerraformError, AwsError."""
    name = record.name
    same_account(record, work)
    reads = interruptible("drift only reads, so nothing changed")
    with work.store.lock(name, "drift"), reads:
        terraform = work.terraform(name)
        initialised(terraform, work, name)
        looked = terraform.cluster_folder / "look.tfplan"
        outcome = terraform.plan(looked, work.progress.terraform, refresh_only=True)
        if not outcome.ok:
            raise terraform.error(outcome, f"cannot compare AWS with the state of {name!r}")
        review = read(terraform.show(looked)) if outcome.drift else Review()
    return Drift(review, tuple(differences(record, work)))
