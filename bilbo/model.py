"""The frozen records that bilbo's stages pass to each other. Their only behaviour is to read
themselves; nothing here does I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bilbo.lifetime import Lifetime

NOTEBOOK = "notebook"
SCHEDULER = "scheduler"
HEAD = "head"
WORKER = "worker"

# The roles of an engine's head: Dask's own term, and that of all others.
HEADS = (SCHEDULER, HEAD)

# How far a host is in the SSH stage, in this order, unless it has failed.
CONNECTED = "connected"
STARTED = "started"
READY = "ready"
MILESTONES = (CONNECTED, STARTED, READY)
FAILED = "failed"

# How a worker group buys its machines: spot alone, or on demand what spot cannot give.
SPOT = "spot"
FALLBACK = "fallback"

# The tags that find a cluster's resources, whatever its Terraform state says.
CLUSTER_TAG = "bilbo:cluster"
ROLE_TAG = "bilbo:role"
GROUP_TAG = "bilbo:group"
# Tells apart two clusters of the same name.
OWNER_TAG = "bilbo:owner"

# Set by the Packer template: the image's name for profiles.
IMAGE_TAG = "bilbo:image"

NOTEBOOK_PORT = 8888

# Keys of an instance that are personal or may contain a secret. They never go into HCL, state or
# outputs, and are never taken from there.
ONES_OWN = ("ssh_private_key", "init_cmd", "packages", "env")


@dataclass(frozen=True)
class Machine:
    """A role's `instance` in the profile, merged with the common one.

    `ami` is empty until the `image`, the name of a built image, is looked up. `vol_size` is in GiB;
    None keeps the AMI's size. `security_group` None means the generated one, `subnet` None one of
    the default VPC. `ssh_private_key` is the path as written in the profile (`~` not expanded).
    `packages` are lines of a pip requirements file. `env` are variables of the machine's services.
    """

    ami: str
    ec2type: str
    keyname: str
    ssh_user: str
    ssh_private_key: str
    security_group: str | None = None
    ssh_port: int = 22
    vol_size: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    subnet: str | None = None
    iam_instance_profile: str | None = None
    init_cmd: tuple[str, ...] = ()
    image: str | None = None
    packages: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


def digest(cluster: str, key: str, value: Any) -> str:
    """The sha256 of a value of a cluster's profile, in hexadecimal digits."""
    return hashlib.sha256(json.dumps([cluster, key, value], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class NodeGroup:
    """`count` equal machines of one role.

    `name` is the group's name in the profile, in Terraform's module and in the record; it is the
    role if that has only one group. `instance_name` is the EC2 `Name` tag. `resources` are the
    named resources that each worker offers to tasks; `settings` are the engine's other keys of the
    profile, such as `nproc`. `ports` are the ports that people reach besides SSH, with what listens
    there. `spot` is SPOT, FALLBACK, or empty for a group that runs on demand; `types` are the types
    that AWS may take besides the machine's. `on_demand` is how many of a spot group run on demand
    all the same, None until it is settled.
    """

    role: str
    name: str
    instance_name: str
    machine: Machine
    count: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    ports: Mapping[int, str] = field(default_factory=dict)
    spot: str = ""
    types: tuple[str, ...] = ()
    on_demand: int | None = None

    @property
    def ec2types(self) -> tuple[str, ...]:
        """Every type that its machines may have, each once, the machine's own first."""
        return tuple(dict.fromkeys((self.machine.ec2type, *self.types)))

    @property
    def offers(self) -> str:
        """The resources as Dask's option has them: `GPU=1 MEM=2`."""
        return " ".join(f"{name}={self.resources[name]}" for name in sorted(self.resources))


def worker_part(document: dict[str, Any], engine: str, group: str) -> dict[str, Any]:
    """The part of a profile's `document` for a worker group, created if it is only implied. Raises
    KeyError if there is no group of that name."""
    part = document[engine].setdefault(WORKER, {})
    if isinstance(part, list):
        parts: dict[str, dict[str, Any]] = {each["name"]: each for each in part}
        return parts[group]
    if group != WORKER:
        raise KeyError(group)
    single: dict[str, Any] = part
    return single


@dataclass(frozen=True)
class SharedState:
    """Where a team stores its clusters' Terraform state: an S3 bucket with native locks."""

    bucket: str
    region: str
    prefix: str = "bilbo"

    def key(self, cluster: str) -> str:
        """The key of the object with a cluster's state."""
        return f"{self.prefix}/{cluster}.tfstate"

    def address(self) -> str:
        """The address for `attach`."""
        return f"s3://{self.bucket}/{self.prefix}"

    def backend(self, cluster: str) -> dict[str, str]:
        """The settings of Terraform's S3 backend."""
        return {"bucket": self.bucket, "key": self.key(cluster), "region": self.region}


@dataclass(frozen=True)
class ClusterSpec:
    """The specification of a cluster: a validated, complete profile.

    `engine` is the engine's key in the profile (`dask`), or None. `head` is the engine's head
    (Dask's scheduler, Ray's head). `cidrs` are the networks that the generated security group
    allows; empty means the caller's own address, not yet determined. `public` allows ports that are
    open to the internet. `state` None keeps Terraform's state on this machine, `lifetime` None the
    cluster until somebody ends it. `account` is the cluster's AWS account, None while unknown;
    `owner` the random hash that its resources carry, None for a cluster from a release without
    owners. `root_devices` names the AMIs' root devices, once settled. `profile` is the profile as
    JSON, after overrides; `profile_name` is its file's. `paused` are the counts of workers that a
    paused cluster gets back, by group, while those of its groups are 0; None if it is not paused.
    `budget` is what it may cost, in USD per hour.
    """

    name: str
    region: str
    engine: str | None = None
    notebook: NodeGroup | None = None
    head: NodeGroup | None = None
    workers: tuple[NodeGroup, ...] = ()
    cidrs: tuple[str, ...] = ()
    public: bool = False
    state: SharedState | None = None
    lifetime: Lifetime | None = None
    account: str | None = None
    owner: str | None = None
    root_devices: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    webbrowser: str | None = None
    profile: Mapping[str, Any] = field(default_factory=dict, compare=False)
    profile_name: str = ""
    paused: Mapping[str, int] | None = None
    budget: float | None = None

    def groups(self) -> Iterator[NodeGroup]:
        """Every group, in the order in which `desc` numbers its nodes."""
        if self.notebook:
            yield self.notebook
        if self.head:
            yield self.head
        yield from self.workers

    @property
    def ports(self) -> dict[int, str]:
        """The TCP ports that people reach from outside, with what listens there."""
        ports = {group.machine.ssh_port: "SSH" for group in self.groups()}
        for group in self.groups():
            ports |= group.ports
        return ports

    @property
    def security_group_name(self) -> str:
        """The name of the generated security group."""
        return f"{self.name}-bilbo"

    @property
    def needs_security_group(self) -> bool:
        """Whether any machine uses the generated security group."""
        return any(group.machine.security_group is None for group in self.groups())


@dataclass(frozen=True)
class Target:
    """The AWS that a command works on.

    `endpoint_url` is None for AWS itself. `environment` is what Terraform, boto3 and Packer need
    besides the caller's environment to reach it. `ssh_port` overrides the profile's SSH port;
    `caller_cidrs` replace the caller's address, which otherwise comes from `check_ip_url`.
    """

    region: str
    endpoint_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ssh_port: int | None = None
    caller_cidrs: tuple[str, ...] = ()

    @property
    def check_ip_url(self) -> str:
        """What tells the caller's public address. In China the usual one may not answer."""
        return f"https://checkip.amazonaws.com{'.cn' * self.region.startswith('cn-')}"


@dataclass(frozen=True)
class Node:
    """One running instance and how to reach it. `group` is its `NodeGroup.name`. AWS may take a
    `spot` instance back."""

    role: str
    group: str
    instance_id: str
    public_ip: str
    private_ip: str
    private_dns_name: str
    ec2type: str
    image_id: str
    key_name: str
    ssh_user: str
    ssh_private_key: str
    ssh_port: int = 22
    spot: bool = False


@dataclass(frozen=True)
class Inventory:
    """The nodes in Terraform's outputs, workers sorted by group and id."""

    notebook: Node | None = None
    head: Node | None = None
    workers: tuple[Node, ...] = ()

    def nodes(self) -> Iterator[Node]:
        """Every node, in the order in which `desc` numbers them."""
        if self.notebook:
            yield self.notebook
        if self.head:
            yield self.head
        yield from self.workers


@dataclass(frozen=True)
class Measurement:
    """A host's size: logical CPUs, threads per core, total memory in bytes, and NVIDIA's GPUs as
    CUDA_VISIBLE_DEVICES names them."""

    cpus: int
    threads_per_core: int
    memory: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostResult:
    """One host's result of the SSH stage.

    `stage` is where it stopped, or `ready`: connect, authenticate, lifetime, boot, init, packages,
    measure, versions, start, ready. If not `ok`, there is a `cause`, what to do (`hint`) and the
    tail of the service's `log`. `facts` are what bilbo learned about the host. `lasts` as in
    BilboError.
    """

    node: Node
    stage: str
    ok: bool
    cause: str = ""
    hint: str = ""
    log: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    lasts: bool = False


@dataclass(frozen=True)
class Page:
    """A page at a host's own address, requested on that host. It is ready once it `contains` this
    text.

    A `closed` page must refuse requests without the `headers`. `described` is a pattern for files
    in the cluster's folder in which a running Jupyter says whether it uses TLS, and its base path.
    `earlier` is the page's path in services that an earlier bilbo started.
    """

    host: str
    port: int
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    contains: str = ""
    closed: bool = False
    described: str = ""
    earlier: str = ""


@dataclass(frozen=True)
class Served:
    """How to reach a running JupyterLab: whether with TLS, and its base path."""

    secure: bool = False
    base: str = "/"


@dataclass(frozen=True)
class MembersPage:
    """The page on the head's host that lists the members, in JSON.

    `items` are the keys that lead to the list, `name` is the key of a member's name, `address` the
    key of a value that changes whenever the member restarts.
    """

    page: Page
    items: tuple[str, ...]
    name: str
    address: str


@dataclass(frozen=True)
class Service:
    """What one host runs for the cluster.

    `script` is bash. `files` (name to text, may contain secrets) and `programs` (modules of the
    agent) are beside it on the host. `listens` are the addresses that must be free before a start.
    The service is ready when `page` answers 200 or, if it joins the engine's head, when the head
    lists all `members` by name. `facts` are decisions for this host that belong in the record.
    """

    name: str
    script: str
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    programs: tuple[str, ...] = ()
    listens: tuple[tuple[str, int], ...] = ()
    page: Page | None = None
    members: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HostPlan:
    """What one host needs, and the service that it runs once it is measured.

    `executables` must be on the login shell's PATH. The versions of `packages` are reported, and
    those in `oldest` must not be older (`why_oldest`). `requirements` are lines for pip, installed
    first. `replace` restarts a running service whose script or files have changed; otherwise it
    keeps running. `disk` is the root volume's size in GiB, which its file system is to fill; 0 for
    the AMI's. `lifetime` is the script that has the machine power itself off (`install_script`);
    empty for a cluster that nothing ends. `watches` are the settings of the duties that the host's
    watcher has, as they are when they are sent.
    """

    node: Node
    service_name: str
    service: Callable[[Measurement], Service]
    executables: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    oldest: Mapping[str, str] = field(default_factory=dict)
    why_oldest: Mapping[str, str] = field(default_factory=dict)
    init_cmd: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    replace: bool = False
    disk: int = 0
    lifetime: str = ""
    watches: Mapping[str, Callable[[], Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class StagePlan:
    """The plan of the SSH stage: the head first, then all others at once.

    `head_role` is the head's role, even if there is no head. `roll` is the page on the head's host
    that lists the members. `breaking` are the packages of which every host needs the head's
    version, in addition to its minor version of Python. `patient` workers wait by themselves for a
    head that does not answer yet. `addresses` are those of all machines of the cluster, which
    reach each other without a proxy.
    """

    cluster: str
    head_role: str = HEAD
    head: HostPlan | None = None
    notebook: HostPlan | None = None
    workers: tuple[HostPlan, ...] = ()
    roll: MembersPage | None = None
    breaking: tuple[str, ...] = ()
    patient: bool = False
    addresses: tuple[str, ...] = ()

    def hosts(self) -> Iterator[HostPlan]:
        """Every host, in the order in which they get their connections."""
        if self.head:
            yield self.head
        if self.notebook:
            yield self.notebook
        yield from self.workers
