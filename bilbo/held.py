"""What AWS holds with bilbo's tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Resource:
    """A resource in AWS with a cluster's tag. `kind` is Terraform's resource type; `role`, `group`,
    `owner` and `cluster` are values of tags; `since` is when it was made or started, ISO 8601, and
    empty for a security group. For instances, `public_ip` is the address, `launched_by` the name of
    the Auto Scaling group, and `ec2type` the instance type.
    """

    kind: str
    id: str
    state: str = ""
    role: str = ""
    group: str = ""
    public_ip: str = ""
    owner: str = ""
    launched_by: str = ""
    cluster: str = ""
    since: str = ""
    ec2type: str = ""

    def __str__(self) -> str:
        """How messages show a resource with another owner."""
        return f"{self.kind} {self.id} ({f'owner {self.owner}' if self.owner else 'no owner'})"


@dataclass(frozen=True)
class Leftover:
    """What AWS holds of a cluster without a record here. `owner` is the resources' tag, empty if
    they have none; `mine` says whether a cluster of this home had that owner."""

    region: str
    cluster: str
    owner: str
    mine: bool
    resources: tuple[Resource, ...]


@dataclass(frozen=True)
class Built:
    """What a build of the image `image` has made, and no home here knows: the image itself, or what
    a killed Packer leaves. `commands` of AWS's CLI remove it, in order."""

    region: str
    image: str
    resource: Resource
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Swept:
    """What was found in `regions`; `unseen` are regions that could not be asked, with the cause."""

    regions: tuple[str, ...]
    leftovers: tuple[Leftover, ...]
    unseen: Mapping[str, str]
    built: tuple[Built, ...] = ()


@dataclass(frozen=True)
class Sighting:
    """An instance as AWS shows it, running or ended, and its life so far.

    `started` is when it last started, ISO 8601 in UTC. `ended` is when it stopped or was terminated
    since; empty while it runs, and where AWS does not tell. `code` is AWS's reason for that. `gib`
    is the size of its gp3 volumes, 0 if it is unknown; `others` says whether it has volumes of
    another type; `address` whether it has a public IPv4 address while it runs.
    """

    id: str
    state: str
    started: str
    role: str = ""
    group: str = ""
    ec2type: str = ""
    ended: str = ""
    code: str = ""
    spot: bool = False
    gib: int = 0
    others: bool = False
    address: bool = True

    @property
    def runs(self) -> bool:
        """Whether it is billed as running."""
        return self.state in ("pending", "running")

    @property
    def gone(self) -> bool:
        """Whether it will never run again, and its volumes are gone."""
        return self.state in ("shutting-down", "terminated")
