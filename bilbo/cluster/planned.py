"""What `terraform plan` came to: made by `plan`, packed and shown for a review."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bilbo.hostside import Setting
from bilbo.model import ClusterSpec
from bilbo.terraform import Outcome

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
