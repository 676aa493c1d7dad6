"""Terraform, as bilbo runs it: argv from python-terraform, the process bilbo's own.

The only user of python-terraform. Loading the AWS provider costs seconds of CPU in every
process that needs it, so each function says whether it does.
"""

from bilbo.terraform.commands import Terraform
from bilbo.terraform.stream import Change, Diagnostic, Outcome

__all__ = ["Change", "Diagnostic", "Outcome", "Terraform"]
