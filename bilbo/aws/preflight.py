"""Checks what can be checked before anything is created."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from bilbo.aws import prerequisites
from bilbo.aws.amis import Amis, add_images
from bilbo.aws.quotas import Asked, rules
from bilbo.aws.session import asking, client
from bilbo.aws.tagged import everything_tagged
from bilbo.aws.taken import tags_of, taken
from bilbo.errors import AwsError
from bilbo.held import Resource
from bilbo.model import CLUSTER_TAG, WORKER, ClusterSpec, NodeGroup, Target

# AWS's codes for a user who may not look. The user may be allowed to create all the same.
_MAY_NOT_LOOK = ("UnauthorizedOperation", "AccessDenied")


def preflight(
    spec: ClusterSpec,
    target: Target,
    keys: Mapping[str, bytes],
    launching: Sequence[NodeGroup],
    retyped: Sequence[NodeGroup],
    images: Amis,
    names: Collection[str],
    *,
    more: Asked,
    new: bool,
) -> list[str]:
    """Raises AwsError with everything in `details` that would make `create` fail.

    Checks key pairs, AMIs and instance types of the groups whose machines are `launching`, the
    types of the `retyped` ones, whose running machines get another, for a `new` cluster whether its
    name is free, whether the `names` of what is made are, and AWS's limits, among them the
    quotas for as many `more` machines of each group. `keys` are the public parts of the private
    keys, by the profile's path, in SSH's wire format. `images` are the AMIs looked at before;
    others are added. Skips what the AWS user may not look at; returns what a person should know of
    that. Makes four calls, whatever the cluster's size, five more if the name was in use, and those
    of `prerequisites.asked` at the same time.
    """
    problems: list[str] = []
    notes: list[str] = []
    sizes: dict[str, int] = {}
    made = [group for group in launching if group.role == WORKER and group.instance_name in names]
    with (
        asking(f"cannot check cluster {spec.name!r} in AWS"),
        prerequisites.asked(target, more, made) as answers,
    ):
        ec2 = client(target, "ec2")
        if launching:
            problems += _allowed(lambda: _key_pairs(spec, launching, ec2, keys))
        if launching or retyped:
            problems += _allowed(
                lambda: _images_and_types(spec, target, launching, retyped, images, ec2, sizes)
            )
        problems += _limits(spec, target, ec2, names, notes, new=new)
        problems += prerequisites.problems(answers, more, sizes)
        notes += prerequisites.notes(spec, answers)
    if problems:
        raise _refused(spec, problems, new=new)
    return notes


def _refused(spec: ClusterSpec, problems: Sequence[str], *, new: bool) -> AwsError:
    verb, done = ("create", "created") if new else ("change", "changed")
    return AwsError(
        f"cannot {verb} cluster {spec.name!r}; nothing was {done}",
        details=tuple(problems),
        hint="Correct the profile and run the command again."
        if new
        else "Restore that in AWS, or correct the profile; another AMI or key pair replaces the "
        "machines that have it.",
    )


def limits(spec: ClusterSpec, target: Target, names: Collection[str]) -> list[str]:
    """The part of `preflight` on AWS's limits, for a plan that makes what has these `names`.

    Raises AwsError; returns what a person should know. Makes one call if there are names.
    """
    notes: list[str] = []
    with asking(f"cannot check cluster {spec.name!r} in AWS"):
        problems = _limits(spec, target, client(target, "ec2"), names, notes, new=False)
    if problems:
        raise AwsError(
            f"AWS would refuse this plan for cluster {spec.name!r}",
            details=tuple(problems),
            hint="Correct the profile and run the command again.",
        )
    return notes


def _limits(
    spec: ClusterSpec,
    target: Target,
    ec2: Any,
    names: Collection[str],
    notes: list[str],
    *,
    new: bool,
) -> list[str]:
    problems = rules(target, spec, notes)
    if names or new:
        problems += _allowed(lambda: _names(spec, target, ec2, names, new=new))
    return problems


def _allowed(check: Callable[[], list[str]]) -> list[str]:
    from botocore.exceptions import ClientError

    try:
        return check()
    except ClientError as error:
        if error.response["Error"]["Code"] in _MAY_NOT_LOOK:
            return []
        raise


def _key_pairs(
    spec: ClusterSpec, groups: Sequence[NodeGroup], ec2: Any, keys: Mapping[str, bytes]
) -> list[str]:
    pairs = sorted({(g.machine.keyname, g.machine.ssh_private_key) for g in groups})
    by_name = [{"Name": "key-name", "Values": sorted({name for name, _ in pairs})}]
    answer = ec2.describe_key_pairs(Filters=by_name, IncludePublicKey=True)
    public = {pair["KeyName"]: pair.get("PublicKey", "") for pair in answer["KeyPairs"]}
    problems = []
    for name, path in pairs:
        if name not in public:
            problems.append(f"the key pair {name!r} (keyname) does not exist in {spec.region}")
        elif public[name] and _differs(keys[path], public[name]):
            problems.append(f"the private key {path} does not belong to the key pair {name!r}")
    return problems


def _differs(mine: bytes, public: str) -> bool:
    """Whether a public key, in SSH's wire format, definitely is not the one of a key pair."""
    import asyncssh

    try:
        return mine != asyncssh.import_public_key(public).public_data
    except asyncssh.KeyImportError:
        return False  # a kind of key that asyncssh does not know


def _images_and_types(
    spec: ClusterSpec,
    target: Target,
    launching: Sequence[NodeGroup],
    retyped: Sequence[NodeGroup],
    images: Amis,
    ec2: Any,
    sizes: dict[str, int],
) -> list[str]:
    """What is wrong with AMIs and types; adds the types' vCPUs to `sizes`."""
    from botocore.exceptions import ClientError

    groups = [*launching, *retyped]
    types = {each for group in groups for each in group.ec2types}
    try:
        add_images(target, [group.machine.ami for group in groups], images)
        offered = ec2.describe_instance_types(
            Filters=[{"Name": "instance-type", "Values": sorted(types)}]
        )
    except ClientError as error:
        if not error.response["Error"]["Code"].startswith("Invalid"):
            raise
        return [error.response["Error"]["Message"]]
    built_for = {ami: image.architecture for ami, image in images.items() if image}
    runs = {
        found["InstanceType"]: found.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
        for found in offered["InstanceTypes"]
    }
    for each in offered["InstanceTypes"]:
        sizes[each["InstanceType"]] = each["VCpuInfo"]["DefaultVCpus"]
    not_offered = sorted(types - runs.keys())
    return [
        *image_problems(spec.region, launching, images),
        *(f"the instance type {name} is not offered in {spec.region}" for name in not_offered),
        *_disagreements(groups, built_for, runs),
    ]


def launch_problems(
    spec: ClusterSpec, target: Target, launching: Sequence[NodeGroup], images: Amis
) -> list[str]:
    """As `image_problems`, after adding to `images` what is not known yet: one call. Skipped if the
    AWS user may not look. Raises AwsError."""

    def look() -> list[str]:
        add_images(target, [group.machine.ami for group in launching], images)
        return image_problems(spec.region, launching, images)

    with asking(f"cannot look at the AMIs in {spec.region}"):
        return _allowed(look)


def image_problems(region: str, launching: Sequence[NodeGroup], images: Amis) -> list[str]:
    """What of the `images` keeps these groups' machines from being launched. Pure.

    Source: EC2's EbsBlockDevice, VolumeSize, which is never smaller than the snapshot.
    """
    amis = sorted({group.machine.ami for group in launching})
    wanted = {(g.machine.ami, g.machine.vol_size) for g in launching if g.machine.vol_size}
    found = [(ami, gib, image.size) for ami, gib in wanted if gib and (image := images.get(ami))]
    return [
        *(f"the AMI {ami} does not exist in {region}" for ami in amis if images[ami] is None),
        *(
            f"vol_size {gib} is less than the {size} GiB of the AMI {ami}: leave it out, or set at "
            f"least {size}"
            for ami, gib, size in sorted(found)
            if gib < size
        ),
    ]


def _disagreements(
    groups: Sequence[NodeGroup], built_for: Mapping[str, str], runs: Mapping[str, list[str]]
) -> list[str]:
    pairs = sorted({(group.machine.ami, each) for group in groups for each in group.ec2types})
    return [
        f"the AMI {ami} is for {built_for[ami]}, but {ec2type} runs {' or '.join(runs[ec2type])}"
        for ami, ec2type in pairs
        if built_for.get(ami) and runs.get(ec2type) and built_for[ami] not in runs[ec2type]
    ]


def _names(
    spec: ClusterSpec, target: Target, ec2: Any, names: Collection[str], *, new: bool
) -> list[str]:
    # One call for all kinds. It also lists terminated resources, so a hit may be a false alarm. It
    # does not list groups, but a group always has a launch template.
    found = tags_of(ec2, spec, names)
    problems = taken(ec2, spec, names, found)
    if new and any((tag["Key"], tag["Value"]) == (CLUSTER_TAG, spec.name) for tag in found):
        problems += _clusters(spec, target)
    return problems


def _clusters(spec: ClusterSpec, target: Target) -> list[str]:
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
