"""The faults that the stand-in can be told to show, and how they are written."""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from bilbo.errors import UsageError

SSH_MODES = ("refuse", "silent", "reject")
NOTICE = 120.0  # seconds between the notice and the end of a spot instance, as on AWS

FORMS = (
    "capacity=N                 N instances can run; then InsufficientInstanceCapacity",
    "limit=N                    N instances may run; then VcpuLimitExceeded",
    "boot=SECONDS               SSH of an instance answers so long after its launch",
    "pending=SECONDS            instances that a group launches are pending for so long",
    "ssh=INSTANCE:refuse        nothing listens; INSTANCE is an id, an address, a name, or NAME#2",
    "ssh=INSTANCE:silent        the connection is taken and nothing is ever said",
    "ssh=INSTANCE:reject        every key is refused",
    "reboot=INSTANCE            the machine reboots, once, by itself",
    "spot=INSTANCE[:SECONDS]    AWS takes a spot instance, announced SECONDS before, or 120",
    "spot_capacity=N            N spot instances can run; then UnfulfillableCapacity",
    "deny=SERVICE:ACTION        the permission is missing, as in deny=ec2:RunInstances",
    "lost=SERVICE:ACTION        the next such call is carried out, and its answer lost, once",
    "expired                    the credentials have expired",
    "policy=FILE                the user may do what the IAM policy in FILE allows, nothing else",
    "lag=SECONDS                EC2 does not find what was just made, for so long",
    "throttle=RATE              EC2 and Auto Scaling throttle; 1 is as AWS does, 0.5 twice as much",
    "clear                      all is well again",
)


@dataclass
class Faults:
    """What is wrong at present. `ssh` maps an instance as the user named it to its mode; `reboots`
    are those that are about to reboot, `lost` the actions whose next answer will be. `policy` is
    the text of an IAM policy, `lag` is seconds. `notices` are the instances that are about to be
    told that AWS takes them, and in how many seconds.
    """

    capacity: int | None = None
    limit: int | None = None
    boot: float = 0.0
    pending: float = 0.0
    ssh: dict[str, str] = field(default_factory=dict)
    reboots: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    expired: bool = False
    policy: str = ""
    lag: float = 0.0
    throttle: float | None = None
    spot_capacity: int | None = None
    notices: dict[str, float] = field(default_factory=dict)

    def apply(self, text: str) -> None:
        """Add the fault that `text` names; `clear` takes all away.

        Raises UsageError, with nothing changed, when `text` has none of the `FORMS`.
        """
        kind, _, value = text.strip().partition("=")
        if kind == "clear" and not value:
            self.__init__()  # type: ignore[misc]
        elif kind == "expired" and not value:
            self.expired = True
        elif kind in ("capacity", "limit", "spot_capacity") and re.fullmatch(r"\d{1,6}", value):
            setattr(self, kind, int(value))
        elif kind in ("boot", "lag", "pending") and re.fullmatch(r"\d{1,5}(\.\d+)?", value):
            setattr(self, kind, float(value))
        elif kind == "throttle" and re.fullmatch(r"\d{1,5}(\.\d+)?", value) and float(value):
            self.throttle = float(value)
        elif kind == "policy" and value:
            self.policy = _policy(Path(value))
        elif kind == "deny" and re.fullmatch(r"[a-z0-9-]+:[A-Za-z0-9*]+", value):
            self.denied.add(value)
        elif kind == "lost" and re.fullmatch(r"[a-z0-9-]+:[A-Za-z0-9]+", value):
            self.lost.add(value)
        elif kind == "ssh" and value.rpartition(":")[0] and value.rpartition(":")[2] in SSH_MODES:
            instance, _, mode = value.rpartition(":")
            self.ssh[instance] = mode
        elif kind == "reboot" and value:
            self.reboots.add(value)
        elif kind == "spot" and (found := re.fullmatch(r"(.+?)(?::(\d{1,5}(?:\.\d+)?))?", value)):
            self.notices[found[1]] = float(found[2] or NOTICE)
        else:
            raise UsageError(
                f"{text!r} is no fault that the stand-in knows",
                hint="Give one of these forms.",
                details=FORMS,
            )

    def denies(self, action: str) -> bool:
        """Whether `action`, such as `ec2:RunInstances`, is denied; `*` matches any letters."""
        return any(fnmatch.fnmatchcase(action, pattern) for pattern in self.denied)

    def ssh_mode(self, names: tuple[str, ...]) -> str:
        """How SSH of the instance with these `names` misbehaves; empty when it is well."""
        return next((self.ssh[name] for name in names if name in self.ssh), "")


def check(text: str) -> str:
    """The fault as the stand-in's process takes it, whose folder is another.

    Raises UsageError, naming the forms, when `text` is no fault.
    """
    Faults().apply(text)
    kind, _, value = text.strip().partition("=")
    return f"policy={Path(value).resolve()}" if kind == "policy" else text


def _policy(path: Path) -> str:
    """The text of the IAM policy in a file. Raises UsageError when there is none."""
    try:
        text = path.read_text(encoding="utf-8")
        if json.loads(text)["Statement"]:
            return text
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise UsageError(
        "this file holds no IAM policy",
        where=str(path),
        hint="`bilbo permissions PROFILE` prints one.",
    )
