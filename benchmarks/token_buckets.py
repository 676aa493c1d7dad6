"""How long until 1,000 and 10,000 workers run on AWS, by its published throttling? (Simulated.)

AWS throttles each API with a token bucket per account and region: a call takes a token, and a
refused call is retried. The figures are from AWS's documentation ("Request throttling for the
Amazon EC2 API"); for figures that AWS does not publish, the assumption is beside them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench import Line, Plot, Result, Size, main

# Published: bucket size and refill per second.
RUN_INSTANCES = (5.0, 2.0)  # mutating, the RunInstances request bucket
RUN_RESOURCES = (1000.0, 2.0)  # instances, the RunInstances resource bucket
DESCRIBE = (100.0, 20.0)  # each non-mutating action
MUTATE = (50.0, 5.0)  # each mutating action, such as CreateTags

# The calls per action for one aws_instance besides RunInstances, as counted by `api_calls`. Each
# action has its own bucket.
REFRESH_READS = {
    "DescribeInstances": 1,
    "DescribeInstanceTypes": 1,
    "DescribeTags": 1,
    "DescribeVpcs": 1,
    "DescribeInstanceAttribute": 4,
    "DescribeVolumes": 1,
}
CREATE_READS = {**REFRESH_READS, "DescribeImages": 1}

# Assumed: seconds of one instance from its launch to `running`, and to SSH.
RUNNING_SECONDS = 25.0
BOOT_SECONDS = 45.0
# Assumed: an Auto Scaling group launches in batches, as fast as AWS says of large groups
# ("hundreds of instances a minute").
GROUP_FIRST_SECONDS = 15.0
GROUP_PER_SECOND = 5.0
# Measured by `ssh_stage`: client CPU per host of the SSH stage, including the agent.
SSH_SECONDS = 0.02
# Terraform's default; each resource waits for its own instance.
PARALLELISM = 10
# The provider first checks a pending instance after 10 s, then every few seconds.
POLL_SECONDS = 5.0
LATENCY = 0.1


@dataclass
class Bucket:
    """Tokens that refill over time. `take` returns when a call can go."""

    size: float
    refill: float
    tokens: float = field(init=False)
    at: float = 0.0
    calls: int = 0

    def __post_init__(self) -> None:
        self.tokens = self.size

    def take(self, now: float, count: float = 1.0) -> float:
        """The time at which `count` tokens are available, after waiting in line for them."""
        self.calls += 1
        now = max(now, self.at)
        self.tokens = min(self.size, self.tokens + (now - self.at) * self.refill)
        self.at = now
        if self.tokens < count:
            wait = (count - self.tokens) / self.refill
            self.at, self.tokens = now + wait, 0.0
            return self.at
        self.tokens -= count
        return now


@dataclass
class Account:
    """The buckets of an account in a region."""

    run: Bucket = field(default_factory=lambda: Bucket(*RUN_INSTANCES))
    launches: Bucket = field(default_factory=lambda: Bucket(*RUN_RESOURCES))
    reads: dict[str, Bucket] = field(
        default_factory=lambda: {name: Bucket(*DESCRIBE) for name in CREATE_READS}
    )
    writes: Bucket = field(default_factory=lambda: Bucket(*MUTATE))

    @property
    def calls(self) -> int:
        """All calls so far."""
        reads = sum(bucket.calls for bucket in self.reads.values())
        return self.run.calls + reads + self.writes.calls


def one_instance(account: Account, began: float) -> Iterator[float]:
    """The times of one aws_instance's calls; the last is its end."""
    now = account.run.take(began)
    now = account.launches.take(now) + LATENCY
    yield now
    running = now + RUNNING_SECONDS
    now += 10.0
    while now < running:
        now = account.reads["DescribeInstances"].take(now) + LATENCY + POLL_SECONDS
        yield now
    now = account.writes.take(now) + LATENCY
    yield now
    for action, times in CREATE_READS.items():
        for _ in range(times):
            now = account.reads[action].take(now) + LATENCY
            yield now


def plain_instances(count: int, parallelism: int = PARALLELISM) -> tuple[float, int, float]:
    """Seconds until all run, calls, and seconds of a later refresh; one aws_instance per worker."""
    account = Account()
    waiting = count
    events: list[tuple[float, int]] = []
    working: dict[int, Iterator[float]] = {}
    end = 0.0

    def begin(at: float) -> None:
        nonlocal waiting
        number = waiting
        waiting -= 1
        working[number] = one_instance(account, at)
        heapq.heappush(events, (next(working[number]), number))

    while waiting and len(working) < parallelism:
        begin(0.0)
    while events:
        now, number = heapq.heappop(events)
        end = max(end, now)
        following = next(working[number], None)
        if following is not None:
            heapq.heappush(events, (following, number))
            continue
        del working[number]
        if waiting:
            begin(now)
    return end, account.calls, refresh(count)


def refresh(count: int) -> float:
    """Seconds of a plan's reads for `count` aws_instances: those of the slowest bucket, or the
    latency if nothing is throttled."""
    reads = {name: Bucket(*DESCRIBE) for name in REFRESH_READS}
    for _ in range(count):
        for action, times in REFRESH_READS.items():
            for _ in range(times):
                reads[action].take(0.0)
    throttled = max(bucket.at for bucket in reads.values())
    return max(throttled, count * sum(REFRESH_READS.values()) * LATENCY / PARALLELISM)


def group(count: int, groups: int = 1) -> float:
    """Seconds until all `count` workers in `groups` groups run."""
    launching = max(count / groups / GROUP_PER_SECOND, 0.0)
    return GROUP_FIRST_SECONDS + launching + RUNNING_SECONDS


def ssh(count: int) -> float:
    """Seconds of the SSH stage on one client core, after the last host has booted."""
    return count * SSH_SECONDS


def measure(size: Size) -> Result:
    """Both designs at several sizes."""
    counts = (2, 20, 100) if size.smallest else (2, 20, 100, 200, 1000, 10_000)
    table: list[list[object]] = [
        [
            *("workers", "one group: all run", "and ready", "plain aws_instance: all run"),
            *("with -parallelism=100", "calls", "one later plan"),
        ]
    ]
    ours, plain, calls = [], [], []
    for count in counts:
        groups = -(-count // 5000)  # AWS: a group's instances share a subnet's addresses
        launched = group(count, groups)
        ready = launched + BOOT_SECONDS - RUNNING_SECONDS + ssh(count)
        alone, made, later = plain_instances(count)
        many, _, _ = plain_instances(count, 100)
        times = (clock(launched), clock(ready), clock(alone), clock(many))
        table.append([f"{count:,}", *times, f"{made:,}", clock(later)])
        ours.append((float(count), launched))
        plain.append((float(count), alone))
        calls.append((float(count), float(made)))
    return Result(
        "How long until 1,000 and 10,000 workers run on AWS, by its published throttling?",
        table,
        notes=[
            "Simulated from AWS's published token buckets; see docs/scale.md for the sources and "
            "the assumptions. Nothing was measured on AWS.",
        ],
        plots=[
            Plot("time-to-workers", "Time until all workers run (simulated)", "workers", "seconds",
                 [Line("one group", ours), Line("plain aws_instance", plain)]),
        ],
    )  # fmt: skip


def clock(seconds: float) -> str:
    """`45 s`, `12 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main(measure)
