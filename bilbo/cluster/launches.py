"""When AWS may launch workers by itself: while bilbo is at work on a change that needs it.

A worker that AWS launches when nobody looks is billed and computes nothing. So `ReplaceUnhealthy`
is suspended as soon as a group exists, and `Launch` whenever it has its size, or no bilbo works on
it. Terraform leaves both alone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterator, Sequence

from bilbo import addresses, aws
from bilbo.aws import LAUNCH, REBALANCE, REPLACE, WorkerGroup
from bilbo.cluster.work import Work
from bilbo.errors import AwsError
from bilbo.model import ClusterSpec
from bilbo.plans import Shortage
from bilbo.terraform import PlannedChange, hint_for

# How often bilbo looks at the groups while Terraform works: so long may AWS replace workers of a
# new group. Terraform's provider suspends only once it has all of them, and never if one fails.
LOOK_SECONDS = 2.0
# How long instances may take to start, as the module's wait_for_capacity_timeout.
_START_SECONDS = 300.0
_POLL_SECONDS = 1.0
# What AWS never does by itself: there is one zone, and a replaced worker computes nothing.
_NEVER = (REPLACE, REBALANCE)


def groups_now(spec: ClusterSpec, work: Work) -> list[WorkerGroup]:
    """Returns the cluster's groups with the states of their instances. Two calls. Raises
    AwsError."""
    return aws.worker_groups(work.target, _counts(spec), spec.owner, spec.name)


def close(spec: ClusterSpec, work: Work, groups: Collection[WorkerGroup] | None = None) -> None:
    """Ends what AWS does by itself in groups that a killed bilbo left open; asks AWS for the
    `groups` unless they are given. Raises AwsError."""
    if groups is None:
        groups = aws.worker_groups(work.target, _counts(spec), spec.owner)
    for group in groups:
        if LAUNCH not in group.suspended:
            work.progress.say(f"AWS launches no more workers in {group.name} by itself.")
    _close(work, groups)


def closed_groups(spec: ClusterSpec, work: Work) -> frozenset[str]:
    """Returns the names in the profile of the groups in which AWS launches and replaces nothing by
    itself. A call. Raises AwsError."""
    found = aws.worker_groups(work.target, _counts(spec), spec.owner)
    closed = {each.name for each in found if {LAUNCH, REPLACE} <= {*each.suspended}}
    return frozenset(group.name for group in spec.workers if group.instance_name in closed)


def too_few(spec: ClusterSpec, groups: Collection[WorkerGroup]) -> list[str]:
    """Returns the names of the groups with fewer running instances than specified."""
    counts = _counts(spec)
    return [group.name for group in groups if group.running < counts[group.name]]


def shortages(
    spec: ClusterSpec, work: Work, changes: Collection[PlannedChange]
) -> tuple[Shortage, ...]:
    """Returns the groups with fewer running instances than their size, as far as it remains their
    size under these `changes`. Two calls. Raises AwsError."""
    anew = groups_anew(spec, changes)
    if len(anew) == len(spec.workers):
        return ()
    found = []
    for each in groups_now(spec, work):
        (group,) = [one for one in spec.workers if one.instance_name == each.name]
        size = min(each.size, group.count)
        if each.running < size and each.name not in anew:
            asleep = sum(member.stopped for member in each.members)
            found.append(Shortage(group.name, size, each.running, min(asleep, size - each.running)))
    return tuple(found)


def groups_anew(spec: ClusterSpec, changes: Collection[PlannedChange]) -> list[str]:
    """Returns the names of the groups that Terraform creates or replaces: none of these may launch
    before it has."""
    anew = [each.address for each in changes if each.action != "update"]
    return [
        group.instance_name
        for group in spec.workers
        if addresses.rendered("aws_autoscaling_group", group.role, group.name) in anew
    ]


def tidy(spec: ClusterSpec, work: Work) -> list[str]:
    """Makes the groups fit to grow and to shrink, and returns those that must launch.

    Waits for instances that are starting, which can be neither protected nor chosen to leave.
    Stopped ones are started, those that run count as healthy, and ended ones leave the group, which
    keeps its size. Raises AwsError.
    """
    close(spec, work)
    if not settle(spec, work):
        raise AwsError(
            f"instances of cluster {spec.name!r} are still starting; nothing was changed",
            hint="Run the same command again in a minute.",
        )
    for group in groups_now(spec, work):
        asleep = [each.id for each in group.members if each.stopped]
        if asleep:
            work.progress.say(f"Start stopped workers: {', '.join(asleep)}")
            aws.start_instances(work.target, asleep)
        ended = [each.id for each in group.members if each.ended]
        if ended:
            work.progress.say(f"Ended workers leave their group: {', '.join(ended)}")
            aws.take_out(work.target, ended)
        sick = [each.id for each in group.members if not each.healthy and each.id not in ended]
        aws.set_healthy(work.target, {*asleep, *sick})
    return too_few(spec, groups_now(spec, work))


@contextlib.contextmanager
def launching(spec: ClusterSpec, work: Work, opened: Collection[str] = ()) -> Iterator[None]:
    """Within it AWS launches what is missing in the groups `opened`, and in those that Terraform
    creates. Afterwards it launches nothing, however it ends. Raises AwsError for `opened` alone."""
    if not spec.workers:
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(spec, work, ended), daemon=True)
    try:
        for name in opened:
            aws.resume_launches(work.target, name)
        watcher.start()
        yield
    finally:
        ended.set()
        if watcher.is_alive():
            watcher.join(timeout=60)
        try:
            found = aws.worker_groups(work.target, _counts(spec), spec.owner)
            _close(work, found)
        except AwsError as error:
            work.progress.say(
                f"{error}\nAWS may launch workers that are missing until bilbo works on this "
                "cluster again."
            )


def settle(spec: ClusterSpec, work: Work) -> bool:
    """Waits until no instance of a group is starting, and returns whether that is so. Raises
    AwsError."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        groups = aws.worker_groups(work.target, _counts(spec), spec.owner)
        coming = [group.name for group in groups if any(each.pending for each in group.members)]
        coming += [group.name for group in groups if _underway(work, group)]
        if not coming or time.monotonic() > deadline:
            return not coming
        work.progress.status("Waiting for workers that AWS is starting")
        time.sleep(_POLL_SECONDS)


def await_workers(spec: ClusterSpec, work: Work, known: Collection[str]) -> AwsError | None:
    """Waits until each group has its workers; returns why not, if AWS gives up or takes too long.

    `known` are earlier activities. Terraform waits by itself only for a group whose size it
    changes. Raises AwsError.
    """
    deadline = time.monotonic() + _START_SECONDS
    counts = _counts(spec)
    while True:
        groups = aws.worker_groups(work.target, counts, spec.owner)
        short = [group for group in groups if group.in_service < counts[group.name]]
        if not short:
            return None
        failed = [
            f"{group.name}: {each.get('StatusMessage', 'failed')}"
            for group in short
            for each in aws.activities(work.target, group.name)
            if each["ActivityId"] not in known and each["StatusCode"] == "Failed"
        ]
        if failed or time.monotonic() > deadline:
            late = [f"{group.name}: {group.in_service} in service" for group in short]
            return AwsError(
                f"AWS could not start all workers of cluster {spec.name!r}",
                details=tuple(dict.fromkeys(failed)) or tuple(late),
                hint=hint_for("\n".join(failed)),
            )
        work.progress.status("Waiting for workers that AWS is starting")
        time.sleep(_POLL_SECONDS)


def activities_so_far(work: Work, groups: Collection[str]) -> set[str]:
    """Returns the ids of what AWS has done in these groups. Raises AwsError."""
    return {each["ActivityId"] for name in groups for each in aws.activities(work.target, name)}


# -- steps ---------------------------------------------------------------------------------


def _counts(spec: ClusterSpec) -> dict[str, int]:
    return {group.instance_name: group.count for group in spec.workers}


def _underway(work: Work, group: WorkerGroup) -> bool:
    """Whether AWS has begun a launch that has no instance yet."""
    if LAUNCH not in group.suspended:
        return False  # it may try for ever
    done = ("Successful", "Failed", "Cancelled")
    return any(each["StatusCode"] not in done for each in aws.activities(work.target, group.name))


def _watch(spec: ClusterSpec, work: Work, ended: threading.Event) -> None:
    """Suspends what AWS need not do, as soon as it need not."""
    counts = _counts(spec)
    while not ended.wait(LOOK_SECONDS):
        with contextlib.suppress(AwsError):  # it looks again; the end is told
            for group in aws.worker_groups(work.target, counts, spec.owner):
                full = len(group.members) >= counts[group.name]
                _suspend(work, group, [*_NEVER, LAUNCH] if full else _NEVER)


def _close(work: Work, groups: Collection[WorkerGroup]) -> None:
    for group in groups:
        _suspend(work, group, [*_NEVER, LAUNCH])


def _suspend(work: Work, group: WorkerGroup, processes: Sequence[str]) -> None:
    if more := [each for each in processes if each not in group.suspended]:
        aws.suspend(work.target, group.name, more)
