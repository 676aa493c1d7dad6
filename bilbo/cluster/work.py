"""What every operation on a cluster needs, and what they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from bilbo import aws
from bilbo.errors import Interrupted
from bilbo.model import Target
from bilbo.record import Store
from bilbo.terraform import Terraform


class Progress(Protocol):
    """Where an operation tells what it does. Nothing that it prints is a result."""

    def say(self, text: str) -> None:
        """A stage begins, or something worth a line happened."""

    def terraform(self, event: Mapping[str, Any]) -> None:
        """Terraform wrote a line of its JSON stream."""

    def status(self, text: str) -> None:
        """What goes on now, for whoever waits."""

    def hosts(self, count: int) -> None:
        """The SSH stage begins, with so many hosts."""

    def host(
        self, instance_id: str, role: str, stage: str, message: str, milestone: str = ""
    ) -> None:
        """A host reached a stage, and perhaps one of `model.MILESTONES` or FAILED with it."""

    def confirm(self, question: str) -> bool:
        """Whether a person agrees. Raises BilboError where nobody can be asked."""


@dataclass(frozen=True)
class Work:
    """Where records are kept, which AWS is meant, and who is told.

    `timeout` is every stage's deadline for one host, in seconds; None leaves `remote.Deadlines`.
    """

    store: Store
    target: Target
    progress: Progress
    timeout: float | None = None

    @cached_property
    def account(self) -> str | None:
        """The account that the credentials are of, asked once; None where AWS does not tell."""
        return aws.account(self.target)

    def terraform(self, name: str, folder: Path | None = None) -> Terraform:
        """Terraform in the folder of one cluster, or in another `folder` of the same form."""
        # Names of buckets cannot be put before an endpoint's address.
        path_style = {"use_path_style": "true"} if self.target.endpoint_url else {}
        return Terraform(
            folder or self.store.folder(name),
            self.target.environment,
            self.store.home,
            path_style,
        )


def finish_earlier(terraform: Terraform, work: Work) -> None:
    """Waits for the Terraform that a killed bilbo left running: its outcome is in the state.

    Raises Interrupted when Ctrl-C is pressed while it waits.
    """
    outcome = terraform.resume(work.progress.terraform)
    if outcome is None:
        return
    work.progress.say("The Terraform of an earlier bilbo has ended; going on from its state.")
    if outcome.interrupted:
        raise KeyboardInterrupt


@contextmanager
def interruptible(name: str) -> Iterator[None]:
    """Turns Ctrl-C between Terraform's runs into an error that says how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise interrupted(name) from error


def interrupted(name: str) -> Interrupted:
    """What to say after Ctrl-C in the middle of creating a cluster."""
    return Interrupted(
        f"interrupted; what exists of cluster {name!r} is in its Terraform state",
        hint=f"Go on with the same `bilbo create`, or remove it: bilbo destroy {name}",
    )
