"""What `plan` and `apply` share: the rendered files in a cluster's folder, and what was planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bilbo.hostside import Setting
from bilbo.model import ClusterSpec
from bilbo.render import render
from bilbo.terraform import Outcome, Terraform


def write_rendered(
    spec: ClusterSpec, terraform: Terraform, files: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """Makes the folder hold what `spec` renders to, `files` where that is done already."""
    found = render(spec) if files is None else files
    backend = spec.state.backend(spec.name) if spec.state else {}
    terraform.write(found, {"backend": backend, "owner": spec.owner})
    return found


PLAN_FILE = "plan.tfplan"


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
