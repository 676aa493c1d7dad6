"""bilbo's records of the images that it built: `images/AMI.json` under its home."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bilbo.files import private_write


@dataclass(frozen=True)
class Image:
    """A built image. `built` is ISO 8601 with zone; `recipe` the hash of everything that determines
    its content; `python` and `versions` (package to version) its software; `base` its base image.
    """

    name: str
    ami: str
    region: str
    built: str
    endpoint_url: str | None = None
    recipe: str = ""
    base: str = ""
    python: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def save(home: Path, image: Image) -> None:
    """Records an image. One file per image: concurrent builds cannot conflict."""
    text = json.dumps(asdict(image), indent=4, sort_keys=True) + "\n"
    private_write(home / "images" / f"{image.ami}.json", text)


def all_images(home: Path) -> list[Image]:
    """The images that were built from here, newest first. Skips unreadable files."""
    found = [image for path in (home / "images").glob("*.json") if (image := _read(path))]
    return sorted(found, key=lambda image: (image.built, image.ami), reverse=True)


def _read(path: Path) -> Image | None:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {each.name for each in fields(Image)}
        return Image(**{key: value for key, value in values.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
