"""Builds an image: passes Packer its variables, and saves what it built."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bilbo import aws, images
from bilbo.cluster.work import Work
from bilbo.errors import Interrupted, PackerError
from bilbo.images import Event, Image, Recipe
from bilbo.model import IMAGE_TAG
from bilbo.record import now

_VERSION_TAG = "bilbo:version:"


def build_image(recipe: Recipe, work: Work, name: str | None, asked: Sequence[str]) -> Image:
    """Builds the image that `recipe` describes, and saves its description. Takes minutes.

    `name` and `asked` (`VARIABLE=VALUE`) override the recipe's values. Raises PackerError,
    AwsError and Interrupted; only the image is left behind. If bilbo is killed, Packer goes on, and
    the next `bilbo image build` or `bilbo images` saves the image.
    """
    named = [f"name={name}"] if name else []
    if name and "name" not in recipe.variables:
        raise PackerError(
            "the template does not declare the variable `name`",
            where=str(recipe.template),
            hint="Declare it, and tag the image with it: bilbo:image = var.name",
        )
    home, region = work.store.home, _region(recipe, work, asked)
    called = name or recipe.set_in_values("name") or recipe.template.name
    build = images.begin(home, called, region, work.target.endpoint_url, now())
    try:
        region, ami = images.build(
            recipe,
            _preset(recipe, work, asked, region),
            [*named, *asked],
            extra=work.target.environment,
            log=Path(build.log),
            on_event=lambda event: _tell(event, work),
            on_start=lambda pid: images.started(home, build, pid),
            strict=home / "images" / "template",
        )
    except (PackerError, Interrupted, KeyboardInterrupt) as error:
        told = isinstance(error, Interrupted) and error.details
        if not told and not isinstance(error, images.PackerKilled):
            images.conclude(home, build)  # otherwise the next bilbo names what is left
        raise
    image = remember(work, region, ami, name or "")
    images.conclude(home, build)
    return image


def remember(work: Work, region: str, ami: str, name: str) -> Image:
    """Saves the description of an image that was built, and returns it. Raises AwsError."""
    tags = aws.image_tags(replace(work.target, region=region), ami)
    image = Image(
        name=tags.get(IMAGE_TAG, name),
        ami=ami,
        region=region,
        built=now(),
        endpoint_url=work.target.endpoint_url,
        recipe=tags.get("bilbo:recipe", ""),
        base=tags.get("bilbo:base", ""),
        python=tags.get("bilbo:python", ""),
        versions={
            key.removeprefix(_VERSION_TAG): value
            for key, value in sorted(tags.items())
            if key.startswith(_VERSION_TAG)
        },
    )
    images.save(work.store.home, image)
    return image


def _region(recipe: Recipe, work: Work, asked: Sequence[str]) -> str:
    """Returns the region of the build: that of the command line, the recipe or the target."""
    named = [each.partition("=")[2] for each in asked if each.startswith("region=")]
    return (named or [recipe.set_in_values("region")])[-1] or work.target.region


def _preset(recipe: Recipe, work: Work, asked: Sequence[str], region: str) -> dict[str, str]:
    """Returns the variables that follow from the target, unless they are set explicitly."""
    target = work.target
    preset = {"region": target.region, "endpoint_url": target.endpoint_url or ""}
    if target.ssh_port:
        preset["ssh_port"] = str(target.ssh_port)
    if "source_cidrs" in recipe.variables and not any(
        each.startswith("source_cidrs=") for each in asked
    ):
        told_by = replace(target, region=region).check_ip_url
        cidrs = target.caller_cidrs or (aws.caller_cidr(told_by),)
        preset["source_cidrs"] = json.dumps(list(cidrs))
    return {key: value for key, value in preset.items() if value}


def _tell(event: Event, work: Work) -> None:
    match event.kind:
        case "interrupt":
            work.progress.say(event.text)
        case "say":
            work.progress.status(event.text.splitlines()[0])
        case "message" if event.text.startswith("bilbo: "):
            work.progress.status(event.text.removeprefix("bilbo: "))
