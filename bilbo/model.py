"""The frozen records that bilbo's stages hand to each other. They have no behaviour
beyond reading themselves; nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

NOTEBOOK = "notebook"
SCHEDULER = "scheduler"
HEAD = "head"
WORKER = "worker"

# The roles of an engine's one machine that coordinates: Dask's own word for it, and any other's.
HEADS = (SCHEDULER, HEAD)

# How far a host is in the SSH stage, in this order, unless it has failed.
CONNECTED = "connected"
STARTED = "started"
READY = "ready"
MILESTONES = (CONNECTED, STARTED, READY)
FAILED = "failed"

# The tags by which everything of a cluster is found, whatever its Terraform state says.
CLUSTER_TAG = "bilbo:cluster"
ROLE_TAG = "bilbo:role"
GROUP_TAG = "bilbo:group"
# Whose it is, where two clusters have one name.
OWNER_TAG = "bilbo:owner"

# Set by the Packer template: an image's name in profiles, and what is in it.
IMAGE_TAG = "bilbo:image"

NOTEBOOK_PORT = 8888

# What of an instance is one person's own, or may hold a secret: it is in no HCL, state or output,
# and is never taken from one.
ONES_OWN = ("ssh_private_key", "init_cmd", "packages")


@dataclass(frozen=True)
class Machine:
    """What an `instance` of the profile says, after the common one is merged into a role's.

    `ami` is empty while no more is known than `image`, the name that it was built under.
    `vol_size` is in GiB; None leaves the AMI's own size. `security_group` None means
    the generated one, `subnet` None the default VPC's. `ssh_private_key` is the path as
    written in the profile (`~` not yet expanded). `packages` are a pip requirements file's lines.
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


@dataclass(frozen=True)
class NodeGroup:
    """`count` equal machines of one role.

    `name` is the group's name in the profile, in Terraform's module and in the record;
    it equals the role where there is only one group of it. `instance_name` is the EC2
    `Name` tag. `resources` is how much of what each worker offers to tasks that ask for it by
    name; `settings` are the engine's other keys of the profile, such as `nproc`. `ports` are
    those that people reach beside SSH's, and what listens there.
    """

    role: str
    name: str
    instance_name: str
    machine: Machine
    count: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    ports: Mapping[int, str] = field(default_factory=dict)

    @property
    def offers(self) -> str:
        """The resources in words, as Dask takes them: `GPU=1 MEM=2`."""
        return " ".join(f"{name}={self.resources[name]}" for name in sorted(self.resources))


def worker_part(document: dict[str, Any], engine: str, group: str) -> dict[str, Any]:
    """The part of a profile's `document` that asks for a worker group, made where it is only
    implied. Raises KeyError where there is no group of that name."""
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
    """Where a team keeps the Terraform state of its clusters: an S3 bucket, locked natively."""

    bucket: str
    region: str
    prefix: str = "bilbo"

    def key(self, cluster: str) -> str:
        """The object that holds a cluster's state."""
        return f"{self.prefix}/{cluster}.tfstate"

    def address(self) -> str:
        """As `attach` takes it."""
        return f"s3://{self.bucket}/{self.prefix}"

    def backend(self, cluster: str) -> dict[str, str]:
        """What Terraform's backend is told of the place."""
        return {"bucket": self.bucket, "key": self.key(cluster), "region": self.region}


@dataclass(frozen=True)
class ClusterSpec:
    """A profile, found good and complete: all that is needed to make one cluster.

    `engine` is the key of the profile that asked for it (`dask`), or None. `head` is the
    engine's single coordinating machine (Dask's scheduler, Ray's head). `cidrs` are the
    address ranges that the generated security group admits; empty means the caller's own, still
    to be asked. `public` allows ports open to the world. `state` None keeps Terraform's state on
    this machine. `account` is the AWS account that it must live in, None while that is not known;
    `owner` the short hash that its resources carry, None for a cluster that was made before there
    were any. `profile` is the profile as JSON, after overrides; `profile_name` the file's name.
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
    account: str | None = None
    owner: str | None = None
    description: str = ""
    webbrowser: str | None = None
    profile: Mapping[str, Any] = field(default_factory=dict, compare=False)
    profile_name: str = ""

    def groups(self) -> Iterator[NodeGroup]:
        """Every group, in the order in which `desc` numbers its nodes."""
        if self.notebook:
            yield self.notebook
        if self.head:
            yield self.head
        yield from self.workers

    @property
    def ports(self) -> dict[int, str]:
        """TCP ports that people reach from outside, and what listens there."""
        ports = {group.machine.ssh_port: "SSH" for group in self.groups()}
        for group in self.groups():
            ports |= group.ports
        return ports

    @property
    def needs_security_group(self) -> bool:
        """Whether any machine relies on the generated security group."""
        return any(group.machine.security_group is None for group in self.groups())


@dataclass(frozen=True)
class Target:
    """The AWS that a cluster lives in.

    `endpoint_url` is None for AWS itself. `environment` is what Terraform, boto3 and
    Packer need beside the caller's own environment to reach it. `ssh_port` and
    `caller_cidrs`, where given, stand in for the profile's SSH port and for asking AWS
    for the caller's address, which is asked of `check_ip_url`.
    """

    region: str
    endpoint_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ssh_port: int | None = None
    caller_cidrs: tuple[str, ...] = ()
    check_ip_url: str = "https://checkip.amazonaws.com"


@dataclass(frozen=True)
class Node:
    """One running instance and how to reach it. `group` is its `NodeGroup.name`."""

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


@dataclass(frozen=True)
class Inventory:
    """The instances that Terraform's outputs name, workers sorted by group and id."""

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
    """What a host says of itself: logical CPUs, threads per core, total memory in bytes."""

    cpus: int
    threads_per_core: int
    memory: int


@dataclass(frozen=True)
class HostResult:
    """How one host fared in the SSH stage.

    `stage` is where it stopped, or `ready`: connect, authenticate, init, packages, measure,
    versions, start, ready. `ok` False comes with the `cause`, what to do (`hint`) and the tail
    of the service's `log`. `facts` is what was learned of the host.
    """

    node: Node
    stage: str
    ok: bool
    cause: str = ""
    hint: str = ""
    log: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A page that a host's own address serves, asked for on that host itself. It does not count
    as served before it `contains` this text.

    A `closed` one must refuse who comes without the `headers`. `described` is a pattern of files in
    the cluster's folder by which a running Jupyter tells whether it speaks TLS, and below which
    path. `earlier` is the path of the same in a service that an earlier bilbo has started.
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
    """How a running JupyterLab is reached, as it tells: with TLS or not, below which path."""

    secure: bool = False
    base: str = "/"


@dataclass(frozen=True)
class MembersPage:
    """The page of the head's host that names who has joined, in JSON.

    `items` are the keys that lead to its list of members, `name` is the key of a member's name,
    `address` that of what changes whenever it starts anew.
    """

    page: Page
    items: tuple[str, ...]
    name: str
    address: str


@dataclass(frozen=True)
class Service:
    """What one host runs for the cluster.

    `script` is bash, `files` (name to text, secrets among them) lie beside it on the host, and so
    do `programs`, modules of the agent's.
    `listens` are the addresses that must be free before a start. It is ready when `page` answers
    200 or, for one that joins the engine's head, when the head knows all `members` by name.
    `facts` are what was decided for this host and is worth a record.
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
    """What one host must have, and the service it gets once it is measured.

    `executables` must be on the login shell's PATH; of `packages` the versions are asked, and
    those in `oldest` must not be older (`why_oldest`). `requirements` are lines for pip, installed
    before that.
    `replace` restarts a running service whose script or files are no longer what is asked for;
    otherwise it is left in peace.
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


@dataclass(frozen=True)
class StagePlan:
    """The SSH stage before it begins: the head first, then all others at once.

    `head_role` says what the head is, also where there is none. `roll` is where the head's host
    names who has joined. `breaking` are the packages of which every host must have the head's
    version, beside the head's minor version of Python. `patient` workers wait by themselves for a
    head that does not answer yet.
    """

    cluster: str
    head_role: str = HEAD
    head: HostPlan | None = None
    notebook: HostPlan | None = None
    workers: tuple[HostPlan, ...] = ()
    roll: MembersPage | None = None
    breaking: tuple[str, ...] = ()
    patient: bool = False

    def hosts(self) -> Iterator[HostPlan]:
        """Every host, in the order in which they get their connections."""
        if self.head:
            yield self.head
        if self.notebook:
            yield self.notebook
        yield from self.workers


ANOTHERS = "foreign"


@dataclass(frozen=True)
class InstanceDifference:
    """One instance of which AWS says something else than the record: `state` is `gone`,
    `stopped` (and the like), `moved` to another address, `unknown` to the record, or `foreign`: it
    carries the cluster's tag, and is another's.
    """

    instance_id: str
    role: str
    state: str
    public_ip: str = ""
