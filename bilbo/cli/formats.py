"""The option that says how a plan or a drift is shown."""

from __future__ import annotations

import click

FORMATS = ("text", "json", "markdown")
FORMAT_OPTION = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", help="How it is shown."
)
