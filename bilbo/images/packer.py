"""Runs Packer: template, arguments, output followed through a file, one interrupt."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bilbo import process
from bilbo.errors import Interrupted, PackerError, UsageError
from bilbo.files import private_folder, private_write
from bilbo.images.packer_output import Event, built, parse
from bilbo.programs import find
from bilbo.resources import folder

OnEvent = Callable[[Event], None]

_SUFFIXES = (".pkrvars.hcl", ".pkrvars.json")
# What stands in bilbo's template where a Packer with plugins gets the block. Source: Packer's
# Amazon plugin, "EC2 Metadata Options"; plugins.pkr.hcl asks for a release that has it.
_IMDS_PLACE = "  # IMDSv2 is required here where Packer can; see bilbo/images/packer.py."
_IMDS_BLOCK = """  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }"""
_VARIABLE = re.compile(r'^variable\s+"([\w-]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Recipe:
    """What to build: the folder of a Packer template and, optionally, a file with values for it.

    Relative paths start at `cwd`; `variables` are the names that the template declares.
    """

    template: Path
    values: Path | None = None
    cwd: Path = field(default_factory=Path.cwd)
    variables: frozenset[str] = frozenset()

    def set_in_values(self, variable: str) -> str:
        """The plain text that the file of values gives to a variable; empty if it gives none."""
        text = self.values.read_text(encoding="utf-8") if self.values else ""
        found = re.search(rf'^\s*"?{variable}"?\s*[=:]\s*"([^"$]*)"', text, re.MULTILINE)
        return found[1] if found else ""


class PackerKilled(PackerError):
    """Packer was killed, and has not removed what it made."""


def read_recipe(path: str | None) -> Recipe:
    """The recipe at `path`: a folder with a template, or a file with values for bilbo's own;
    bilbo's own for None. Raises UsageError for anything else."""
    if path is None:
        return _with_variables(Recipe(folder("packer")))
    given = Path(path).expanduser().absolute()
    if given.is_dir():
        if not any(given.glob("*.pkr.hcl")) and not any(given.glob("*.pkr.json")):
            raise UsageError("this folder has no Packer template (*.pkr.hcl)", where=path)
        return _with_variables(Recipe(given, cwd=given))
    if not given.is_file():
        raise UsageError("there is no such recipe", where=path)
    if not given.name.endswith(_SUFFIXES):
        raise UsageError(
            "not a recipe: use a folder with a Packer template, or a file of values for bilbo's",
            where=path,
            hint=f"Packer requires that the name of such a file ends in {' or '.join(_SUFFIXES)}.",
        )
    return _with_variables(Recipe(folder("packer"), given, given.parent))


def _with_variables(recipe: Recipe) -> Recipe:
    texts = [path.read_text(encoding="utf-8") for path in recipe.template.glob("*.pkr.hcl")]
    found = frozenset(name for text in texts for name in _VARIABLE.findall(text))
    return Recipe(recipe.template, recipe.values, recipe.cwd, found)


def environment(base: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of every Packer process; an empty value in `extra` removes a variable."""
    kept = {key: value for key, value in base.items() if not key.startswith("PACKER_LOG")}
    merged = {**kept, **extra, "CHECKPOINT_DISABLE": "1", "PACKER_NO_COLOR": "1"}
    return {key: value for key, value in merged.items() if value or key not in extra}


def binary(environment: Mapping[str, str]) -> str:
    """Packer's path. Raises PackerError if it is not installed."""
    path = find("packer", environment)
    if path:
        return path
    raise PackerError(
        "packer is not on PATH",
        hint="Install Packer 1.6.6 or later: https://developer.hashicorp.com/packer/install "
        "(Debian and Ubuntu: apt-get install packer)",
    )


def arguments(recipe: Recipe, preset: Mapping[str, str], asked: Sequence[str]) -> list[str]:
    """The arguments of `packer build`. `preset` applies to variables that the template has. The
    recipe's values override it, and `asked` (`NAME=VALUE` on the command line) overrides both.
    """
    known = {name: value for name, value in preset.items() if name in recipe.variables}
    values = [f"-var-file={recipe.values}"] if recipe.values else []
    return [
        "build",
        "-machine-readable",
        *(word for name, value in known.items() for word in ("-var", f"{name}={value}")),
        *values,
        *(word for each in asked for word in ("-var", each)),
        str(recipe.template),
    ]


def build(
    recipe: Recipe,
    preset: Mapping[str, str],
    asked: Sequence[str],
    *,
    extra: Mapping[str, str],
    log: Path,
    on_event: OnEvent,
    on_start: Callable[[int], object] = lambda _pid: None,
    strict: Path | None = None,
) -> tuple[str, str]:
    """Builds the image. Returns its region and AMI id. Packer's output goes to `log` (0600).

    `on_start` gets the number of Packer's process. A Packer that knows how gets a machine that
    requires IMDSv2, from a copy of bilbo's template in the folder `strict`. Ctrl-C interrupts
    Packer once and waits until it has removed what it created. Raises PackerError, PackerKilled and
    Interrupted.
    """
    around = environment(os.environ, extra)
    packer = binary(around)
    if _has_plugins(packer, recipe, around):
        _fetch_plugins(packer, recipe, around)
        if strict and recipe.template == folder("packer"):
            recipe = replace(recipe, template=_stricter(recipe.template, strict))
    events, ended = _run(
        [packer, *arguments(recipe, preset, asked)], recipe.cwd, around, log, on_event, on_start
    )
    return _judged(events, ended, log)


def _judged(events: list[Event], ended: process.Ended, log: Path) -> tuple[str, str]:
    """The region and the AMI that was built. Raises as `build` does."""
    errors = tuple(line for event in events if event.kind == "error" for line in _lines(event))
    found = built(events)
    if found and not ended.code:
        return found
    if ended.interrupted:
        left = tuple(line for line in errors if not line.startswith("Cancelling build"))
        what = "could not remove everything" if left else "has removed everything"
        raise Interrupted(
            f"interrupted; Packer {what} that it created: machine, key pair, security group",
            details=left,
            hint=f"Its output is in {log}." if left else "No image was built.",
        )
    said = errors or tuple(_tail(log)) or ("its output names no AMI",)
    what = "packer could not build the image"
    if (ended.code or 0) < 0 or any("killed" in line for line in errors):
        raise PackerKilled(
            what,
            details=said[-20:],
            hint="Packer was killed, so it may have left a machine, a key pair and a security "
            "group: `bilbo images` names what is there, and how to remove it. Its output is in "
            f"{log}.",
        )
    raise PackerError(
        what,
        details=said[-20:],
        hint="Packer has removed the machine, its key and its security group. Its output is in "
        f"{log}.",
    )


def _stricter(template: Path, place: Path) -> Path:
    """Copies bilbo's template into the folder `place`, with IMDSv2 for the build machine.

    The template itself cannot have that block: Packer 1.6 rejects it. Raises OSError.
    """
    for path in template.iterdir():
        if path.is_file():
            text = path.read_text(encoding="utf-8").replace(_IMDS_PLACE, _IMDS_BLOCK)
            private_write(place / path.name, text)
    return place


def _lines(event: Event) -> list[str]:
    return [line for line in event.text.splitlines() if line.strip()]


def _tail(log: Path) -> list[str]:
    text = log.read_text(encoding="utf-8", errors="replace")
    events = [parse(line) for line in text.splitlines()]
    return [line for event in events if event for line in _lines(event)] or text.splitlines()


def _has_plugins(packer: str, recipe: Recipe, around: Mapping[str, str]) -> bool:
    """Whether Packer's builders are plugins, as they are since 1.7."""
    answer = process.capture([packer, "version"], folder=recipe.cwd, environment=around).stdout
    version = re.search(r"v(\d+)\.(\d+)", answer)
    return version is not None and (int(version[1]), int(version[2])) >= (1, 7)


def _fetch_plugins(packer: str, recipe: Recipe, around: Mapping[str, str]) -> None:
    """Installs Packer's plugins with `packer init`."""
    plugins = recipe.template / "plugins"
    place = plugins if plugins.is_dir() else recipe.template
    done = process.capture(
        [packer, "init", str(place)],
        folder=recipe.cwd,
        environment=around,
        seconds=process.INIT_SECONDS,
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise PackerError(
            "packer could not install its plugins",
            where=str(place),
            details=tuple(said[-20:]),
            hint=f"Try it yourself: packer init {place}",
        )


def _run(
    argv: Sequence[str],
    cwd: Path,
    around: Mapping[str, str],
    log: Path,
    on_event: OnEvent,
    on_start: Callable[[int], object],
) -> tuple[list[Event], process.Ended]:
    """Packer's events, and how it ended.

    Packer's first process only waits for a child, which cleans up. Both are interrupted, as by a
    terminal; the processes that they started ignore it.
    """
    events: list[Event] = []

    def on_line(line: str) -> None:
        if event := parse(line):
            events.append(event)
            on_event(event)

    private_folder(log.parent)
    packer = process.start(argv, folder=cwd, environment=around, log=log)
    on_start(packer.pid)
    ended = process.follow(
        packer,
        log,
        on_line=on_line,
        on_interrupt=lambda: on_event(
            Event("interrupt", "Interrupted: waiting for Packer to clean up …")
        ),
        whole_group=True,
    )
    return events, ended
