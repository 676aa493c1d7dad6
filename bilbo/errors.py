"""The errors that bilbo names: what went wrong, where, and what to do next.

Everything that a user can meet is a `BilboError`. The command line catches it in
one place, prints it, and exits with the class's `exit_code`. Any other exception
is a bug of bilbo's.
"""

from __future__ import annotations

# What a line of `details` begins with that another program printed.
QUOTE = "    | "


class BilboError(Exception):
    """What went wrong (`what`), where (`where`) and what to do next (`hint`).

    `details` holds further lines that belong to the cause, such as the tail of a
    log or every mistake of a profile; they are printed as they are.
    """

    exit_code = 1
    # Whether `details` are what another program printed, which may hold anything, secrets too.
    quotes = False

    def __init__(
        self, what: str, *, where: str = "", hint: str = "", details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        lines += [f"  {line}" for line in self.details]
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)

    def logged(self) -> str:
        """As text without what another program printed: a log is kept, and sent to others."""
        told = () if self.quotes else self.details
        kept = tuple(line for line in told if not line.startswith(QUOTE))
        return str(BilboError(self.what, where=self.where, hint=self.hint, details=kept))


class UsageError(BilboError):
    """The command line asks for something that cannot be meant."""

    exit_code = 2


class ProfileError(BilboError):
    """A profile cannot be found, read, or does not say what it must."""


class RenderError(BilboError):
    """A cluster's specification cannot be turned into Terraform's language."""


class TerraformError(BilboError):
    """Terraform is missing, failed, or answered what bilbo cannot read."""


class PackerError(BilboError):
    """Packer is missing, failed, or made no image."""

    quotes = True


class AwsError(BilboError):
    """AWS refused, is out of reach, or does not hold what was asked for."""


class RemoteError(BilboError):
    """No service on the hosts could be brought up."""


class RecordError(BilboError):
    """A cluster's record is missing, unreadable, or held by another process."""


class ReviewError(BilboError):
    """A reviewed plan may not be applied: it, or what it rests on, is not as reviewed."""


class LocalError(BilboError):
    """The stand-in AWS cannot be started, reached or used."""


class PartlyDone(BilboError):
    """Something works and something does not; running the command again completes it."""

    exit_code = 3


class Interrupted(BilboError):
    """The user pressed Ctrl-C; `what` says what exists, `hint` how to go on."""

    exit_code = 130
