"""The command that needs nothing: `version`."""

from __future__ import annotations

import click

from bilbo import __version__


@click.command(short_help="Show bilbo version.")
def version() -> None:
    """Show bilbo version."""
    click.echo(__version__)
