"""The commands for machine images: `image build` and `images`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bilbo.cli.context import Context, default_target, pass_context, target_at, work
from bilbo.cli.output import echo, echo_table, print_json
from bilbo.cli.params import JSON_OPTION, PROFILE
from bilbo.errors import BilboError, UsageError

if TYPE_CHECKING:
    from bilbo.images import Image

LONGEST_NAME = 100


@click.group(short_help="Build machine images.")
def image() -> None:
    """Machine images with everything that a cluster runs, built with Packer."""


def _checked_name(_ctx: click.Context, _param: click.Parameter, name: str | None) -> str | None:
    """Returns an image name that the profile's schema accepts. Raises UsageError."""
    import re

    if name is not None and not re.fullmatch(
        f"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}", name
    ):
        raise UsageError(
            "an image name must be 1 to 100 letters, digits, `.`, `_` or `-`",
            where=f"--name {name[:40]!r}",
        )
    return name


def _checked_variables(
    _ctx: click.Context, _param: click.Parameter, variables: tuple[str, ...]
) -> tuple[str, ...]:
    for each in variables:
        if not each.partition("=")[0].isidentifier() or "=" not in each:
            raise UsageError(
                "a variable must be NAME=VALUE",
                where=f"--var {each[:60]!r}",
                hint="Write a list as JSON: --var 'extra_packages=[\"htop\"]'",
            )
    return variables


@image.command(short_help="Build a machine image.")
@click.argument("recipe", required=False, metavar="[RECIPE]")
@click.option(
    "--var",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_checked_variables,
    help="Set a template variable; may be repeated.",
)
@click.option("-n", "--name", callback=_checked_name, help="The image's name in profiles.")
@click.option(
    "--write-profile", type=PROFILE, metavar="PROFILE", help="Write the AMI's id into this profile."
)
@JSON_OPTION
@pass_context
def build(
    context: Context,
    recipe: str | None,
    variables: tuple[str, ...],
    name: str | None,
    write_profile: str | None,
    as_json: bool,
) -> None:
    """Build an image of everything that a cluster runs, with `packer build`.

    \b
    RECIPE is a file of values for bilbo's own template (*.pkrvars.hcl), or a
    folder with your own template. The default is bilbo's template as it is.
    Relative paths in RECIPE and in --var start at RECIPE's folder.

    \b
    A profile with "image": "NAME" uses the newest image of that name.
    Ctrl-C ends the build and removes what it created. If bilbo is killed, the build
    goes on, and the next `bilbo images` lists its image.

    \b
    Examples:
      bilbo image build
      bilbo image build --name geo --var 'extra_requirements=["geopandas"]'
      bilbo image build gpu.pkrvars.hcl --write-profile test.json
      bilbo image build --var base=cuda --var instance_type=g4dn.xlarge
    """
    from bilbo import images
    from bilbo.cluster.build_image import build_image
    from bilbo.profile import naming
    from bilbo.profile.writing import with_ami, write_ami

    _conclude_builds(context)
    found = images.read_recipe(recipe)
    path = naming.find(write_profile, context.home) if write_profile else None
    if path:
        with_ami(path.read_text(encoding="utf-8"), "ami-00000000", str(path))  # fails early
    with work(context, default_target(context)) as w:
        built = build_image(found, w, name, variables)
    if path:
        write_ami(path, built.ami)
        echo(f"Wrote {built.ami} into {path}.", err=True)
    if as_json:
        print_json(asdict(built))
    else:
        _tell(built)


def _tell(built: Image) -> None:
    echo(f"\nName: {built.name}\nAMI: {built.ami}\nRegion: {built.region}")
    for title, value in (("Python", built.python), ("Recipe", built.recipe)):
        if value:
            echo(f"{title}: {value}")
    if built.name:
        echo(f'\nIn a profile: "image": "{built.name}", or "ami": "{built.ami}"', err=True)


@click.command(short_help="List built images.")
@JSON_OPTION
@pass_context
def images(context: Context, as_json: bool) -> None:
    """List the machine images that `bilbo image build` built on this machine, newest first.

    \b
    Of a build that was killed, it says what is left in AWS, and how to remove it.

    \b
    Examples:
      bilbo images
      bilbo images --json
    """
    from bilbo.images import all_images
    from bilbo.present.times import local_time

    _conclude_builds(context)
    found = all_images(context.home)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    if not found:
        echo("No images were built on this machine. To build one: bilbo image build", err=True)
        return
    rows = [("NAME", "AMI", "REGION", "BUILT", "PYTHON", "ENGINES", "RECIPE")]
    rows += [
        (
            each.name or "-",
            each.ami,
            each.region if each.endpoint_url is None else f"{each.region} ({each.endpoint_url})",
            local_time(each.built),
            each.python or "-",
            _engines(each) or "-",
            each.recipe or "-",
        )
        for each in found
    ]
    echo_table(rows)


def _conclude_builds(context: Context) -> None:
    """Concludes the builds that a killed bilbo has left; those of a stand-in that was stopped went
    with it."""
    from bilbo import images

    for build in images.abandoned(context.home):
        target = target_at(context, build.region, build.endpoint_url)
        if target is None:
            images.conclude(context.home, build)
            continue
        from bilbo.cluster.earlier_builds import conclude

        with work(context, target) as w:
            try:
                conclude(build, w)
            except BilboError as error:  # which is told again next time
                w.progress.say(f"{error}")


def _engines(image: Image) -> str:
    """Returns an image's engines with their versions: `dask 2026.8.0, ray 2.60.0`."""
    from bilbo.engines import ENGINES

    held = [engine.packages[0] for engine in ENGINES.values()]
    return ", ".join(f"{name} {image.versions[name]}" for name in held if name in image.versions)
