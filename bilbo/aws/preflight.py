"""Checks what can be checked before anything is created."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bilbo.aws.session import asking, client
from bilbo.aws.tagged import Resource, everything_tagged
from bilbo.errors import AwsError
from bilbo.model import CLUSTER_TAG, ClusterSpec, Target

# AWS's codes for a user who may not look. The user may be allowed to create all the same.
_MAY_NOT_LOOK = ("UnauthorizedOperation", "AccessDenied")


def preflight(
    spec: ClusterSpec, target: Target, key_path: Callable[[str], Path], *, new: bool
) -> None:
    """Raises AwsError with everything in `details` that would make `create` fail.

    Checks private keys, key pairs, AMIs, instance types and, for a `new` cluster, whether its name
    is free. `key_path` finds the file of a profile's `ssh_private_key`. Skips what the AWS user may
    not look at. Makes four calls, whatever the cluster's size, and five more if the name was in
    use.
    """
    problems = _private_keys(spec, key_path)
    with asking(f"cannot check cluster {spec.name!r} in AWS"):
        ec2 = client(target, "ec2")
        problems += _allowed(lambda: _key_pairs(spec, ec2, key_path))
        problems += _allowed(lambda: _images_and_types(spec, ec2))
        if new:
            problems += _allowed(lambda: _names(spec, target, ec2))
    if problems:
        raise AwsError(
            f"cannot create cluster {spec.name!r}; nothing was created",
            details=tuple(problems),
            hint="Correct the profile and run the command again.",
        )


def _allowed(check: Callable[[], list[str]]) -> list[str]:
    from botocore.exceptions import ClientError

    try:
        return check()
    except ClientError as error:
        if error.response["Error"]["Code"] in _MAY_NOT_LOOK:
            return []
        raise


def _private_keys(spec: ClusterSpec, key_path: Callable[[str], Path]) -> list[str]:
    problems = []
    for path in sorted({group.machine.ssh_private_key for group in spec.groups()}):
        try:
            key_path(path).read_bytes()
        except OSError as error:
            problems.append(f"the private key {path} cannot be read: {error.strerror}")
    return problems


def _key_pairs(spec: ClusterSpec, ec2: Any, key_path: Callable[[str], Path]) -> list[str]:
    pairs = sorted({(g.machine.keyname, g.machine.ssh_private_key) for g in spec.groups()})
    by_name = [{"Name": "key-name", "Values": sorted({name for name, _ in pairs})}]
    answer = ec2.describe_key_pairs(Filters=by_name, IncludePublicKey=True)
    public = {pair["KeyName"]: pair.get("PublicKey", "") for pair in answer["KeyPairs"]}
    problems = []
    for name, path in pairs:
        if name not in public:
            problems.append(f"the key pair {name!r} (keyname) does not exist in {spec.region}")
        elif public[name] and _differs(key_path(path), public[name]):
            problems.append(f"the private key {path} does not belong to the key pair {name!r}")
    return problems


def _differs(private: Path, public: str) -> bool:
    """Whether a private key definitely belongs to another public key."""
    import asyncssh

    try:
        mine = asyncssh.read_private_key(private)
        return mine.public_data != asyncssh.import_public_key(public).public_data
    except (OSError, asyncssh.KeyImportError):
        return False  # reported elsewhere: unreadable, or protected by a passphrase


def _images_and_types(spec: ClusterSpec, ec2: Any) -> list[str]:
    from botocore.exceptions import ClientError

    images = {group.machine.ami for group in spec.groups()}
    types = {group.machine.ec2type for group in spec.groups()}
    try:
        answer = ec2.describe_images(Filters=[{"Name": "image-id", "Values": sorted(images)}])
        offered = ec2.describe_instance_types(
            Filters=[{"Name": "instance-type", "Values": sorted(types)}]
        )
    except ClientError as error:
        if not error.response["Error"]["Code"].startswith("Invalid"):
            raise
        return [error.response["Error"]["Message"]]
    built_for = {image["ImageId"]: image.get("Architecture", "") for image in answer["Images"]}
    runs = {
        found["InstanceType"]: found.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
        for found in offered["InstanceTypes"]
    }
    unknown = sorted(images - built_for.keys())
    not_offered = sorted(types - runs.keys())
    return [
        *(f"the AMI {ami} does not exist in {spec.region}" for ami in unknown),
        *(f"the instance type {name} is not offered in {spec.region}" for name in not_offered),
        *_disagreements(spec, built_for, runs),
    ]


def _disagreements(
    spec: ClusterSpec, built_for: Mapping[str, str], runs: Mapping[str, list[str]]
) -> list[str]:
    pairs = sorted({(group.machine.ami, group.machine.ec2type) for group in spec.groups()})
    return [
        f"the AMI {ami} is for {built_for[ami]}, but {ec2type} runs {' or '.join(runs[ec2type])}"
        for ami, ec2type in pairs
        if built_for.get(ami) and runs.get(ec2type) and built_for[ami] not in runs[ec2type]
    ]


def _names(spec: ClusterSpec, target: Target, ec2: Any) -> list[str]:
    by_tag = [{"Name": "key", "Values": [CLUSTER_TAG]}, {"Name": "value", "Values": [spec.name]}]
    # One call for all kinds. It also lists terminated resources, so a hit may be a false alarm. It
    # does not list groups, but a group always has a launch template.
    if not ec2.describe_tags(Filters=by_tag)["Tags"]:
        return []
    all_of_it = everything_tagged(target, spec.name)
    # What an earlier attempt created carries the owner that was chosen for this cluster.
    found = [each for each in all_of_it if each.owner != (spec.owner or "")]
    if not found:
        return []
    return [
        f"AWS already has a cluster {spec.name!r} in {spec.region} that is not recorded here "
        f"({_few(found)}); choose another name with -n"
    ]


def _few(found: list[Resource]) -> str:
    shown = ", ".join(resource.id for resource in found[:3])
    return shown + (f" and {len(found) - 3} more" if len(found) > 3 else "")
