"""The command line: parses, calls, echoes, and catches `BilboError` in one place."""

from __future__ import annotations

import io
import shlex
import signal
import sys
from importlib import import_module

import click

from bilbo import __version__
from bilbo.cli.context import Context, home
from bilbo.cli.output import echo, echo_lines
from bilbo.errors import BilboError

# Each command's module and short help, so that listing the commands imports none of them.
_COMMANDS = {
    "attach": ("team", "Work on a team-mate's cluster."),
    "check": ("inspect", "Compare package versions."),
    "clusters": ("inspect", "List active clusters."),
    "completion": ("about", "Print shell completion."),
    "create": ("lifecycle", "Create cluster."),
    "dashboard": ("inspect", "Open dashboard."),
    "desc": ("inspect", "Describe a cluster."),
    "destroy": ("lifecycle", "Destroy cluster."),
    "drift": ("inspect", "Show changes made outside Terraform."),
    "extend": ("extending", "Have a cluster end later."),
    "get": ("hosts", "Copy files from an instance."),
    "image": ("image", "Build machine images."),
    "images": ("image", "List built images."),
    "local": ("local", "Start and stop the stand-in AWS."),
    "logs": ("inspect", "Show service logs."),
    "notebook": ("inspect", "Open notebook."),
    "permissions": ("team", "Print the IAM policy that a profile needs."),
    "plan": ("lifecycle", "Show create cluster plan."),
    "profiles": ("inspect", "List all profiles."),
    "put": ("hosts", "Copy files to instances."),
    "rcmd": ("hosts", "Command to a cluster instance."),
    "render": ("team", "Write only the Terraform files."),
    "restart": ("lifecycle", "Restart cluster."),
    "scale": ("lifecycle", "Change the number of workers."),
    "ssh": ("hosts", "Open a shell on an instance."),
    "state-bucket": ("team", "Create a bucket for shared state."),
    "sweep": ("cleanup", "Find what no cluster here owns."),
    "unlock": ("team", "Remove a stale lock from shared state."),
    "version": ("about", "Show bilbo version."),
}


class _Lazy(click.Group):
    """Imports a command's module only when the command runs, to keep start-up short."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command = getattr(import_module(f"bilbo.cli.commands.{module}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands with their short help."""
        rows = [(name, _COMMANDS[name][1]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, _COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " Run `bilbo` to list the commands."
            ctx.fail(f"no such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Lazy,
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)
@click.option("-v", "--verbose", count=True, help="Increase message verbosity.")
@click.option("--local", is_flag=True, help="Use the stand-in AWS on this machine.")
@click.pass_context
def bilbo(ctx: click.Context, verbose: int, local: bool) -> None:
    """Data clusters on AWS from small JSON profiles: JupyterLab, Dask and Ray."""
    ctx.obj = Context(verbose=verbose, local=local, home=home())
    if ctx.invoked_subcommand is None:
        echo(ctx.get_help())
        return
    if ctx.invoked_subcommand in ("version", "completion") or {"-h", "--help"} & set(sys.argv):
        return
    ctx.obj.store.prepare()
    if mode := ctx.obj.store.open_to_others():
        echo(
            f"bilbo: warning: other users of this machine can access {ctx.obj.home} (mode "
            f"{mode:o}); to fix it: chmod 700 {shlex.quote(str(ctx.obj.home))}",
            err=True,
        )


def main() -> None:
    """Runs the command line and exits. `errors` lists the exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = bilbo.main(standalone_mode=False, prog_name="bilbo")
    except BilboError as error:
        echo_lines(f"bilbo: {error}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        said = io.StringIO()  # quotes user input, so `echo` must escape it
        error.show(said)
        echo(said.getvalue(), err=True, nl=False)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # ignore a second Ctrl-C while exiting
        echo("bilbo: interrupted", err=True)
        code = 130
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does.
        sys.stderr.close()
        code = 0
    except OSError as error:
        # What the system refuses, such as a write to a full disk, is reported with its path.
        echo(
            f"bilbo: {error.filename or home()}: {error.strerror or error}\n"
            "Nothing is lost. Fix this and run the command again.",
            err=True,
        )
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


__all__ = ["__version__", "bilbo", "main"]
