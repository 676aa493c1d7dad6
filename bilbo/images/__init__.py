"""Machine images: built by Packer and recorded on disk. Only this package runs Packer.

It is not named `packer`, because an installed bilbo has the template in a folder of that name.
"""

from bilbo.images.packer import Recipe, build, read_recipe
from bilbo.images.packer_output import Event
from bilbo.images.store import Image, all_images, save

__all__ = ["Event", "Image", "Recipe", "all_images", "build", "read_recipe", "save"]
