"""A plan as a reviewer needs it: what ends, what opens, what it costs; as Markdown and JSON.

Pure: Terraform's JSON of a plan and the specification in, texts and documents out. Values that
Terraform marks as sensitive never leave `reading`.
"""

from bilbo.review.document import VERSION, drift_document, plan_document
from bilbo.review.exposure import open_to_world
from bilbo.review.markdown import Applied, drift_markdown, plan_markdown
from bilbo.review.reading import Attribute, Change, Review, drift_digests, read
from bilbo.review.settings import overrides_text, settings_text
from bilbo.review.text import drift_text, warnings_text

__all__ = [
    "VERSION",
    "Applied",
    "Attribute",
    "Change",
    "Review",
    "drift_digests",
    "drift_document",
    "drift_markdown",
    "drift_text",
    "open_to_world",
    "overrides_text",
    "plan_document",
    "plan_markdown",
    "read",
    "settings_text",
    "warnings_text",
]
