"""What every operation on a cluster needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from bilbo import aws
from bilbo.errors import Interrupted
from bilbo.model import Target
from bilbo.record import Store
from bilbo.terraform import Terraform


class Progress(Protocol):
    """Where an operation reports what it does. Results are not printed here."""

    def say(self, text: str) -> None:
        """Reports the beginning of a stage, or another event worth a line."""

    def terraform(self, event: Mapping[str, Any]) -> None:
        """Reports one event of Terraform's JSON stream."""

    def status(self, text: str) -> None:
        """Shows what is going on now."""

    def hosts(self, count: int) -> None:
        """Reports the beginning of the SSH stage on `count` hosts."""

    def host(
        self, instance_id: str, role: str, stage: str, message: str, milestone: str = ""
    ) -> None:
        """Reports that a host reached a stage, and one of `model.MILESTONES` or FAILED with it."""

    def confirm(self, question: str) -> bool:
        """Asks a person, and returns whether they agree. Raises BilboError if it cannot ask."""


@dataclass(frozen=True)
class Work:
    """The records, the target, and where to report progress.

    `timeout` is the deadline of each stage on a host, in seconds; None means `remote.Deadlines`.
    `images` are the AMIs that were looked at: each is asked for once.
    """

    store: Store
    target: Target
    progress: Progress
    timeout: float | None = None
    images: aws.Amis = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def account(self) -> str | None:
        """The account of the credentials, looked up once; None if AWS does not say."""
        return aws.account(self.target)

    def terraform(self, name: str, folder: Path | None = None) -> Terraform:
        """Returns Terraform in a cluster's folder, or in another `folder` of the same layout."""
        # A bucket's name cannot be a subdomain of an endpoint that is an address.
        path_style = {"use_path_style": "true"} if self.target.endpoint_url else {}
        return Terraform(
            folder or self.store.folder(name),
            self.target.environment,
            self.store.home,
            path_style,
        )


def finish_earlier(terraform: Terraform, work: Work) -> None:
    """Waits for the Terraform that a killed bilbo left running: its outcome is in the state.

    Raises KeyboardInterrupt on Ctrl-C.
    """
    if terraform.resume(work.progress.terraform):
        work.progress.say("The Terraform of an earlier bilbo has ended; continuing from its state.")


@contextmanager
def interruptible(what: str, hint: str = "", terraform: Terraform | None = None) -> Iterator[None]:
    """Turns Ctrl-C into an error that says `what` is the case now, and how to continue.

    With `terraform`, it says instead where a state is that could not be written.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        what = (terraform.unwritten_text() if terraform else "") or what
        raise Interrupted(f"interrupted; {what}", hint=hint) from error
