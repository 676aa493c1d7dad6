"""Token buckets, as EC2 has them for each action, account and region.

The figures are from AWS's documentation, "Request throttling for the Amazon EC2 API":
https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
AWS publishes none for Auto Scaling, which is given those of EC2's actions of the same kind.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

# (bucket size, tokens a second)
LOOKING = (100.0, 20.0)  # "Non-mutating actions": Describe…, Get…
MUTATING = (50.0, 5.0)  # "Mutating actions"
REQUESTS = {"RunInstances": (5.0, 2.0), "StartInstances": (5.0, 2.0)}
# "Resource token bucket sizes": a token for each instance.
INSTANCES = {
    "RunInstances": (1000.0, 2.0),
    "StartInstances": (1000.0, 2.0),
    "StopInstances": (1000.0, 20.0),
    "TerminateInstances": (1000.0, 20.0),
}
_LOOKS = ("Describe", "Get", "List", "Search")


@dataclass
class _Bucket:
    tokens: float
    at: float


class Throttle:
    """The buckets of every action. Not for several threads at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str, str], _Bucket] = {}

    def refuses(self, rate: float, action: str, region: str, body: str) -> bool:
        """Whether a call, such as `ec2:RunInstances`, finds its bucket empty.

        `rate` is by how much buckets and their refill differ from AWS's; 1 is as AWS.
        """
        service, _, name = action.partition(":")
        if service not in ("ec2", "autoscaling"):
            return False
        figures = REQUESTS.get(name, LOOKING if name.startswith(_LOOKS) else MUTATING)
        wanted = [("requests", figures, 1)]
        if service == "ec2" and name in INSTANCES:
            wanted.append(("instances", INSTANCES[name], _instances(body)))
        found = []
        for kind, (size, refill), count in wanted:
            bucket = self._filled((region, action, kind), max(1.0, size * rate), refill * rate)
            found.append((bucket, count))
        # More instances than a bucket holds take all of it.
        if any(bucket.tokens < 1 for bucket, _ in found):
            return True
        for bucket, count in found:
            bucket.tokens = max(0.0, bucket.tokens - count)
        return False

    def _filled(self, key: tuple[str, str, str], size: float, refill: float) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(key, _Bucket(size, now))
        bucket.tokens = min(size, bucket.tokens + (now - bucket.at) * refill)
        bucket.at = now
        return bucket


def refusal(service: str) -> tuple[str, str, str]:
    """HTTP status, code and words of a throttled call."""
    if service == "ec2":
        return ("503 Service Unavailable", "RequestLimitExceeded", "Request limit exceeded.")
    return ("400 Bad Request", "Throttling", "Rate exceeded")


def _instances(body: str) -> int:
    """How many instances a request is about."""
    asked = re.search(r"(?:^|&)MaxCount=(\d{1,6})", body)
    return int(asked[1]) if asked else max(1, len(re.findall(r"(?:^|&)InstanceId\.\d+=", body)))
