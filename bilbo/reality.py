"""What of a cluster is as recorded, and what would mend the rest. Pure.

`judged` compares a cluster's record with what AWS, the hosts and the engine's head tell of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bilbo.model import HEADS, WORKER, Inventory, Node
from bilbo.status import (
    ANOTHERS,
    RECLAIMED,
    Ending,
    HostStatus,
    InstanceDifference,
    ServiceStatus,
)

# What mends a machine: nothing has to, only the record has to be corrected, it mends itself, its
# service has to be started or ended and started, AWS has to launch or start it, and somebody has
# to find out why its host does not answer.
NOTHING = ""
CORRECT = "correct"
WAIT = "wait"
START = "start"
RENEW = "renew"
LAUNCH = "launch"
REACH = "reach"
# It runs, and is billed, although its cluster is at rest.
STOP = "stop"

_GONE = {"gone", "terminated", "shutting-down"}

# How many seconds a worker may take to join the head before it counts as lost.
_JOINING_SECONDS = 60.0


@dataclass(frozen=True)
class MachineReality:
    """One machine: its `node` as recorded, what is, and what would `mend` it.

    `service` is what should run on it. `state` is AWS's, `gone`, `reclaimed`, or empty if AWS did
    not say; `public_ip` is AWS's too. `status` is what the host tells, None with `trouble`, which
    says why. `joined` of `members` processes are in the engine's head; None if nobody said, and for
    machines that join none. `wrong` says in words what is not as it should be, empty if nothing.
    """

    node: Node
    service: str
    state: str = ""
    public_ip: str = ""
    status: HostStatus | None = None
    trouble: str = ""
    joined: int | None = None
    members: int = 0
    wrong: tuple[str, ...] = ()
    mend: str = NOTHING

    @property
    def there(self) -> ServiceStatus | None:
        """What has become of the service that should run; None if it was never started."""
        found = self.status.services if self.status else ()
        return next((each for each in found if each.name == self.service), None)

    @property
    def moved(self) -> bool:
        """Whether its public address has changed."""
        return self.state == "running" and self.public_ip != self.node.public_ip


@dataclass(frozen=True)
class Reality:
    """A cluster as it is. `machines` are those of the record, in its order; `others` are instances
    with the cluster's tag that it does not know. `trouble` is why AWS did not say, if it did not.
    """

    machines: tuple[MachineReality, ...] = ()
    others: tuple[InstanceDifference, ...] = ()
    trouble: str = ""

    @property
    def well(self) -> bool:
        """Whether everything is known and as recorded. Other owners' instances do not count."""
        amiss = any(each.mend for each in self.machines)
        return not (self.trouble or amiss or self.unknown)

    @property
    def unknown(self) -> tuple[InstanceDifference, ...]:
        """The cluster's own instances that the record does not know."""
        return tuple(each for each in self.others if each.state != ANOTHERS)

    @property
    def head(self) -> MachineReality | None:
        """The machine of the engine's head."""
        return next((each for each in self.machines if each.node.role in HEADS), None)

    @property
    def head_is_dead(self) -> bool:
        """Whether the engine's head is known not to run, so that it holds nothing any more."""
        return self.head is not None and self.head.mend in (START, LAUNCH)

    def to_mend(self, *how: str) -> tuple[MachineReality, ...]:
        """The machines that one of these would mend; all that are amiss if none is named."""
        return tuple(each for each in self.machines if each.mend and (not how or each.mend in how))

    def differences(self) -> list[InstanceDifference]:
        """How AWS differs from the record."""
        return [*self._differences(), *self.others]

    def _differences(self) -> Iterator[InstanceDifference]:
        for each in self.machines:
            if each.moved:
                yield InstanceDifference(
                    each.node.instance_id, each.node.role, "moved", each.public_ip
                )
            elif each.mend and each.state not in ("", "running"):
                yield InstanceDifference(each.node.instance_id, each.node.role, each.state)


@dataclass(frozen=True)
class Told:
    """What was asked and what was answered, by instance id.

    `services` are the services that should run, `members` how many processes each worker should
    have in the head, as recorded. `instances` are AWS's `(state, public address)`, None if AWS did
    not answer; `hosts` are the hosts' answers, or why there is none. `paused` machines are to be
    stopped, and `ended` ones to be gone.
    """

    services: Mapping[str, str]
    members: Mapping[str, int]
    instances: Mapping[str, tuple[str, str]] | None
    hosts: Mapping[str, HostStatus | str]
    paused: bool = False
    ended: bool = False


@dataclass(frozen=True)
class Rest:
    """How a cluster without a running machine came to rest: all gone (`ended`) or only stopped, by
    themselves or by somebody's command in AWS, and when: ISO 8601, empty if AWS does not say."""

    ended: bool
    by_itself: bool
    at: str = ""


def rest_of(recorded: Inventory, found: Mapping[str, Ending]) -> Rest | None:
    """How a cluster came to rest, whose instances AWS has `found`; None if any of them runs, or is
    about to, if a worker is only stopped, or if notebook and head are neither all stopped nor all
    gone."""
    stay = {node.instance_id for node in (recorded.notebook, recorded.head) if node}
    states = {found[name].state if name in found else "gone" for name in stay}
    workers = {each.state for name, each in found.items() if name not in stay}
    gone = states <= _GONE
    if not stay or not workers <= _GONE or not (gone or states == {"stopped"}):
        return None
    there = [found[name] for name in stay if name in found]
    return Rest(gone, any(each.by_itself for each in there), max((e.at for e in there), default=""))


def judged(
    recorded: Inventory,
    told: Told,
    others: Collection[InstanceDifference] = (),
    trouble: str = "",
) -> Reality:
    """Compares the recorded machines with what was told of them."""
    node = recorded.head
    head = _machine(node, told, None) if node and node.instance_id in told.services else None
    return Reality(
        tuple(
            _machine(node, told, head)
            for node in recorded.nodes()
            if node.instance_id in told.services
        ),
        tuple(others),
        trouble,
    )


def joined(instance_id: str, members: Collection[str]) -> int:
    """How many of the head's members are processes of this instance's worker."""
    return sum(1 for name in members if name == instance_id or _of(name, instance_id))


def absent(recorded: Inventory, expected: Mapping[str, int], members: Collection[str]) -> set[str]:
    """The recorded workers of which not all processes are among the head's members."""
    return {
        node.instance_id
        for node in recorded.workers
        if joined(node.instance_id, members) < max(1, expected.get(node.instance_id, 1))
    }


def _of(name: str, instance_id: str) -> bool:
    return name.startswith(f"{instance_id}-")


def _machine(node: Node, told: Told, head: MachineReality | None) -> MachineReality:
    name = node.instance_id
    answer = told.hosts.get(name, "nobody asked it")
    state, public_ip = "", node.public_ip
    if told.instances is not None:
        state, public_ip = told.instances.get(name, ("gone", ""))
    seen = MachineReality(
        node,
        told.services[name],
        state,
        public_ip,
        status=None if isinstance(answer, str) else answer,
        trouble=answer if isinstance(answer, str) else "",
        joined=_joined(node, head),
        members=max(1, told.members.get(name, 1)) if node.role == WORKER else 0,
    )
    if told.paused or told.ended:
        return replace(seen, **_at_rest(seen, told))
    return _with_verdict(seen, *_verdict(seen, head))


def _at_rest(seen: MachineReality, told: Told) -> dict[str, Any]:
    """What is wrong with a machine of a cluster at rest, and what would mend it."""
    if seen.state in ("pending", "running"):
        return {"mend": STOP, "wrong": (f"is {seen.state}, and is billed",)}
    if seen.state == "gone" and told.paused:
        return {"mend": LAUNCH, "wrong": ("is gone",)}
    if seen.state in ("stopped", "stopping") and told.ended:
        return {"mend": STOP, "wrong": (f"is {seen.state}, and its volumes are billed",)}
    return {}


def _joined(node: Node, head: MachineReality | None) -> int | None:
    if node.role != WORKER or head is None or head.status is None or head.status.members is None:
        return None
    return joined(node.instance_id, head.status.members)


def _with_verdict(seen: MachineReality, mend: str, wrong: str) -> MachineReality:
    lines = [wrong] if wrong else []
    if seen.moved:
        lines.append(f"has another address, {seen.public_ip or 'none in public'}")
    mend = mend or (CORRECT if seen.moved else NOTHING)
    return replace(seen, wrong=tuple(lines), mend=mend)


_ENDS = {"gone": "is gone", RECLAIMED: "is gone: AWS has taken the spot instance back"}


def _verdict(seen: MachineReality, head: MachineReality | None) -> tuple[str, str]:
    """What would mend the machine, and what is wrong with it."""
    if seen.state not in ("", "running"):
        return LAUNCH, _ENDS.get(seen.state, f"is {seen.state}")
    if seen.status is None:
        return REACH, f"does not answer: {seen.trouble}"
    if seen.status.reclaimed:
        return WAIT, "is a spot instance that AWS is about to take back: its worker leaves"
    there = seen.there
    if there is None:
        return START, f"runs no {seen.service}: it was never started"
    if there.restarting:
        return WAIT, f"is starting {seen.service} again: it {there.ending}"
    if not there.running:
        return START, f"runs no {seen.service}: it {there.ending}"
    if there.unsupervised:
        return RENEW, f"runs {seen.service}, but its supervisor was killed: it must start anew"
    if seen.node.role in HEADS and seen.status.members is None:
        return WAIT, f"runs {seen.service}, but it does not answer"
    if seen.node.role == WORKER and head:
        return _verdict_on_worker(seen, there, head)
    return NOTHING, ""


def _verdict_on_worker(
    seen: MachineReality, there: ServiceStatus, head: MachineReality
) -> tuple[str, str]:
    if head.mend in (START, LAUNCH):
        return RENEW, f"runs {seen.service}, but there is no {head.node.role}"
    if seen.joined is None or seen.joined >= seen.members:
        return NOTHING, ""
    lost = seen.members - seen.joined
    missing = f"{lost} of its {seen.members} process{'es' * (seen.members > 1)}"
    have = "has" if lost == 1 else "have"
    # Started before the head's present process, it may know only the one before.
    of_now = there.age is not None and there.age < _age_of(head)
    young = of_now and (there.age or 0.0) < _JOINING_SECONDS
    # A nanny may be starting the process that is missing, and the others may hold results.
    may_come = young or seen.joined > 0
    lacks = f"runs {seen.service}, but {missing} {have} not joined the {head.node.role}"
    return (WAIT if may_come else RENEW), lacks


def _age_of(head: MachineReality) -> float:
    found = head.there
    return found.age if found and found.age is not None else float("inf")
