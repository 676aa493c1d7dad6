"""What the account's quotas allow."""

from __future__ import annotations

from bilbo.aws.session import client
from bilbo.errors import AwsError
from bilbo.model import ClusterSpec, Target

# "Inbound or outbound rules per security group" (VPC user guide, "Amazon VPC quotas"): the default,
# for each address family, and the quota's code.
_RULES = 60
_RULES_CODE = "L-0EA8095F"


def quota(target: Target, service: str, code: str) -> float | None:
    """The account's value of a quota in the target's region; None if the AWS user may not ask, or
    Service Quotas cannot be reached or does not know it. One call."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        quotas = client(target, "service-quotas", optional=True)
        answer = quotas.get_service_quota(ServiceCode=service, QuotaCode=code)
        return float(answer["Quota"]["Value"])
    except (BotoCoreError, ClientError, AwsError, KeyError):
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
    count = inbound_rules(spec) if spec.needs_security_group else 0
    if count <= _RULES:
        return []
    allowed = quota(target, "vpc", _RULES_CODE)
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
