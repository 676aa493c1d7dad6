"""`plan`: what Terraform would do for a profile. Creates nothing."""

from __future__ import annotations

from dataclasses import dataclass

from bilbo.cluster.work import Work, same_place, settle
from bilbo.model import ClusterSpec
from bilbo.render import render
from bilbo.terraform import Outcome


@dataclass(frozen=True)
class Planned:
    """What was asked and what Terraform would do; `outcome` None when there is nothing at all."""

    spec: ClusterSpec
    outcome: Outcome | None

    @property
    def has_changes(self) -> bool:
        """Whether a resource would change. A changed output alone is no change."""
        return self.outcome is not None and bool(self.outcome.changes)


def plan(spec: ClusterSpec, work: Work, *, my_ip: bool = False) -> Planned:
    """Validated, rendered, planned. Raises TerraformError, Interrupted and what `settle` does.

    Side effects: the cluster's Terraform folder is written; no record is.
    """
    before = work.store.known(spec.name)
    if before is None and not any(True for _ in spec.groups()):
        return Planned(spec, None)
    same_place(before, work)
    with work.store.lock(spec.name, "plan"):
        spec = settle(spec, work, before, my_ip)
        terraform = work.terraform(spec.name)
        terraform.write(render(spec))
        terraform.init()
        outcome = terraform.plan(terraform.cluster_folder / "plan.tfplan", work.progress.terraform)
    if outcome.interrupted:
        raise KeyboardInterrupt
    if not outcome.ok:
        raise terraform.error(outcome, f"terraform plan failed for cluster {spec.name!r}")
    return Planned(spec, outcome)
