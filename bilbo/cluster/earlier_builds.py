"""Concludes the builds of images that went on, or ended, without their bilbo."""

from __future__ import annotations

from bilbo import aws, images
from bilbo.cluster.build_image import remember
from bilbo.cluster.work import Work
from bilbo.images import Build


def conclude(build: Build, work: Work) -> None:
    """Saves the image of a build that has made one, and says what a failed one has left in AWS.

    A build that still runs, and one that has left something, is told again next time. `work` has
    the build's target. Raises AwsError.
    """
    what = f"The build of image {build.name!r} of {build.began}"
    if build.runs:
        pid, _ = build.packer
        work.progress.say(
            f"{what} goes on without bilbo. `bilbo images` lists its image once it is there. To "
            f"end it: kill -INT -{pid}"
        )
        return
    if found := images.image_of(build):
        image = remember(work, *found, build.name)
        work.progress.say(f"{what} has ended without bilbo: {image.ami}")
    elif left := aws.left_of_build(work.target, *images.named_in(build)):
        lines = "\n".join(f"  {each}" for each in left)
        work.progress.say(f"{what} has failed ({build.log}). To remove what it has left:\n{lines}")
        return
    else:
        work.progress.say(f"{what} has failed, and has left nothing. Its output is in {build.log}.")
    images.conclude(work.store.home, build)
