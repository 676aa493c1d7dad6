"""Finds images that bilbo's Packer template built, by their tags."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bilbo.aws.session import asking, client
from bilbo.errors import AwsError
from bilbo.model import IMAGE_TAG, Target


def newest_images(target: Target, names: Collection[str]) -> dict[str, str]:
    """`{name: AMI id}` with the newest of the account's own images of each name in the region.

    One paged call. Raises AwsError if AWS refuses, or a name has no image.
    """
    by_tag = [
        {"Name": f"tag:{IMAGE_TAG}", "Values": sorted(names)},
        {"Name": "state", "Values": ["available"]},
    ]
    found: dict[str, tuple[str, str, str]] = {}
    with asking(f"cannot list the images in {target.region}"):
        pages = client(target, "ec2").get_paginator("describe_images")
        for page in pages.paginate(Owners=["self"], Filters=by_tag):
            for image in page["Images"]:
                name = _tags(image)[IMAGE_TAG]
                # An AMI's name ends in the time at which its build began.
                age = (image["CreationDate"], image["Name"], image["ImageId"])
                found[name] = max(age, found.get(name, age))
    lacking = sorted(set(names) - found.keys())
    if lacking:
        raise AwsError(
            f"there is no image {', '.join(map(repr, lacking))} in {target.region}",
            hint=f"Build it with: bilbo image build --name {lacking[0]} "
            f"--var region={target.region}",
        )
    return {name: ami for name, (_, _, ami) in found.items()}


def image_tags(target: Target, ami: str) -> Mapping[str, str]:
    """The tags of an AMI. Raises AwsError if AWS refuses or does not have it."""
    with asking(f"cannot describe the image {ami}"):
        answer = client(target, "ec2").describe_images(ImageIds=[ami])
    return _tags(answer["Images"][0])


def _tags(image: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in image.get("Tags", [])}
