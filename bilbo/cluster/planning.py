"""Shared by `plan` and `apply`: the rendered files in a cluster's folder, and the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bilbo.costs import Bill
from bilbo.hostside import Setting
from bilbo.model import ClusterSpec
from bilbo.plans import Shortage
from bilbo.prices import Prices
from bilbo.render import render
from bilbo.terraform import Outcome, Terraform


def write_rendered(
    spec: ClusterSpec, terraform: Terraform, files: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """Writes what `spec` renders to into the folder, or `files` if it is already rendered."""
    found = render(spec) if files is None else files
    backend = spec.state.backend(spec.name) if spec.state else {}
    terraform.write(found, {"backend": backend, "owner": spec.owner})
    return found


PLAN_FILE = "plan.tfplan"


@dataclass(frozen=True)
class Planned:
    """What was requested and what Terraform would do; `outcome` is None if there is nothing.

    `settings` are the differences outside Terraform's plan: see `hostside`. `shortages` are the
    worker groups that have lost machines, which Terraform does not see.

    `files` are the rendered files, `saved` is Terraform's own plan, and `shown` is that plan as
    Terraform's JSON, if requested. `paused`: the cluster has no workers, whatever `spec` says.
    `bill` is what the cluster costs by the hour, by `prices`.
    """

    spec: ClusterSpec
    outcome: Outcome | None
    settings: tuple[Setting, ...] = ()
    shortages: tuple[Shortage, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    saved: bytes = field(default=b"", repr=False)
    shown: Mapping[str, Any] = field(default_factory=dict, repr=False)
    paused: bool = False
    bill: Bill | None = None
    prices: Prices = field(default_factory=Prices, repr=False)

    @property
    def has_changes(self) -> bool:
        """Whether a resource, or a setting outside HCL, would change, or workers are missing. A
        changed output alone does not count."""
        resources = self.outcome is not None and bool(self.outcome.changes)
        beside = any(each.changed for each in self.settings) or bool(self.shortages)
        return resources or beside
