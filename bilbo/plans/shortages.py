"""Worker groups with fewer running machines than their size: work that Terraform does not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shortage:
    """A worker group of which `running` machines of `size` run. `stopped` ones are there."""

    group: str
    size: int
    running: int
    stopped: int = 0

    @property
    def text(self) -> str:
        """What is missing, and how `create` brings it back, in one line."""
        launched = max(0, self.size - self.running - self.stopped)
        does = [f"starts {self.stopped} stopped"] * bool(self.stopped)
        does += [f"has AWS launch {launched}"] * bool(launched)
        return (
            f"{self.group}: {self.running} of {self.size} workers run; "
            f"`create` {' and '.join(does)}"
        )


def missing(shortages: Sequence[Shortage]) -> str:
    """Returns how many workers are missing, in words; empty for none."""
    count = sum(each.size - each.running for each in shortages)
    return f"{count} worker{'s' * (count > 1)} missing" if count else ""
