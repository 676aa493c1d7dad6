"""What the stand-in changes in moto's EC2, one function a mend.

moto is a mock: it was made to let tests pass. Here its instances must be reachable, and it
must refuse what AWS refuses. All that depends on moto's inner workings is in this module, in
`groups` and `refusals`; `TESTED_MOTO` says with which releases.
"""

from __future__ import annotations

import copy
import ipaddress
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from moto.core.types import Base64EncodedString
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import Instance, InstanceBackend, StateReason
from moto.ec2.models.key_pairs import KeyPairBackend
from moto.ec2.models.launch_templates import (
    LaunchTemplate,
    LaunchTemplateBackend,
    LaunchTemplateVersion,
)
from moto.ec2.models.security_groups import SecurityGroupBackend
from moto.ec2.models.subnets import Subnet
from moto.ec2.models.vpcs import VPCBackend
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import parse_user_data

from bilbo.local import account_settings, policies, spot_market
from bilbo.local.faults import Faults
from bilbo.local.lag import Lag
from bilbo.local.network import Addresses
from bilbo.local.refusals import (
    check_group_name,
    check_groups,
    check_launch,
    check_rules,
    check_template_name,
    check_user_data,
    groups_of,
)
from bilbo.local.replacements import put, replace

TESTED_MOTO = "5.2"

ROOT_DEVICES = ("/dev/sda1", "/dev/xvda")
ALIVE = ("pending", "running")


@dataclass
class World:
    """What the mends share. `lock` is held by whoever works on moto's models: they are not
    made for threads. `key` is the name and the OpenSSH text of the key pair of every region,
    `credentials` the access key and the secret key that the API takes.
    """

    addresses: Addresses
    key: tuple[str, bytes]
    credentials: tuple[str, str] = ("", "")
    faults: Faults = field(default_factory=Faults)
    lag: Lag = field(default_factory=Lag)
    lock: threading.RLock = field(default_factory=threading.RLock)
    serial: Iterator[int] = field(default_factory=itertools.count)


def install(world: World) -> None:
    """Mend moto's EC2, for the life of this process."""
    put_default_vpc_on_loopback(world)
    give_addresses(world)
    give_public_addresses(world)
    associate_no_address_with_what_is_stopped()
    know_key_pair(world)
    check_and_complete_launches(world)
    take_the_root_disks_size_from_the_image()
    count_boots(world)
    set_what_a_poweroff_does()
    read_user_data_of_later_versions()
    keep_a_templates_own_tags_out_of_its_versions()
    refuse_long_user_data()
    keep_security_groups_in_use()
    refuse_names_and_rules()
    account_settings.install()
    policies.install()
    spot_market.install()


def all_instances() -> Iterator[Any]:
    """Every instance of every account and region that was ever asked for."""
    for account in list(ec2_backends.values()):
        for backend in list(account.values()):
            yield from backend.all_instances()


def tags_of(instance: Any) -> dict[str, str]:
    """An instance's tags; moto's own way reads through those of all resources."""
    return dict(instance.ec2_backend.tags.get(instance.id, {}))


def put_default_vpc_on_loopback(world: World) -> None:
    """moto's default VPC is 172.31.0.0/16, where nobody answers."""

    @replace(VPCBackend, "create_vpc")
    def create_vpc(original: Any, self: Any, cidr_block: str, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("is_default"):
            cidr_block = str(world.addresses.network)
        return original(self, cidr_block, *args, **kwargs)


def give_addresses(world: World) -> None:
    """moto's subnets count on their own, and start over in each region; on loopback no two
    instances of the stand-in may share an address, whatever subnet they are in.
    """

    @replace(Subnet, "get_available_subnet_ip")
    def get_available_subnet_ip(original: Any, self: Any, instance: Any) -> str:
        address = world.addresses.take(ipaddress.IPv4Network(self.cidr_block, strict=False))
        if address is None:
            raise EC2ClientError(
                "InsufficientFreeAddressesInSubnet",
                f"There are not enough free addresses in subnet '{self.id}' "
                "to satisfy the requested number of instances.",
            )
        return address

    @replace(Subnet, "request_ip")
    def request_ip(original: Any, self: Any, ip: str, instance: Any) -> None:
        if not world.addresses.take_this(ip):
            raise EC2ClientError("InvalidIPAddress.InUse", f"Address {ip} is in use.")

    @replace(Instance, "terminate")
    def terminate(original: Any, self: Any) -> Any:
        if self.state == "terminated":
            return copy.deepcopy(self._state)
        world.addresses.give_back(self.private_ip)
        return original(self)


def give_public_addresses(world: World) -> None:
    """moto's public addresses are random ones of the internet, and its names lead nowhere. A start
    gives another address than the last one; a stop lets others have it.
    """

    @replace(NetworkInterface, "check_auto_public_ip")
    def check_auto_public_ip(original: Any, self: Any) -> None:
        if str(self.public_ip_auto_assign).lower() == "true" and not self.public_ip:
            before = getattr(self, "bilbo_public_ip", "")
            self.public_ip = self.bilbo_public_ip = world.addresses.take_public(before)

    @replace(NetworkInterface, "stop")
    def stop(original: Any, self: Any) -> None:
        if self.public_ip and self.public_ip_auto_assign:
            world.addresses.give_back(self.public_ip)
        original(self)

    put(Instance, "public_dns_name", property(lambda self: self.public_ip))


def associate_no_address_with_what_is_stopped() -> None:
    """moto answers an empty association for an interface without a public address."""
    original: Any = NetworkInterface.association

    def association(self: Any) -> Any:
        return original.fget(self) if self.public_ip else None

    put(NetworkInterface, "association", property(association))


def know_key_pair(world: World) -> None:
    """Every region knows the stand-in's key pair from its birth."""

    @replace(KeyPairBackend, "__init__")
    def init(original: Any, self: Any) -> None:
        original(self)
        name, public_key = world.key
        self.import_key_pair(name, public_key, {})


def check_and_complete_launches(world: World) -> None:
    """Whoever launches comes through here: RunInstances, Auto Scaling groups, fleets, Packer.

    moto takes any AMI, type, key and security group; ignores the network interfaces of a launch
    template; leaves the network interface and a second root volume behind; and has no shortage.
    """

    @replace(InstanceBackend, "run_instances")
    def run_instances(
        original: Any, self: Any, image_id: str, count: int, *args: Any, **kwargs: Any
    ) -> Any:
        template = _complete_from_template(self, kwargs)
        kind = kwargs.get("instance_type")
        if kwargs.get("is_instance_type_default"):
            kind = template.get("InstanceType", kind)
        _put_into_default_subnet(self, kwargs)
        key = kwargs.get("key_name") or template.get("KeyName")
        image = image_id or template.get("ImageId")
        check_launch(self, image, kind, key)
        check_user_data(args[0] if args else None, "InvalidParameterValue")
        check_groups(self, [*(kwargs.get("security_group_ids") or []), *groups_of(kwargs)])
        for disk in kwargs.get("block_device_mappings") or []:
            if "Ebs" in disk and not disk["Ebs"].get("SnapshotId"):
                size = self.amis[image].block_device_mappings[0]["Ebs"]["VolumeSize"]
                disk["Ebs"]["VolumeSize"] = disk["Ebs"].get("VolumeSize") or size
        check_room(world, count, kind, kwargs.get("placement") or f"{self.region_name}a")
        reservation = original(self, image_id, count, *args, **kwargs)
        pair = self.key_pairs.get(key)
        for instance in reservation.instances:
            instance.bilbo_key = pair.material_public if pair else None
            instance.bilbo_serial = next(world.serial)
            # An instance is in the groups of its first network interface.
            instance.security_groups = list(instance.nics[0].group_set)
            world.lag.make(instance.id, *(interface.id for interface in instance.nics.values()))
            world.lag.make(*(disk.volume_id for disk in instance.block_device_mapping.values()))
            for interface in instance.nics.values():
                if not kwargs.get("nics") or interface.description == "Primary network interface":
                    interface.delete_on_termination = True
        return reservation


def take_the_root_disks_size_from_the_image() -> None:
    """moto refuses a root disk without a size, which on AWS has its image's."""
    original = InstanceResponse._validate_block_device_mapping

    def validate(mapping: dict[str, Any]) -> None:
        disk = dict(mapping.get("Ebs") or {})
        if disk and mapping.get("DeviceName") in ROOT_DEVICES:
            disk.setdefault("VolumeSize", 8)
        original({**mapping, "Ebs": disk} if disk else mapping)

    put(InstanceResponse, "_validate_block_device_mapping", staticmethod(validate))


def _complete_from_template(backend: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take from a launch template what moto does not; returns the template's data."""
    if not kwargs.get("launch_template"):
        return {}
    data: dict[str, Any] = backend._get_template_from_args(kwargs["launch_template"]).data
    for interface in data.get("NetworkInterfaces") or []:
        if str(interface.get("DeviceIndex", 0)) == "0" and not kwargs.get("nics"):
            if not kwargs.get("security_group_ids"):
                kwargs["security_group_ids"] = list(interface.get("Groups") or [])
            public = interface.get("AssociatePublicIpAddress")
            if kwargs.get("associate_public_ip") is None and public is not None:
                kwargs["associate_public_ip"] = str(public).lower() == "true"
            kwargs["subnet_id"] = kwargs.get("subnet_id") or interface.get("SubnetId")
    behavior = data.get("InstanceInitiatedShutdownBehavior")
    if behavior and not kwargs.get("instance_initiated_shutdown_behavior"):
        kwargs["instance_initiated_shutdown_behavior"] = behavior
    disks = data.get("BlockDeviceMappings") or []
    if disks and all("Ebs" in disk for disk in disks):
        # moto would make its default root volume first, and then forget it.
        kwargs.setdefault("block_device_mappings", copy.deepcopy(disks))
    return data


def _put_into_default_subnet(backend: Any, kwargs: dict[str, Any]) -> None:
    """Without a subnet moto launches into EC2-Classic, at a random address."""
    if kwargs.get("subnet_id") or any("SubnetId" in nic for nic in kwargs.get("nics") or []):
        return
    if any("NetworkInterfaceId" in nic for nic in kwargs.get("nics") or []):
        return
    subnets = backend.get_default_subnets()
    subnet = subnets.get(kwargs.get("placement") or min(subnets, default=""))
    if subnet:
        kwargs["subnet_id"] = subnet.id


def room(world: World) -> int:
    """How many more instances may be launched before a fault's shortage."""
    bounds = [n for n in (world.faults.capacity, world.faults.limit) if n is not None]
    if not bounds:
        return 1_000_000
    return max(0, min(bounds) - sum(i.state in ALIVE for i in all_instances()))


def check_room(world: World, count: int, kind: str | None, zone: str) -> None:
    """Refuse, in AWS's words, more instances than a fault lets run."""
    if count > room(world):
        raise EC2ClientError(*shortage(world, kind, zone))


def shortage(world: World, kind: str | None, zone: str) -> tuple[str, str]:
    """AWS's code and words for a shortage."""
    limit, capacity = world.faults.limit, world.faults.capacity
    if limit is not None and (capacity is None or limit < capacity):
        return (
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {limit} "
            "allows for the instance bucket that the specified instance type belongs to. "
            "Please visit http://aws.amazon.com/contact-us/ec2-request to request an "
            "adjustment to this limit.",
        )
    return (
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {kind} capacity in the Availability Zone you "
        f"requested ({zone}). Our system will be working on provisioning additional capacity. "
        f"You can currently get {kind} capacity by not specifying an Availability Zone in your "
        "request or choosing another one.",
    )


def count_boots(world: World) -> None:
    """Lets the stand-in see that a machine went down, even when it is up again already. moto boots
    what AWS leaves alone or refuses.
    """
    put(Instance, "bilbo_boots", 0)

    @replace(Instance, "start")
    def start(original: Any, self: Any) -> Any:
        if self.state == "terminated":
            raise EC2ClientError(
                "IncorrectInstanceState",
                f"The instance '{self.id}' is not in a state from which it can be started.",
            )
        if self.state != "running":
            self.bilbo_boots += 1
        return original(self)

    @replace(Instance, "reboot")
    def reboot(original: Any, self: Any) -> None:
        if self.state == "terminated":
            return
        if self.state != "running":
            raise EC2ClientError(
                "IncorrectState", f"This instance '{self.id}' is not in the 'running' state."
            )
        self.bilbo_boots += 1
        original(self)


def set_what_a_poweroff_does() -> None:
    """moto takes this change of an instance for one of its security groups, to none."""

    @replace(InstanceResponse, "_dot_value_instance_attribute_handler")
    def handler(original: Any, self: Any) -> bool:
        behavior = self._get_param("InstanceInitiatedShutdownBehavior.Value")
        if behavior is None:
            return bool(original(self))
        self.error_on_dryrun()
        self.ec2_backend.modify_instance_attribute(
            self._get_param("InstanceId"), "instance_initiated_shutdown_behavior", behavior
        )
        return True


def root_gib(instance: Any) -> int:
    """The size of an instance's root volume, in GiB; 0 if it has none."""
    disks = instance.block_device_mapping
    disk = next((disks[name] for name in ROOT_DEVICES if name in disks), None)
    volume = instance.ec2_backend.volumes.get(disk.volume_id) if disk else None
    return int(volume.size) if volume else 0


def power(instance: Any, asked: str) -> None:
    """Does what a running machine asks for: `reboot` or `poweroff`.

    Source of the reason: EC2's API reference, StateReason.
    """
    if asked == "reboot":
        instance.reboot()
        return
    if instance.instance_initiated_shutdown_behavior == "terminate":
        instance.terminate()
    else:
        instance.stop()
    code = "Client.InstanceInitiatedShutdown"
    instance._reason = ""
    instance.state_reason = StateReason(f"{code}: Instance initiated shutdown", code)


def read_user_data_of_later_versions() -> None:
    """moto reads the user data of a template's first version only; an instance of a later
    version fails on an assertion.
    """

    def user_data(self: Any) -> Any:
        data = self.data.get("UserData") or None
        return data if isinstance(data, Base64EncodedString) else parse_user_data(data)

    put(LaunchTemplateVersion, "user_data", property(user_data))


def keep_a_templates_own_tags_out_of_its_versions() -> None:
    """moto mixes the tags of a template into what it launches; AWS does not, and Terraform
    would plan to take them out, which replaces the group.
    """

    @replace(LaunchTemplate, "__init__")
    def __init__(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        data = kwargs.get("template_data") or args[2]
        mixed = data.get("TagSpecifications", [])
        mixed[:] = [item for item in mixed if item["ResourceType"] != "launch-template"]
        original(self, *args, **kwargs)


def refuse_long_user_data() -> None:
    """moto takes user data of any length."""

    @replace(LaunchTemplate, "create_version")
    def create_version(original: Any, self: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        check_user_data(data.get("UserData"), "InvalidUserData.Malformed")
        return original(self, data, *args, **kwargs)


def keep_security_groups_in_use() -> None:
    """moto deletes a security group under its instances, where AWS refuses."""

    @replace(SecurityGroupBackend, "_delete_security_group")
    def delete(original: Any, self: Any, vpc_id: str | None, group_id: str) -> Any:
        for instance in self.all_instances():
            groups = {group.id for group in instance.security_groups}
            groups |= {g.id for nic in instance.nics.values() for g in nic.group_set}
            if instance.state != "terminated" and group_id in groups:
                raise EC2ClientError(
                    "DependencyViolation", f"resource {group_id} has a dependent object"
                )
        return original(self, vpc_id, group_id)


def refuse_names_and_rules() -> None:
    """moto takes any name, and counts the rules of both address families together."""

    @replace(LaunchTemplateBackend, "create_launch_template")
    def create_template(original: Any, self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        check_template_name(name)
        return original(self, name, *args, **kwargs)

    @replace(SecurityGroupBackend, "create_security_group")
    def create_group(original: Any, self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        check_group_name(self, name, kwargs.get("vpc_id"))
        return original(self, name, *args, **kwargs)

    @replace(SecurityGroupBackend, "_verify_group_will_respect_rule_count_limit")
    def verify(
        original: Any, self: Any, group: Any, count: int, networks: Any, groups: Any = None,
        egress: bool = False,
    ) -> None:  # fmt: skip
        check_rules(group.egress_rules if egress else group.ingress_rules, networks, groups)
