"""What the account's quotas allow."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from bilbo.aws.session import client
from bilbo.model import FALLBACK, ClusterSpec, NodeGroup, Target

# "Inbound or outbound rules per security group" (VPC user guide, "Amazon VPC quotas"): the default,
# for each address family, and the quota's code.
_RULES = 60
_RULES_CODE = "L-0EA8095F"
# The quotas of running on-demand instances, in vCPUs, by the letters that a type begins with.
# Source: the EC2 user guide, "On-Demand Instance quotas".
_STANDARD = ("Standard (A, C, D, H, I, M, R, T, Z)", "L-1216C47A")
_FAMILIES = {
    **dict.fromkeys((*"acdhimrtz", "im", "is"), _STANDARD),
    **dict.fromkeys(("g", "gr", "vt"), ("G and VT", "L-DB2E81BA")),
    "dl": ("DL", "L-6E869C2A"),
    "f": ("F", "L-74FC7D96"),
    "hpc": ("HPC", "L-F7808C92"),
    "inf": ("Inf", "L-1945791B"),
    "p": ("P", "L-417A185B"),
    "trn": ("Trn", "L-2C3B7624"),
    "u": ("High Memory", "L-43DA4232"),
    "x": ("X", "L-7295265B"),
}
# The quotas of spot instances, by the names above. Source: the EC2 user guide, "Spot Instance
# quotas"; the codes as Service Quotas lists them. P5 has one of its own, which is not looked at.
_SPOT = {
    "Standard (A, C, D, H, I, M, R, T, Z)": "L-34B43A08",
    "G and VT": "L-3819A6DF",
    "DL": "L-85EED4F7",
    "F": "L-88CF9481",
    "Inf": "L-B5D1601B",
    "P": "L-7212CCBC",
    "Trn": "L-6B0D517C",
    "X": "L-E3A00192",
}
# How many pages of instances are looked at: an account with more is beyond bilbo's help.
_MOST_PAGES = 10


# Groups, and how many more machines each is to get.
Asked: TypeAlias = Sequence[tuple[NodeGroup, int]]


def quota(quotas: Any, service: str, code: str) -> float | None:
    """The account's value of a quota, from the boto3 client `quotas`; None if the AWS user may not
    ask, or Service Quotas cannot be reached or does not know it. One call."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = quotas.get_service_quota(ServiceCode=service, QuotaCode=code)
        return float(answer["Quota"]["Value"])
    except (BotoCoreError, ClientError):
        return None


def inbound_rules(spec: ClusterSpec) -> int:
    """How many inbound rules of one address family the generated security group has, as AWS counts
    them: one for each network and port, and one for each group that it admits.

    Source: the VPC user guide, "Security group size".
    """
    peers = {group.machine.security_group for group in spec.groups()} - {None}
    in_6 = sum(":" in cidr for cidr in spec.cidrs)
    return max(in_6, len(spec.cidrs) - in_6) * len(spec.ports) + len(peers) + 1


def rules(target: Target, spec: ClusterSpec, notes: list[str]) -> list[str]:
    """What is wrong with the number of rules of the generated security group; a doubt is added to
    `notes`. Calls AWS only if there are more than its default."""
    if not spec.needs_security_group or inbound_rules(spec) <= _RULES:
        return []
    allowed = quota(client(target, "service-quotas", optional=True), "vpc", _RULES_CODE)
    return beyond(spec, allowed, notes)


def beyond(spec: ClusterSpec, allowed: float | None, notes: list[str]) -> list[str]:
    """As `rules`, for as many as the account is `allowed`, None if nobody may ask. Pure."""
    count = inbound_rules(spec)
    several = f"{len(spec.cidrs)} networks (access.cidrs) for {len(spec.ports)} ports"
    need = f"the security group needs {count} inbound rules: {several}, and its members"
    if allowed is None:
        notes.append(
            f"Check the account's quota: {need}; AWS allows {_RULES} unless Service Quotas has "
            f"more ({_RULES_CODE} of VPC)."
        )
        return []
    if count <= allowed:
        return []
    return [
        f"{need}; the account's quota is {allowed:.0f} ({_RULES_CODE} of VPC in Service Quotas): "
        "merge networks, or request more"
    ]


def family(ec2type: str, *, spot: bool = False) -> tuple[str, str] | None:
    """The name and the code of the quota that instances of a type count towards, on demand or as
    `spot` instances; None for a type that counts towards none that bilbo knows."""
    letters = re.match("[a-z]+", ec2type)
    found = _FAMILIES.get(letters[0]) if letters else None
    if not spot or not found:
        return found
    code = _SPOT.get(found[0])
    return (f"{found[0]} spot", code) if code else None


def bucket(group: NodeGroup) -> tuple[str, str] | None:
    """The quota that a group's machines count towards, as `family`; None if that is not certain, or
    what is above it can be had otherwise: spot instances of several families, and those of a group
    that runs on demand what spot cannot give."""
    if not group.spot:
        return family(group.machine.ec2type)
    found = {family(each, spot=True) for each in group.ec2types}
    return found.pop() if len(found) == 1 and group.spot != FALLBACK else None


def codes(more: Asked) -> list[str]:
    """The codes of the quotas that so many more machines count towards."""
    found = {bucket(group) for group, count in more if count}
    return sorted(counts[1] for counts in found if counts)


def running(ec2: Any) -> Counter[str]:
    """How many vCPUs run in the region, by the codes of their quotas. One paged call; raises
    ClientError.

    Those on dedicated hosts have other quotas.
    """
    found: Counter[str] = Counter()
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=alive, PaginationConfig={"PageSize": 1000, "MaxItems": 1000 * _MOST_PAGES}
    )
    for page in pages:
        for reservation in page["Reservations"]:
            for each in reservation["Instances"]:
                lifecycle = each.get("InstanceLifecycle")
                counts = family(each["InstanceType"], spot=lifecycle == "spot")
                dedicated = each.get("Placement", {}).get("Tenancy") == "host"
                if counts and not dedicated and lifecycle in (None, "spot"):
                    cpus = each.get("CpuOptions", {})
                    found[counts[1]] += cpus.get("CoreCount", 0) * cpus.get("ThreadsPerCore", 1)
    return found


def vcpus(
    more: Asked,
    sizes: Mapping[str, int],
    run: Mapping[str, int],
    allowed: Mapping[str, float | None],
) -> list[str]:
    """What is beyond the account's quotas if each group gets so many `more` machines.

    `sizes` are the vCPUs of instance types, `run` and `allowed` what runs and may run, by the codes
    of quotas; what is not known there is passed over.
    """
    asked: Counter[tuple[str, str]] = Counter()
    for group, count in more:
        if counts := bucket(group):
            types = group.ec2types if group.spot else (group.machine.ec2type,)
            asked[counts] += count * min(sizes.get(each, 0) for each in types)
    problems = []
    for (name, code), needed in sorted(asked.items()):
        most = allowed.get(code)
        if needed and most is not None and run.get(code, 0) + needed > most:
            problems.append(
                f"{needed} more vCPUs of {name} instances are needed and {run.get(code, 0)} run; "
                f"the account's quota is {most:.0f} ({code} of EC2 in Service Quotas): use fewer "
                "or smaller machines, or request more"
            )
    return problems
