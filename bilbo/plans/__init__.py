"""A Terraform plan as a reviewer needs it: what ends, what opens, how much runs.

Pure: takes Terraform's JSON of a plan and the specification, returns frozen records. Values that
Terraform marks as sensitive never leave `reading`.
"""

from bilbo.plans.effects import InstanceHours, machines
from bilbo.plans.exposure import open_to_world
from bilbo.plans.reading import Attribute, ResourceChange, Review, drift_digests, read
from bilbo.plans.shortages import Shortage

__all__ = [
    "Attribute",
    "InstanceHours",
    "ResourceChange",
    "Review",
    "Shortage",
    "drift_digests",
    "machines",
    "open_to_world",
    "read",
]
