"""Terraform, as bilbo runs it: argv from python-terraform, the process bilbo's own.

The only user of python-terraform. Loading the AWS provider costs seconds of CPU in every
process that needs it, so each function says whether it does.
"""

from bilbo.terraform.hints import unlock_hint
from bilbo.terraform.planfile import PROVIDERS, locked_providers, state_providers
from bilbo.terraform.runner import Terraform
from bilbo.terraform.stream import Diagnostic, Outcome, PlannedChange

__all__ = [
    "PROVIDERS",
    "Diagnostic",
    "Outcome",
    "PlannedChange",
    "Terraform",
    "locked_providers",
    "state_providers",
    "unlock_hint",
]
