"""Finds AMIs: by id, and those that bilbo's Packer template built by their tags."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bilbo.aws.session import asking, client
from bilbo.errors import AwsError
from bilbo.model import IMAGE_TAG, Target

# AWS's codes for an AMI that was deregistered or never was.
_NO_SUCH_IMAGE = ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable")


@dataclass(frozen=True)
class Ami:
    """What of an AMI decides what can be launched from it: the architecture, the root device's
    name, and the size of its root volume in GiB; 0 if AWS does not tell."""

    architecture: str = ""
    root_device: str = ""
    size: int = 0


# By AMI id; None for what does not exist.
Amis = dict[str, "Ami | None"]


def look_at_images(target: Target, ids: Collection[str], known: Amis) -> None:
    """Adds to `known` what is not in it yet. One call if all those AMIs exist. Raises AwsError."""
    with asking(f"cannot look at the AMIs in {target.region}"):
        add_images(target, ids, known)


def add_images(target: Target, ids: Collection[str], known: Amis) -> None:
    """As `look_at_images`. Raises ClientError."""
    if new := sorted({*ids} - known.keys()):
        found = {each["ImageId"]: each for each in _images(client(target, "ec2"), new)}
        known.update({ami: _image(found[ami]) if ami in found else None for ami in new})


def _image(found: Mapping[str, Any]) -> Ami:
    device = found.get("RootDeviceName", "")
    disks = {disk.get("DeviceName"): disk for disk in found.get("BlockDeviceMappings", [])}
    size = disks.get(device, {}).get("Ebs", {}).get("VolumeSize", 0)
    return Ami(found.get("Architecture", ""), device, size)


def _images(ec2: Any, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Those of the AMIs that exist, in one call if all do. Raises ClientError.

    Asks by id: a search by filter omits the deprecated AMIs of other accounts, which launch all the
    same (EC2's DescribeImages, IncludeDeprecated). One unknown id fails the whole call, so each is
    then asked for alone.
    """
    from botocore.exceptions import ClientError

    try:
        return list(ec2.describe_images(ImageIds=list(ids))["Images"])
    except ClientError as error:
        if error.response["Error"]["Code"] not in _NO_SUCH_IMAGE:
            raise
    if len(ids) == 1:
        return []
    return [image for each in ids for image in _images(ec2, [each])]


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
