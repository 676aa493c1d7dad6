"""Runs Terraform: python-terraform builds the argv, bilbo runs the process.

Only this package uses python-terraform. Loading the AWS provider costs every process that needs it
seconds of CPU, so `runner` groups its methods by whether they load it.
"""

from bilbo.terraform.hints import NAME_TAKEN, NO_SPOT, hint_for, unlock_hint
from bilbo.terraform.planfile import PROVIDERS, locked_providers, state_providers
from bilbo.terraform.runner import Terraform
from bilbo.terraform.stream import Diagnostic, Outcome, PlannedChange

__all__ = [
    "NAME_TAKEN",
    "NO_SPOT",
    "PROVIDERS",
    "Diagnostic",
    "Outcome",
    "PlannedChange",
    "Terraform",
    "hint_for",
    "locked_providers",
    "state_providers",
    "unlock_hint",
]
