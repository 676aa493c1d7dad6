"""What the stand-in replaces inside moto, one row each: docs/standin.md shows the same table.

`replace` and `put` refuse anything that has no row, and a test compares the rows with what is
replaced once a stand-in has been installed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_EC2 = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_"
_GROUPS = "https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_"
_PROCESSES = (
    "https://docs.aws.amazon.com/autoscaling/ec2/userguide/"
    "understand-how-suspending-processes-affects-other-processes.html"
)
_GUIDE = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/"
_OWN = "the stand-in's own: machines must be reachable on loopback"


@dataclass(frozen=True)
class Replacement:
    """One method or attribute of moto's that the stand-in replaces.

    `target` is `Class.attribute`, `source` where AWS's behaviour is documented, and `test` the test
    of tests/test_local.py that fails without it.
    """

    target: str
    moto: str
    aws: str
    source: str
    test: str


REPLACEMENTS = (
    Replacement(
        "VPCBackend.create_vpc",
        "gives the default VPC 172.31.0.0/16, where nothing listens",
        "routes a VPC's addresses",
        _OWN,
        "test_addresses_are_of_their_subnet",
    ),
    Replacement(
        "Subnet.get_available_subnet_ip",
        "counts addresses in each subnet and region from the start",
        "never gives one address to two instances of a network",
        _OWN,
        "test_every_region_has_addresses_of_its_own",
    ),
    Replacement(
        "Subnet.request_ip",
        "accepts an address that another region's instance has",
        "refuses an address in use: InvalidIPAddress.InUse",
        _EC2 + "RunInstances.html",
        "test_an_address_in_use_is_refused",
    ),
    Replacement(
        "Instance.terminate",
        "knows nothing of the stand-in's addresses, and fails if it is terminated already",
        "frees the private address of a terminated instance, once",
        _GUIDE + "using-instance-addressing.html",
        "test_stop_start_reboot_terminate",
    ),
    Replacement(
        "NetworkInterface.check_auto_public_ip",
        "makes up a public address",
        "gives an address that leads to the instance, and another one at each start",
        _GUIDE + "using-instance-addressing.html",
        "test_stop_start_reboot_terminate",
    ),
    Replacement(
        "NetworkInterface.stop",
        "knows nothing of the stand-in's addresses",
        "gives the public address of a stopped instance to whoever is next",
        _GUIDE + "using-instance-addressing.html",
        "test_stop_start_reboot_terminate",
    ),
    Replacement(
        "NetworkInterface.association",
        "answers an empty association where there is no public address",
        "leaves it out: a stopped instance has none",
        _GUIDE + "using-instance-addressing.html",
        "test_stop_start_reboot_terminate",
    ),
    Replacement(
        "Instance.public_dns_name",
        "makes up a name that resolves nowhere",
        "gives a name that leads to the instance",
        _OWN,
        "test_names_lead_to_the_machine",
    ),
    Replacement(
        "KeyPairBackend.__init__",
        "begins without key pairs",
        "has the key pairs that a person made",
        _OWN + ", with a key that is there in every region",
        "test_every_region_has_addresses_of_its_own",
    ),
    Replacement(
        "InstanceBackend.run_instances",
        "accepts unknown AMIs, types, key pairs and groups; ignores a template's interfaces",
        "refuses them by code, and applies the template",
        _EC2 + "RunInstances.html",
        "test_what_is_not_there_is_refused",
    ),
    Replacement(
        "InstanceResponse._validate_block_device_mapping",
        "refuses a root volume without a size",
        "takes the size from the AMI's snapshot",
        _EC2 + "EbsBlockDevice.html",
        "test_a_root_disk_has_its_images_size",
    ),
    Replacement(
        "Instance.bilbo_boots",
        "has no count of boots",
        "reboots end every process",
        _EC2 + "RebootInstances.html",
        "test_stop_start_reboot_terminate",
    ),
    Replacement(
        "Instance.start",
        "only changes a state, whatever it was",
        "boots a stopped machine, leaves a running one alone, refuses a terminated one",
        _EC2 + "StartInstances.html",
        "test_every_start_is_a_boot",
    ),
    Replacement(
        "Instance.reboot",
        "only changes a state, whatever it was",
        "boots a running machine again, refuses a stopped one",
        _EC2 + "RebootInstances.html",
        "test_stop_start_reboot_terminate",
    ),
    Replacement(
        "InstanceResponse._dot_value_instance_attribute_handler",
        "takes a new InstanceInitiatedShutdownBehavior for an empty list of security groups",
        "sets what a poweroff on the machine does",
        _EC2 + "ModifyInstanceAttribute.html",
        "test_a_machine_powers_itself_off",
    ),
    Replacement(
        "LaunchTemplateVersion.user_data",
        "reads the user data of a template's first version only; later ones fail at launch",
        "reads every version's",
        _EC2 + "CreateLaunchTemplateVersion.html",
        "test_a_group_from_the_template_version_it_names",
    ),
    Replacement(
        "LaunchTemplate.__init__",
        "adds a template's own tags to what it launches",
        "keeps them on the template",
        _EC2 + "CreateLaunchTemplate.html",
        "test_a_templates_own_tags_stay_on_it",
    ),
    Replacement(
        "LaunchTemplate.create_version",
        "takes user data of any length, and so do launches",
        "refuses more than 16 KiB: InvalidUserData.Malformed",
        _GUIDE + "user-data.html",
        "test_user_data_have_a_limit",
    ),
    Replacement(
        "SecurityGroupBackend._delete_security_group",
        "deletes a security group that instances use",
        "refuses: DependencyViolation",
        _EC2 + "DeleteSecurityGroup.html",
        "test_a_security_group_in_use_stays",
    ),
    Replacement(
        "SecurityGroupBackend.create_security_group",
        "takes any name that no group of the VPC has in just these letters",
        "takes some characters, not `sg-` first, and knows no upper and lower case",
        _EC2 + "CreateSecurityGroup.html",
        "test_names_and_rules_have_limits",
    ),
    Replacement(
        "SecurityGroupBackend._verify_group_will_respect_rule_count_limit",
        "counts IPv4 and IPv6 together",
        "allows 60 rules of each: RulesPerSecurityGroupLimitExceeded",
        "https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html",
        "test_names_and_rules_have_limits",
    ),
    Replacement(
        "LaunchTemplateBackend.create_launch_template",
        "takes any name that is free",
        "takes 3 to 128 characters: InvalidLaunchTemplateName.MalformedException",
        _EC2 + "CreateLaunchTemplate.html",
        "test_names_and_rules_have_limits",
    ),
    Replacement(
        "AutoScalingBackend.create_auto_scaling_group",
        "overwrites a group of the same name, takes any name, and finds a bad template at launch",
        "refuses these: AlreadyExists, ValidationError",
        _GROUPS + "CreateAutoScalingGroup.html",
        "test_a_group_with_a_bad_template_is_refused",
    ),
    Replacement(
        "FakeAutoScalingGroup.replace_autoscaling_group_instances",
        "launches all or fails the request, and from the template's default version",
        "launches what there is from the version that the group names, and notes the failure",
        _GROUPS + "DescribeScalingActivities.html",
        "test_a_shortage",
    ),
    Replacement(
        "FakeAutoScalingGroup.set_desired_capacity",
        "launches and terminates what is suspended, and records nothing",
        "does neither while Launch or Terminate is suspended, and records what it terminates",
        _PROCESSES,
        "test_what_is_suspended_is_not_done",
    ),
    Replacement(
        "FakeAutoScalingGroup.active_instances",
        "counts no instance that is still pending, and would launch it twice",
        "counts it in the group's size",
        "https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html",
        "test_pending_instances_count_and_cannot_be_protected",
    ),
    Replacement(
        "AutoScalingBackend.set_instance_protection",
        "sets the protection of any instance, and passes over those that it does not know",
        "refuses what is not in service: ValidationError",
        "https://github.com/infrahouse/infrahouse-toolkit/issues/223",
        "test_pending_instances_count_and_cannot_be_protected",
    ),
    Replacement(
        "AutoScalingResponse.describe_scaling_activities",
        "answers with an empty list",
        "lists the activities of six weeks",
        _GROUPS + "DescribeScalingActivities.html",
        "test_a_shortage",
    ),
    Replacement(
        "AutoScalingResponse.delete_auto_scaling_group",
        "forgets the group, and leaves protected instances running",
        "refuses while it has instances; with ForceDelete, terminates them",
        _GROUPS + "DeleteAutoScalingGroup.html",
        "test_protected_instances_stay_until_forced",
    ),
    Replacement(
        "FakeAutoScalingGroup.update",
        "drops the mixed instances policy when anything else is updated",
        "keeps what the request does not name",
        _GROUPS + "UpdateAutoScalingGroup.html",
        "test_a_mixed_policy_outlives_an_update",
    ),
    Replacement(
        "AutoScalingBackend.notify_terminate_instances",
        "replaces a terminated instance within the request",
        "replaces it some time later, at the next health check",
        "https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-health-checks.html",
        "test_a_group_replaces_what_it_lost",
    ),
    Replacement(
        "Instance.instance_lifecycle",
        "does not tell which instances are spot",
        "tells it, and nothing for on demand",
        _EC2 + "Instance.html",
        "test_a_group_buys_as_its_policy_says",
    ),
    Replacement(
        "moto.ec2.utils.filter_dict_attribute_mapping",
        "does not know the filter instance-lifecycle",
        "lists only spot instances by it",
        _EC2 + "DescribeInstances.html",
        "test_a_group_buys_as_its_policy_says",
    ),
    Replacement(
        "ServiceQuotasBackend.get_service_quota",
        "knows the quotas of VPC alone",
        "knows those of running instances, in vCPUs; this account has 20,000 of each family, and "
        "as many of spot instances",
        _GUIDE + "ec2-on-demand-instances.html",
        "test_the_account_has_quotas_and_a_key",
    ),
    Replacement(
        "Instance.cpu_options",
        "does not tell an instance's CPUs",
        "tells cores and threads",
        _EC2 + "CpuOptions.html",
        "test_the_account_has_quotas_and_a_key",
    ),
    Replacement(
        "Settings.get_ebs_default_kms_key_id",
        "does not know the action",
        "answers with the account's default key for volumes",
        _EC2 + "GetEbsDefaultKmsKeyId.html",
        "test_the_account_has_quotas_and_a_key",
    ),
    Replacement(
        "EBSBackend.modify_ebs_default_kms_key_id",
        "does not tell a key that was chosen from AWS's own",
        "tells them apart when it is asked",
        _EC2 + "ModifyEbsDefaultKmsKeyId.html",
        "test_the_account_has_quotas_and_a_key",
    ),
    Replacement(
        "IAMRequest._raise_access_denied",
        "refuses with AccessDenied, whatever the service",
        "refuses with UnauthorizedOperation in EC2",
        _EC2.removesuffix("API_") + "errors-overview.html",
        "test_only_what_the_policy_allows",
    ),
    Replacement(
        "S3IAMRequest.__init__",
        "takes most settings of a bucket for ListBucket and CreateBucket, and knows HeadBucket",
        "has a permission for each setting, and ListBucket for HeadBucket",
        "https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html",
        "test_only_what_the_policy_allows",
    ),
)  # fmt: skip
_ROWS = frozenset(each.target for each in REPLACEMENTS)
# What has been replaced in this process.
replaced: set[str] = set()


def replace(owner: type, name: str) -> Callable[[Callable[..., Any]], None]:
    """Replaces a method; the replacement gets the original as its first argument."""

    def decorate(replacement: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            return replacement(original, *args, **kwargs)

        put(owner, name, method)

    return decorate


def put(owner: type, name: str, value: Any) -> None:
    """Sets an attribute of one of moto's classes. Raises AssertionError where it has no row."""
    note(owner.__name__, name)
    setattr(owner, name, value)


def note(owner: str, name: str) -> None:
    """Notes that something of moto's is replaced. Raises AssertionError where it has no row."""
    target = f"{owner}.{name}"
    assert target in _ROWS, f"{target} has no row in REPLACEMENTS"
    replaced.add(target)
