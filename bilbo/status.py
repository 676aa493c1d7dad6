"""What AWS and hosts tell of machines and services, as frozen records. Nothing here does I/O."""

from __future__ import annotations

from dataclasses import dataclass

ANOTHERS = "foreign"
RECLAIMED = "reclaimed"


@dataclass(frozen=True)
class Ending:
    """An instance's `state` in AWS, whether it came to it `by_itself`, as by `poweroff`, and when:
    ISO 8601, empty where AWS does not say."""

    state: str
    by_itself: bool = False
    at: str = ""


@dataclass(frozen=True)
class InstanceDifference:
    """One instance that differs between AWS and the record: `state` is `gone`, `stopped` (or
    similar), `reclaimed` by AWS (a spot instance), `moved` to another address, `unknown` to the
    record, or `foreign`: it carries the cluster's tag but belongs to another cluster.
    """

    instance_id: str
    role: str
    state: str
    public_ip: str = ""


@dataclass(frozen=True)
class ServiceStatus:
    """What has become of a service, as its host tells.

    `age` is how many seconds ago it was started or, if it does not run, ended; None if nobody saw
    it. `rebooted`: its host was, since; `restarting`: its supervisor starts it again, as it has
    done `restarts` times; `unsupervised`: it runs without one. `log` is the end of its log.
    """

    name: str
    running: bool
    code: int | None = None
    age: float | None = None
    rebooted: bool = False
    restarting: bool = False
    restarts: int = 0
    unsupervised: bool = False
    log: tuple[str, ...] = ()

    @property
    def ending(self) -> str:
        """How it ended, in words; for a service that does not run. A negative code is a signal."""
        if self.code is not None:
            by_signal = f"was ended by signal {-self.code}"
            return by_signal if self.code < 0 else f"ended with exit code {self.code}"
        if self.rebooted:
            return "ended when its machine was rebooted"
        return "was killed together with its supervisor"


@dataclass(frozen=True)
class Watch:
    """What a host's watcher found when it looked, `age` seconds ago.

    `awake` says what keeps the cluster awake. On the machine that decides, the cluster would end
    in `ends_in` seconds, and `why`; None if nothing ends it now. `trouble` keeps the watchers from
    hearing each other; empty if nothing does.
    """

    age: float
    awake: tuple[str, ...] = ()
    ends_in: float | None = None
    why: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class HostStatus:
    """What a host tells about the cluster's services.

    `members` are the names that have joined the engine's head; None if this is not the head's host
    or the head does not answer. `watch` is what its watcher found; None without one. A `reclaimed`
    host was told that AWS is about to take it back.
    """

    services: tuple[ServiceStatus, ...] = ()
    members: frozenset[str] | None = None
    watch: Watch | None = None
    reclaimed: bool = False
