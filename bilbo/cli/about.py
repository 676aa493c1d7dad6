"""The command that needs nothing: `version`."""

from __future__ import annotations

import click

from bilbo import __version__
from bilbo.cli.output import echo


@click.command(short_help="Show bilbo version.")
def version() -> None:
    """Show bilbo version."""
    echo(__version__)
