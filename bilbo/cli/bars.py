"""How far a stage is, counted: Terraform's resources and the hosts of the SSH stage. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from bilbo.model import FAILED, MILESTONES

VERBS = {
    "create": ("Creating", "Created"),
    "update": ("Changing", "Changed"),
    "delete": ("Destroying", "Destroyed"),
}


@dataclass(frozen=True)
class Bar:
    """A bar of a terminal's live region: `done` of `total` (None: nobody knows), `counts` below
    it, and how many `failed`."""

    title: str
    done: int = 0
    total: int | None = None
    counts: str = ""
    failed: int = 0


class Resources:
    """One run of Terraform."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self._failed = 0
        self._busy: dict[str, str] = {}

    def begun(self, address: str, action: str) -> None:
        """Terraform works on a resource."""
        self._busy[address] = action

    def ended(self, address: str, *, well: bool = True) -> None:
        """It is done with a resource, or could not do it."""
        self._busy.pop(address, None)
        if well:
            self.done += 1
        else:
            self._failed += 1

    @property
    def doing(self) -> str:
        """What was begun last, and how much more goes on; empty where nothing does."""
        if not self._busy:
            return ""
        address, action = next(reversed(self._busy.items()))
        more = f" and {len(self._busy) - 1} more" if len(self._busy) > 1 else ""
        return f"{VERBS.get(action, (action, ''))[0]} {address}{more}"

    def bar(self) -> Bar:
        """How many resources are done."""
        counts = f"{self.done} of {self.total} resources" if self.total else ""
        return Bar("Terraform", self.done, self.total or None, counts, self._failed)


class Hosts:
    """The SSH stage of some hosts: each passes the milestones in their order, or fails."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._passed: Counter[str] = Counter()
        self._furthest: dict[str, int] = {}
        self._failed: set[str] = set()

    def reached(self, instance_id: str, milestone: str) -> None:
        """A host is at a milestone, and so past those before it."""
        if milestone == FAILED:
            self._failed.add(instance_id)
            return
        now = MILESTONES.index(milestone) + 1
        before = self._furthest.get(instance_id, 0)
        self._passed.update(MILESTONES[before:now])
        self._furthest[instance_id] = max(before, now)

    def bar(self) -> Bar:
        """How many hosts have passed each milestone. The bar is full when all are ready."""
        counts = ", ".join(f"{self._passed[each]} {each}" for each in MILESTONES)
        return Bar(
            "Hosts",
            self._passed.total(),
            len(MILESTONES) * self._total,
            f"{counts} of {self._total}",
            len(self._failed),
        )
