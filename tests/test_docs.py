"""What the READMEs say is what bilbo does: commands, options, keys, profiles, links."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from bilbo import __version__, errors
from bilbo.cli import bilbo
from bilbo.local import faults
from bilbo.profile.building import build
from bilbo.profile.checking import check_profile, schema
from bilbo.profile.parsing import parse

PROJECT = Path(__file__).parent.parent
READMES = ("README.md", "README.ko.md")
in_both = pytest.mark.parametrize("readme", READMES)


def text_of(readme: str) -> str:
    return (PROJECT / readme).read_text(encoding="utf-8")


def blocks(readme: str) -> list[tuple[str, str]]:
    """`(language, content)` of each fenced code block, without its indentation."""
    found = re.findall(r"^( *)```(\w+)\n(.*?)^ *```$", text_of(readme), re.MULTILINE | re.DOTALL)
    return [
        (language, re.sub(rf"^{indent}", "", content, flags=re.MULTILINE))
        for indent, language, content in found
    ]


def prose(readme: str) -> str:
    """A README without its code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text_of(readme), flags=re.MULTILINE | re.DOTALL)


def rows(readme: str) -> dict[str, str]:
    """The tables' rows by what stands as code in their first cell; none stands twice in a table."""
    found: dict[str, str] = {}
    for table in re.split(r"\n(?!\|)", prose(readme)):
        there = re.findall(r"^\| `([^`]+)` \|(.*)\|$", table, re.MULTILINE)
        twice = {first for first, _ in there if [each for each, _ in there].count(first) > 1}
        assert not twice, f"{readme} has rows twice: {', '.join(sorted(twice))}"
        found |= dict(there)
    return found


def commands(
    group: click.Group = bilbo, before: tuple[str, ...] = ("bilbo",)
) -> Iterator[tuple[str, click.Command]]:
    """Every command that can be run, by its full name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


COMMANDS = dict(commands())


def keys(part: dict[str, Any], whole: dict[str, Any], path: str = "") -> Iterator[str]:
    """The dotted keys of a profile's schema; an instance's are without what stands before."""
    for name, below in part.get("properties", {}).items():
        reference = below.get("$ref", "").rpartition("/")[2]
        dotted = f"{path}{name}"
        if dotted != "access":  # its only key has a row of its own
            yield dotted
        if reference == "instance":
            yield from keys(whole["$defs"]["instance"], whole)
        elif reference:
            yield from keys(whole["$defs"][reference], whole, f"{dotted}.")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    """Every command has a short help and a long one, with examples where it takes arguments."""
    command = COMMANDS[name]
    assert command.short_help
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.opts[0]} says nothing"
    if any(isinstance(parameter, click.Argument) for parameter in command.params):
        _, _, examples = inspect.cleandoc(command.help).partition("\nExamples")
        assert f"{name} " in examples.replace("bilbo --local ", "bilbo ")


@in_both
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readmes(name: str, readme: str) -> None:
    """A row of the table of commands names the command and all its options."""
    found = [rest for first, rest in rows(readme).items() if f"{first} ".startswith(f"{name} ")]
    assert len(found) == 1, f"{readme} has no row of its own for {name}"
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            shown = re.findall(r"(?<=[` ])--?[a-z][a-z-]*", found[0])
            assert set(parameter.opts) & set(shown), f"{name} has {parameter.opts}"


@in_both
def test_the_readmes_name_no_command_that_is_gone(readme: str) -> None:
    """Every `bilbo …` that is shown, in a block or in a sentence, is a command there is."""
    shown = re.findall(r"^\$ (bilbo .*)$", text_of(readme), re.MULTILINE)
    shown += re.findall(r"`(bilbo [^`]+)`", prose(readme))
    groups = {name.rpartition(" ")[0] for name in COMMANDS} - {"bilbo"}
    for line in shown:
        words = [word for word in line.split() if not word.startswith("-")]
        name = " ".join(words[: 3 if " ".join(words[:2]) in groups else 2])
        assert name in COMMANDS or words[1] in ("COMMAND", "…"), line


@in_both
def test_the_printed_help_is_the_real_one(readme: str) -> None:
    """What `bilbo` and `bilbo version` are shown to print is what they print."""
    shown = dict(
        content.removeprefix("$ ").split("\n", 1)
        for kind, content in blocks(readme)
        if kind == "console"
    )
    printed = CliRunner().invoke(bilbo, ["--help"], prog_name="bilbo", terminal_width=80)
    assert shown["bilbo"] == printed.output
    assert shown["bilbo version"] == f"{__version__}\n"


@in_both
def test_the_printed_plan_has_the_modules_resources(readme: str) -> None:
    """The plan of a notebook shows exactly the resources that the Terraform modules make."""
    used = {"network": "network", "security_group": "security_group", "notebook": "node"}
    made = {
        f"module.{name}.{kind}.{resource}"
        for name, module in used.items()
        for path in (PROJECT / "templates" / "terraform" / "modules" / module).glob("*.tf")
        for kind, resource in re.findall(
            r'^resource "(\w+)" "(\w+)"', path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    shown = re.findall(r"^  \+ (module\..*)$", text_of(readme), re.MULTILINE)
    assert sorted(shown) == sorted(made)
    assert f"\n{len(made)} to add, 0 to change, 0 to destroy\n" in text_of(readme)


@in_both
def test_every_link_leads_somewhere(readme: str) -> None:
    """Every relative link is a file or folder of the project, or a heading of the same README."""
    titles = re.findall(r"^#+ (.*)$", prose(readme), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", prose(readme)):
        path, _, anchor = target.partition("#")
        if not target.startswith(("https://", "http://")):
            assert not path or (PROJECT / path).exists(), target
            assert not anchor or anchor in anchors, target
    for path in re.findall(r"(?:examples|schemas|docs|tests)/[\w./-]+\w", text_of(readme)):
        assert (PROJECT / path).exists(), path


@in_both
def test_the_profiles_shown_are_right(readme: str) -> None:
    """Every JSON block passes the check of profiles, and is complete where it has an instance."""
    profiles = [content for language, content in blocks(readme) if language == "json"]
    assert profiles
    for content in profiles:
        document = parse(content, readme).document
        check_profile(document)
        if "instance" in document:
            build(document, "test", "ap-northeast-2")


@in_both
def test_every_key_of_a_profile_is_explained(readme: str) -> None:
    """The tables of keys name every key of the schema, and each is in the schema."""
    known = set(keys(schema(), schema()))
    named = {
        first for first in rows(readme) if first.split(".")[0] in {k.split(".")[0] for k in known}
    }
    assert named == known


@in_both
def test_every_fault_of_the_stand_in_is_explained(readme: str) -> None:
    """The table of faults has every form that `bilbo local fault` takes."""
    for form in faults.FORMS:
        assert form.split()[0] in rows(readme)


@in_both
def test_every_exit_code_is_explained(readme: str) -> None:
    """The table of exit codes has success and the code of every error that bilbo names."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.BilboError)} | {0}
    assert codes == {int(code) for code in re.findall(r"^\| (\d+) \|", prose(readme), re.MULTILINE)}


def test_both_readmes_have_the_same_parts() -> None:
    """The Korean README has the English one's headings, tables and code blocks, in its order."""
    english, korean = (
        re.findall(r"^(?:#+ |\| `[^`]+` \|)", prose(readme), re.MULTILINE) for readme in READMES
    )
    assert english == korean
    for ours, theirs in zip_longest(*(blocks(readme) for readme in READMES)):
        if ours[0] == "text":  # may hold comments, which are translated
            ours, theirs = ((lang, re.sub(r" *# .*", "", text)) for lang, text in (ours, theirs))
        assert ours == theirs


def test_what_is_promised_is_tested() -> None:
    """Every test that SECURITY.md names is there, and every link of it and of the changelog."""
    text = text_of("SECURITY.md")
    for name in re.findall(r"`((?:tests/[\w/]+)?test_\w+\.py)`", text):
        path = Path(name)
        assert (PROJECT / path).exists() or (PROJECT / "tests/hostile" / path).exists(), name
    for document in ("SECURITY.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!https://)([^)#]+)", text_of(document)):
            assert (PROJECT / target).exists(), target
    assert f"## [{__version__}]" in text_of("CHANGELOG.md")


def test_what_ends_a_cluster_is_tested() -> None:
    """Every test that docs/cost.md names is there."""
    tests = {
        name
        for path in (PROJECT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", text_of("docs/cost.md")))
    assert named and named <= tests, named - tests
