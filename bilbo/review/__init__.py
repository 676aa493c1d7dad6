"""A plan as a reviewer needs it: what ends, what opens, what it costs; as Markdown and JSON.

Pure: Terraform's JSON of a plan and the specification in, texts and documents out. Values that
Terraform marks as sensitive never leave `reading`.
"""

from bilbo.review.document import VERSION, drift_document, plan_document
from bilbo.review.effects import InstanceHours, machines
from bilbo.review.exposure import open_to_world
from bilbo.review.markdown import ApplyCommand, drift_markdown, plan_markdown
from bilbo.review.reading import Attribute, ResourceChange, Review, drift_digests, read
from bilbo.review.settings import overrides_text, settings_text
from bilbo.review.text import drift_text, hours_text, warnings_text

__all__ = [
    "VERSION",
    "ApplyCommand",
    "Attribute",
    "InstanceHours",
    "ResourceChange",
    "Review",
    "drift_digests",
    "drift_document",
    "drift_markdown",
    "drift_text",
    "hours_text",
    "machines",
    "open_to_world",
    "overrides_text",
    "plan_document",
    "plan_markdown",
    "read",
    "settings_text",
    "warnings_text",
]
