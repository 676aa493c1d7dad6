"""bilbo's errors: what went wrong, where, and what to do next.

Every error for users is a `BilboError`. The command line catches it in one place, prints it, and
exits with the class's `exit_code`. Any other exception is a bug in bilbo.
"""

from __future__ import annotations

# Begins a line of `details` that another program printed.
QUOTE = "    | "


class BilboError(Exception):
    """What went wrong (`what`), where (`where`) and what to do next (`hint`).

    `details` are further lines about the cause, such as the tail of a log or every mistake of a
    profile; they are printed unchanged.
    """

    exit_code = 1
    # Whether `details` are another program's output, which may contain anything, even secrets.
    quotes = False
    # Whether the same command fails the same way until somebody changes its cause.
    lasts = False

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
        """The text without other programs' output: logs are kept and sent to others."""
        told = () if self.quotes else self.details
        kept = tuple(line for line in told if not line.startswith(QUOTE))
        return str(BilboError(self.what, where=self.where, hint=self.hint, details=kept))


class UsageError(BilboError):
    """The command line is invalid."""

    exit_code = 2


class ProfileError(BilboError):
    """A profile is missing, unreadable or invalid."""


class RenderError(BilboError):
    """A cluster's specification cannot be rendered as HCL."""


class TerraformError(BilboError):
    """Terraform is missing, failed, or gave an unreadable answer."""


class PackerError(BilboError):
    """Packer is missing, failed, or built no image."""

    quotes = True


class AwsError(BilboError):
    """AWS refused, is unreachable, or does not have what was requested."""


class RemoteError(BilboError):
    """Work on the hosts failed."""


class RecordError(BilboError):
    """A cluster's record is missing, unreadable, or held by another process."""


class ReviewError(BilboError):
    """A reviewed plan cannot be applied: it or its basis has changed since the review."""


class LocalError(BilboError):
    """The stand-in AWS cannot be started, reached or used."""


class PartlyDone(BilboError):
    """Some of the work succeeded and some failed; running the command again completes it."""

    exit_code = 3


class Interrupted(BilboError):
    """The user pressed Ctrl-C; `what` says what exists, `hint` how to continue."""

    exit_code = 130
