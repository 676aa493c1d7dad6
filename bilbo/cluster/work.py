"""What every operation on a cluster needs, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bilbo import aws
from bilbo.cluster.whose import (
    Own,
    account_in,
    ids,
    kept_in,
    new_owner,
    owner_in,
    planned_owner,
    stored,
)
from bilbo.engines import ENGINES
from bilbo.errors import AwsError, Interrupted, RecordError
from bilbo.model import HEADS, ClusterSpec, Machine, NodeGroup, Target
from bilbo.profile import expand_key_path
from bilbo.record import Record, Store
from bilbo.terraform import Terraform

if TYPE_CHECKING:
    from bilbo.remote import Remote


class Progress(Protocol):
    """Where an operation tells what it does. Nothing that it prints is a result."""

    def say(self, text: str) -> None:
        """A stage begins, or something worth a line happened."""

    def terraform(self, event: Mapping[str, Any]) -> None:
        """Terraform wrote a line of its JSON stream."""

    def status(self, text: str) -> None:
        """What goes on now, for whoever waits."""

    def hosts(self, count: int) -> None:
        """The SSH stage begins, with so many hosts."""

    def host(
        self, instance_id: str, role: str, stage: str, message: str, milestone: str = ""
    ) -> None:
        """A host reached a stage, and perhaps one of `model.MILESTONES` or FAILED with it."""

    def confirm(self, question: str) -> bool:
        """Whether a person agrees. Raises BilboError where nobody can be asked."""


@dataclass(frozen=True)
class Work:
    """Where records are kept, which AWS is meant, and who is told.

    `timeout` is every stage's deadline for one host, in seconds; None leaves `remote.Deadlines`.
    """

    store: Store
    target: Target
    progress: Progress
    timeout: float | None = None

    @cached_property
    def account(self) -> str | None:
        """The account that the credentials are of, asked once; None where AWS does not tell."""
        return aws.account(self.target)

    def terraform(self, name: str, folder: Path | None = None) -> Terraform:
        """Terraform in the folder of one cluster, or in another `folder` of the same form."""
        # Names of buckets cannot be put before an endpoint's address.
        path_style = {"use_path_style": "true"} if self.target.endpoint_url else {}
        return Terraform(
            folder or self.store.folder(name),
            self.target.environment,
            self.store.home,
            path_style,
        )


def settle(
    spec: ClusterSpec,
    work: Work,
    before: Record | None,
    my_ip: bool,
    *,
    newest: bool = False,
    amis: Mapping[str, str] | None = None,
) -> ClusterSpec:
    """The specification with what depends on the target and on who asks filled in.

    The addresses admitted stay those of the record until `my_ip` asks for them again, and the
    AMIs that images stand for those of the running machines until the `newest` are asked for;
    `amis`, by group, are those of a reviewed plan.
    Raises AwsError where an image is not to be found.
    """
    spec = with_ssh_port(spec, work.target.ssh_port)
    if amis is None:
        nodes = before.inventory.nodes() if before and not newest else ()
        amis = {node.group: node.image_id for node in nodes}
    spec = _with_images(spec, work, amis)
    if spec.cidrs or not spec.needs_security_group:
        return spec
    remembered = before.cidrs if before and not my_ip else ()
    cidrs = work.target.caller_cidrs or remembered or (aws.caller_cidr(work.target.check_ip_url),)
    return replace(spec, cidrs=cidrs)


def with_ssh_port(spec: ClusterSpec, port: int | None) -> ClusterSpec:
    """The specification with the SSH port of the target, where that says one."""
    if port is None:
        return spec
    return _with_machines(spec, lambda group: replace(group.machine, ssh_port=port))


def _with_images(spec: ClusterSpec, work: Work, running: Mapping[str, str]) -> ClusterSpec:
    """Puts an AMI where only an image is named: that of the group in `running`, else the newest
    in the region."""
    open_ones = [each for each in spec.groups() if each.machine.image and not each.machine.ami]
    names = {each.machine.image for each in open_ones if each.name not in running}
    found = aws.newest_images(work.target, [name for name in names if name]) if names else {}

    def machine(group: NodeGroup) -> Machine:
        if group not in open_ones:
            return group.machine
        ami = running.get(group.name) or found[group.machine.image or ""]
        return replace(group.machine, ami=ami)

    return _with_machines(spec, machine)


def _with_machines(spec: ClusterSpec, machine: Callable[[NodeGroup], Machine]) -> ClusterSpec:
    def changed(group: NodeGroup) -> NodeGroup:
        return replace(group, machine=machine(group))

    return replace(
        spec,
        notebook=changed(spec.notebook) if spec.notebook else None,
        head=changed(spec.head) if spec.head else None,
        workers=tuple(changed(group) for group in spec.workers),
    )


def same_place(record: Record | None, work: Work) -> None:
    """Raises RecordError when the cluster lives in another region or AWS than is asked for."""
    if record is None:
        return
    there = (record.region, record.endpoint_url)
    if there != (work.target.region, work.target.endpoint_url):
        place = record.region + (f" at {record.endpoint_url}" if record.endpoint_url else " on AWS")
        raise RecordError(
            f"cluster {record.name!r} lives in {place}",
            hint=f"Choose another name with -n, or first: bilbo destroy {record.name}",
        )


def same_account(record: Record, work: Work) -> str | None:
    """The account that AWS says the credentials are of, None where it does not tell.

    Raises RecordError where the cluster lives in another: AWS would show nothing of it, and
    whoever asked would believe that nothing is left.
    """
    _lives_in(record.account or _account_of_before(record, work), record.name, work)
    return work.account


def _lives_in(there: str | None, name: str, work: Work) -> None:
    here = work.account
    if there and here and there != here:
        raise RecordError(
            f"cluster {name!r} lives in the AWS account {there}, and these credentials are of "
            f"{here}",
            hint="Use that account's credentials (AWS_PROFILE), or choose another name with -n.",
        )


def _account_of_before(record: Record, work: Work) -> str | None:
    """What the state of a record tells that was written before records told the account."""
    terraform = work.terraform(record.name)
    return account_in(stored(work.target, terraform, record.name, kept_in(terraform)))


def right_account(spec: ClusterSpec, before: Record | None, work: Work) -> str | None:
    """The account that the cluster lives, or will live in; None where nobody tells.

    Raises RecordError where it lives in another than the credentials are of, AwsError where the
    profile means another.
    """
    here = same_account(before, work) if before else work.account
    if spec.account and here and spec.account != here:
        raise AwsError(
            f"the profile is for the AWS account {spec.account}, and these credentials are of "
            f"{here}",
            hint="Use that account's credentials (AWS_PROFILE), or change the profile's `account`.",
        )
    return here or spec.account or (before.account if before else None)


def owned(
    spec: ClusterSpec,
    work: Work,
    before: Record | None,
    state: Mapping[str, Any],
    *,
    planned: str | None = None,
) -> ClusterSpec:
    """The specification with the account and the owner filled in.

    The owner of a cluster that there is, in its `state` or as the record `before` has it, never
    changes: one from before there were owners goes on without, for a tag more in a launch template
    would replace every worker. A new one gets that of the reviewed plan (`planned`), or of one that
    was planned here. Raises what `right_account` does, for the account that the state tells too.
    """
    _lives_in(account_in(state), spec.name, work)
    owner = owner_in(state) or (before.owner if before else None)
    if owner is None and before is None and not state.get("resources"):
        owner = planned or planned_owner(work.terraform(spec.name)) or new_owner()
    return replace(spec, account=right_account(spec, before, work), owner=owner)


def own_of(record: Record, work: Work, also: Collection[str] = ()) -> Own:
    """What is the cluster's own at present: by its state, by its owner, and by what a person names
    in `also`. Raises AwsError."""
    terraform = work.terraform(record.name)
    state = stored(work.target, terraform, record.name, kept_in(terraform))
    return Own(owner_in(state) or record.owner, ids(state), frozenset(also))


def finish_earlier(terraform: Terraform, work: Work) -> None:
    """Waits for the Terraform that a killed bilbo left running: its outcome is in the state.

    Raises Interrupted when Ctrl-C is pressed while it waits.
    """
    outcome = terraform.resume(work.progress.terraform)
    if outcome is None:
        return
    work.progress.say("The Terraform of an earlier bilbo has ended; going on from its state.")
    if outcome.interrupted:
        raise KeyboardInterrupt


@contextmanager
def interruptible(name: str) -> Iterator[None]:
    """Turns Ctrl-C between Terraform's runs into an error that says how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise interrupted(name) from error


def interrupted(name: str) -> Interrupted:
    """What to say after Ctrl-C in the middle of creating a cluster."""
    return Interrupted(
        f"interrupted; what exists of cluster {name!r} is in its Terraform state",
        hint=f"Go on with the same `bilbo create`, or remove it: bilbo destroy {name}",
    )


def reach(work: Work, name: str, engine: str | None = None) -> Remote:
    """How the hosts of a cluster are reached: keys, host keys, deadlines, and who is told.

    With an `engine` it is told when its dashboard is waited for.
    """
    from bilbo.remote import Deadlines, HostEvent, KnownHosts, Remote

    waiting: list[bool] = []

    def tell(event: HostEvent) -> None:
        if engine and event.node.role in HEADS and event.stage == "ready" and not waiting:
            waiting.append(True)
            work.progress.say(f"Waiting for {ENGINES[engine].title} dashboard ready.")
        node = event.node
        work.progress.host(node.instance_id, node.role, event.stage, event.message, event.milestone)

    return Remote(
        known_hosts=KnownHosts(work.store.folder(name) / "known_hosts"),
        deadlines=Deadlines() if work.timeout is None else Deadlines.all(work.timeout),
        on_event=tell,
        key_path=lambda node: expand_key_path(node.ssh_private_key, work.store.home),
    )
