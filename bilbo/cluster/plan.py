"""`plan`: what Terraform would do for a profile. Creates nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bilbo.cluster.shared import initialised, not_moving
from bilbo.cluster.told import known
from bilbo.cluster.whose import stored
from bilbo.cluster.work import Work, owned, right_account, same_place, settle
from bilbo.errors import Interrupted
from bilbo.hostside import Setting, compare
from bilbo.model import ClusterSpec
from bilbo.render import render
from bilbo.terraform import Outcome

PLAN_FILE = "plan.tfplan"
_NO_OWNER = (
    "This cluster was made before owners: its resources carry no tag bilbo:owner, and adding it "
    "would replace every worker. Only a new cluster gets one."
)


@dataclass(frozen=True)
class Planned:
    """What was asked and what Terraform would do; `outcome` None when there is nothing at all.

    `settings` are what differs beside Terraform's plan: see `hostside`.

    `files` are the rendered ones, `saved` is Terraform's own plan, and `shown` that plan as
    Terraform's JSON, where it was asked for.
    """

    spec: ClusterSpec
    outcome: Outcome | None
    settings: tuple[Setting, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    saved: bytes = field(default=b"", repr=False)
    shown: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def has_changes(self) -> bool:
        """Whether a resource would change, or what HCL does not hold. A changed output alone is
        no change."""
        resources = self.outcome is not None and bool(self.outcome.changes)
        return resources or any(each.changed for each in self.settings)


def plan(spec: ClusterSpec, work: Work, *, my_ip: bool = False, show: bool = False) -> Planned:
    """Validated, rendered, planned. Raises TerraformError, Interrupted and what `settle` does.

    `show` costs another start of the provider. Side effects: the cluster's Terraform folder is
    written; no record is.
    """
    before = work.store.known(spec.name)
    if before is None and not any(True for _ in spec.groups()):
        return Planned(spec, None)
    same_place(before, work)
    right_account(spec, before, work)
    with work.store.lock(spec.name, "plan"):
        spec = settle(spec, work, before, my_ip, newest=True)
        terraform = work.terraform(spec.name)
        not_moving(spec, terraform)
        state = stored(work.target, terraform, spec.name, spec.state)
        spec = owned(spec, work, before, state)
        if spec.owner is None:
            work.progress.say(_NO_OWNER)
        files = render(spec)
        terraform.write(files)
        initialised(terraform, work, spec.name)
        settings = compare(spec, known(spec, work, before))
        path = terraform.cluster_folder / PLAN_FILE
        outcome = terraform.plan(path, work.progress.terraform)
        if outcome.interrupted:
            raise Interrupted("interrupted; plan creates nothing, and nothing was changed")
        if not outcome.ok:
            raise terraform.error(outcome, f"terraform plan failed for cluster {spec.name!r}")
        if not show:
            return Planned(spec, outcome, settings)
        return Planned(spec, outcome, settings, files, path.read_bytes(), terraform.show(path))
