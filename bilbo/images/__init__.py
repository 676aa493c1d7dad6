"""Machine images: built by Packer and recorded on disk. Only this package runs Packer.

It is not named `packer`, because an installed bilbo has the template in a folder of that name.
"""

from bilbo.images.builds import (
    Build,
    abandoned,
    begin,
    conclude,
    image_of,
    named_in,
    started,
    unconcluded,
)
from bilbo.images.packer import PackerKilled, Recipe, build, read_recipe
from bilbo.images.packer_output import Event
from bilbo.images.store import Image, all_images, save

__all__ = [
    "Build",
    "Event",
    "Image",
    "PackerKilled",
    "Recipe",
    "abandoned",
    "all_images",
    "begin",
    "build",
    "conclude",
    "image_of",
    "named_in",
    "read_recipe",
    "save",
    "started",
    "unconcluded",
]
