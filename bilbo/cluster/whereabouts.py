"""Where a cluster's machines are now: a machine that was stopped gets another public address."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from bilbo import aws
from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.errors import AwsError, BilboError, RecordError
from bilbo.model import Inventory, Node
from bilbo.record import Record

# How long to wait for AWS's answer, however often boto3 would try.
AWS_SECONDS = 5.0

Result = TypeVar("Result")


def aside(work: Callable[[], Result]) -> Future[Result]:
    """Runs `work` in a thread that no exit waits for."""
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()  # who stops waiting must not cancel it for others

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def found_in_aws(record: Record, work: Work) -> dict[str, str]:
    """Returns the public addresses of the record's running instances, by instance id.

    Raises AwsError, also if AWS does not answer in time.
    """
    try:
        found = aside(lambda: aws.machines(work.target, record.name)).result(AWS_SECONDS)
    except TooLate:
        raise AwsError(f"AWS did not answer within {AWS_SECONDS:.0f} s") from None
    return addresses(found)


def addresses(found: list[aws.Resource]) -> dict[str, str]:
    """Returns the public addresses of the instances that run, by instance id."""
    return {each.id: each.public_ip for each in found if each.state == "running"}


def moved(record: Record, found: Mapping[str, str]) -> Record:
    """Returns the record with the public addresses in `found`; the same if none has changed."""

    def there(node: Node) -> Node:
        return replace(node, public_ip=found.get(node.instance_id, node.public_ip))

    before = record.inventory
    now = Inventory(
        there(before.notebook) if before.notebook else None,
        there(before.head) if before.head else None,
        tuple(map(there, before.workers)),
    )
    return record if now == before else at(record, now)


def at(record: Record, found: Inventory) -> Record:
    """Returns the record with these nodes, and how people reach them."""
    from bilbo import services

    url = None
    if found.notebook and record.notebook_url:
        url = services.notebook_url(
            found.notebook, record.token, services.served(record.notebook_url)
        )
    engine = ENGINES[record.type] if record.type else None
    reached = engine.addresses(found.head) if engine and found.head else record.addresses
    return record.changed(inventory=found, notebook_url=url, addresses=reached)


def addresses_now(record: Record, work: Work) -> dict[str, str] | None:
    """As `found_in_aws`, but says so and returns None if AWS does not answer."""
    try:
        return found_in_aws(record, work)
    except AwsError as error:
        work.progress.say(f"Using the recorded addresses: {error.what}.")
        return None


def at_present(record: Record, work: Work, found: Mapping[str, str]) -> Record:
    """Returns the record with these addresses, and says which have changed."""
    now = moved(record, found)
    for old, new in zip(record.inventory.nodes(), now.inventory.nodes(), strict=True):
        if old != new:
            where = new.public_ip or "no public address"
            work.progress.say(f"{new.role} {new.instance_id} has moved to {where}.")
    return now


def remember(record: Record, work: Work, found: Mapping[str, str]) -> Record:
    """As `at_present`; also saves what has changed, unless another command works on the cluster."""
    now = at_present(record, work, found)
    if now is not record:
        with suppress(RecordError), work.store.lock(record.name, "address"):
            latest = work.store.load(record.name)
            work.store.save(moved(latest, found))
    return now


def present(record: Record, work: Work, needed: Node | None) -> Record:
    """Returns the record with its machines' present addresses, and saves changed ones. Goes on with
    the recorded ones, and says so, if AWS does not answer. Raises BilboError if the `needed`
    machine does not run: its recorded address may be somebody else's by now."""
    found = addresses_now(record, work)
    if found is None:
        return record
    if needed and needed.instance_id not in found:
        raise BilboError(
            f"the {needed.role} {needed.instance_id} of cluster {record.name!r} does not run",
            hint=f"What has become of it: bilbo desc {record.name} --refresh",
        )
    return remember(record, work, found)


class Whereabouts:
    """Asks AWS at most once, when a host cannot be reached, where the machines are now."""

    def __init__(self, record: Record, work: Work) -> None:
        self._record = record
        self._work = work
        self._asked: asyncio.Future[dict[str, str]] | None = None

    async def __call__(self, node: Node) -> str:
        """The node's present address; empty if AWS does not say."""
        if self._asked is None:
            self._asked = asyncio.ensure_future(self._ask())
        found = await asyncio.shield(self._asked)
        return found.get(node.instance_id, "")

    async def _ask(self) -> dict[str, str]:
        record, work = self._record, self._work
        try:
            found = await asyncio.wrap_future(aside(lambda: found_in_aws(record, work)))
        except AwsError:
            return {}  # the host's own failure says what is wrong
        remember(record, work, found)
        return found
