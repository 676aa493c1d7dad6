"""The commands about bilbo itself: `version` and `completion`."""

from __future__ import annotations

import click

from bilbo import __version__
from bilbo.cli.output import echo


@click.command(short_help="Show bilbo version.")
def version() -> None:
    """Show bilbo version."""
    echo(__version__)


@click.command(short_help="Print shell completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL: commands, options, clusters, profiles, targets.

    \b
    Examples, to enable it in every new shell:
      bash   echo 'eval "$(bilbo completion bash)"' >> ~/.bashrc
      zsh    echo 'eval "$(bilbo completion zsh)"' >> ~/.zshrc
      fish   bilbo completion fish > ~/.config/fish/completions/bilbo.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None  # click supports all three
    echo(made(ctx.find_root().command, {}, "bilbo", "_BILBO_COMPLETE").source())
