"""Builds an image: passes Packer its variables, and saves what it built."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from bilbo import aws, images
from bilbo.cluster.work import Work
from bilbo.errors import PackerError
from bilbo.images import Event, Image, Recipe
from bilbo.model import IMAGE_TAG
from bilbo.record import now

_VERSION_TAG = "bilbo:version:"


def build_image(recipe: Recipe, work: Work, name: str | None, asked: Sequence[str]) -> Image:
    """Builds the image that `recipe` describes, and saves its description. Takes minutes.

    `name` and `asked` (`VARIABLE=VALUE`) override the recipe's values. Raises PackerError,
    AwsError and Interrupted; only the image is left behind.
    """
    named = [f"name={name}"] if name else []
    if name and "name" not in recipe.variables:
        raise PackerError(
            "the template does not declare the variable `name`",
            where=str(recipe.template),
            hint="Declare it, and tag the image with it: bilbo:image = var.name",
        )
    region, ami = images.build(
        recipe,
        _preset(recipe, work, asked),
        [*named, *asked],
        extra=work.target.environment,
        log=work.store.home / "logs" / "packer.log",
        on_event=lambda event: _tell(event, work),
    )
    tags = aws.image_tags(replace(work.target, region=region), ami)
    image = Image(
        name=tags.get(IMAGE_TAG, name or ""),
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


def _preset(recipe: Recipe, work: Work, asked: Sequence[str]) -> dict[str, str]:
    """Returns the variables that follow from the target, unless they are set explicitly."""
    target = work.target
    preset = {"region": target.region, "endpoint_url": target.endpoint_url or ""}
    if target.ssh_port:
        preset["ssh_port"] = str(target.ssh_port)
    if "source_cidrs" in recipe.variables and not any(
        each.startswith("source_cidrs=") for each in asked
    ):
        cidrs = target.caller_cidrs or (aws.caller_cidr(target.check_ip_url),)
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
