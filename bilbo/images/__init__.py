"""Machine images: built by Packer, the only user of which is here, and remembered on disk.

Not in a folder named `packer`: in an installed bilbo that one holds the template.
"""

from bilbo.images.packer import Recipe, build, read_recipe
from bilbo.images.packer_output import Event
from bilbo.images.store import Image, all_images, save

__all__ = ["Event", "Image", "Recipe", "all_images", "build", "read_recipe", "save"]
