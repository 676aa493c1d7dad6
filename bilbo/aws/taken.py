"""Names that somebody else's resources have, and which a cluster's would need."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from bilbo.model import CLUSTER_TAG, OWNER_TAG, ClusterSpec

_NAME = "Name"
_TEMPLATE, _GROUP = "launch-template", "security-group"


def tags_of(ec2: Any, spec: ClusterSpec, names: Collection[str]) -> list[dict[str, str]]:
    """The tags that tell whether the cluster's name, or one of its resources' `names`, is in use:
    `[{"Key", "Value", "ResourceId", "ResourceType"}]`. One paged call; raises ClientError.

    Everything that bilbo makes carries its name as a tag too. A name that only something made by
    hand has is found by AWS alone.
    """
    group = spec.security_group_name
    return _tags(
        ec2,
        key=[CLUSTER_TAG, *([_NAME] if names else [])],
        value=[spec.name, *names, *(_any_case(each) for each in names if each == group)],
    )


def taken(
    ec2: Any, spec: ClusterSpec, names: Collection[str], found: Collection[Mapping[str, str]]
) -> list[str]:
    """What other clusters have of the `names`, in words; `found` is from `tags_of`.

    Calls AWS only if there is something. Raises ClientError.
    """
    hits = {tag["ResourceId"]: tag for tag in found if _is_hit(tag, spec, names)}
    if not hits:
        return []
    tags: dict[str, dict[str, str]] = {}
    for tag in _tags(ec2, **{"resource-id": sorted(hits)}):
        tags.setdefault(tag["ResourceId"], {})[tag["Key"]] = tag["Value"]
    others = {each: tags.get(each, {}) for each in hits if not _same(tags.get(each, {}), spec)}
    groups = [each for each in others if hits[each]["ResourceType"] == _GROUP]
    elsewhere = _elsewhere(ec2, spec, groups) if groups else frozenset()
    return [
        _words(spec, hits[each], others[each]) for each in sorted(others) if each not in elsewhere
    ]


def _is_hit(tag: Mapping[str, str], spec: ClusterSpec, names: Collection[str]) -> bool:
    if tag["Key"] != _NAME:
        return False
    if tag["ResourceType"] == _GROUP:
        group = spec.security_group_name
        return group in names and tag["Value"].lower() == group.lower()
    return tag["ResourceType"] == _TEMPLATE and tag["Value"] in names


def _same(tags: Mapping[str, str], spec: ClusterSpec) -> bool:
    """Whether it is of a cluster of this name; whose that is, is another question."""
    return tags.get(CLUSTER_TAG) == spec.name


def _any_case(name: str) -> str:
    """A filter for a name in upper and lower case: the names of security groups are
    case-insensitive (EC2's CreateSecurityGroup), values of filters are not."""
    return "".join("?" if char.isalpha() else char for char in name)


def _elsewhere(ec2: Any, spec: ClusterSpec, groups: Collection[str]) -> frozenset[str]:
    """Those security groups that are in another VPC, where the name is free."""
    subnet = next((g.machine.subnet for g in spec.groups() if g.machine.subnet), None)
    default = [{"Name": "default-for-az", "Values": ["true"]}]
    asked: dict[str, Any] = {"SubnetIds": [subnet]} if subnet else {"Filters": default}
    ours = {each["VpcId"] for each in ec2.describe_subnets(**asked)["Subnets"]}
    answer = ec2.describe_security_groups(GroupIds=sorted(groups))
    return frozenset(
        each["GroupId"] for each in answer["SecurityGroups"] if each["VpcId"] not in ours
    )


def _words(spec: ClusterSpec, hit: Mapping[str, str], tags: Mapping[str, str]) -> str:
    other = tags.get(CLUSTER_TAG)
    owner = tags.get(OWNER_TAG)
    whose = f" of cluster {other!r}" if other else ""
    whose += f" (owner {owner})" if owner else ""
    has = f"{hit['ResourceId']}{whose} has the name {hit['Value']!r}"
    if hit["ResourceType"] == _GROUP:
        return f"{has}, which the security group needs; choose another name with -n"
    return f"{has}, which a worker group needs; rename the group, or choose another name with -n"


def _tags(ec2: Any, **filters: list[str]) -> list[dict[str, str]]:
    asked = [{"Name": name, "Values": values} for name, values in filters.items()]

    def pages() -> Iterator[dict[str, str]]:
        for page in ec2.get_paginator("describe_tags").paginate(Filters=asked):
            yield from page["Tags"]

    return list(pages())
