"""What a cluster costs by the hour, and whether its budget allows that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from bilbo import aws
from bilbo.cluster.bookkeeping import ledger_of
from bilbo.cluster.price_refresh import Priced
from bilbo.cluster.work import Work
from bilbo.costs import Bill, Kept, bill, growing, hourly, of_inventory, of_spec
from bilbo.errors import AwsError, BilboError
from bilbo.model import ClusterSpec
from bilbo.present.cost_text import bill_line
from bilbo.prices import Prices
from bilbo.record import ENDED, RESTING, Record

# How long a budget waits for prices that are not known yet.
_PATIENCE_SECONDS = 20.0
# How long a change waits for them, beside all else that it does.
_SHORT_SECONDS = 3.0


def check_budget(spec: ClusterSpec, work: Work, before: Record | None = None) -> Callable[[], None]:
    """Raises BilboError if `spec` costs more than now and goes over its budget, or if a price of
    what it adds is unknown. Without a budget, waits for nothing.

    Returns what says the costs, for the moment at which a change begins. `before` is the cluster's
    record; default: the stored one.
    """
    before = before or work.store.known(spec.name)
    priced = Priced(spec.region, work)
    if spec.budget is not None:
        known = priced.now(_PATIENCE_SECONDS)
        now, then = kept(spec, before, work, look=True)
        more = [hourly(each, known) for each in growing(now, then)]
        _within(spec, bill(now, then, known), [name for each in more for name in each.unknown])
    return partial(_tell_costs, spec, work, before, priced)


def _tell_costs(spec: ClusterSpec, work: Work, before: Record | None, priced: Priced) -> None:
    """Says what the cluster will cost by the hour, if a change at hand makes that another sum."""
    now, then = kept(spec, before, work, look=False)
    found = bill(now, then, priced.now(_SHORT_SECONDS))
    if found.total_now != found.total_then:
        work.progress.say(bill_line(found, spec.region))


def bill_of(
    spec: ClusterSpec, work: Work, before: Record | None, known: Prices, *, look: bool = False
) -> Bill:
    """Returns what the cluster costs by the hour: now by its record, and then by `spec`."""
    return bill(*kept(spec, before, work, look=look), known)


def kept(
    spec: ClusterSpec, before: Record | None, work: Work, *, look: bool
) -> tuple[list[Kept], list[Kept]]:
    """Returns the machines of the record and those of the specification. With `look`, AWS is asked
    for the sizes of AMIs that will be launched, which the preflight then need not ask for."""
    sizes = _known_sizes(spec, before, work)
    runs = before is None or before.status not in RESTING
    left = before is not None and before.status != ENDED
    now = of_inventory(before.inventory, sizes, runs=runs) if before and left else []
    then = of_spec(spec, sizes)
    grow = {each.group for each in growing(now, then)}
    unknown = [
        each.machine.ami
        for each in spec.groups()
        if each.name in grow and not each.machine.vol_size and each.name not in sizes
    ]
    if look and unknown:
        with suppress(AwsError):  # the preflight says what is wrong
            aws.look_at_images(work.target, unknown, work.images)
        sizes = _known_sizes(spec, before, work)
        now = of_inventory(before.inventory, sizes, runs=runs) if before else []
        then = of_spec(spec, sizes)
    return now, then


def _known_sizes(spec: ClusterSpec, before: Record | None, work: Work) -> dict[str, float]:
    """Returns GiB of disk by group, and by instance id: from the ledger, AMIs and the profile."""
    sizes: dict[str, float] = {}
    if before:
        with suppress(OSError):
            lives = ledger_of(work.store, spec.name).machines.values()
            # A group that has no machine now gets such ones again.
            for life in sorted(lives, key=lambda each: each.gone is None):
                if life.gib:
                    sizes |= {life.id: life.gib, life.group: life.gib}
    for group in spec.groups():
        image = work.images.get(group.machine.ami)
        if image and image.size:
            sizes[group.name] = image.size
        if group.machine.vol_size:
            sizes.setdefault(group.name, group.machine.vol_size)
    return sizes


def _within(spec: ClusterSpec, found: Bill, unknown: Sequence[str]) -> None:
    """Raises BilboError if the bill is not within the budget, or cannot be known."""
    budget, then, now = spec.budget or 0.0, found.total_then, found.total_now
    over = then.usd - budget
    if over > 1e-9 and then.usd > now.usd + 1e-9:
        least = "at least " if then.unknown else ""
        raise BilboError(
            f"cluster {spec.name!r} would cost {least}{then.usd:.4f} USD per hour, {over:.4f} more "
            f"than its budget of {budget:.4f}; nothing was changed",
            details=tuple(
                f"{group}: {found.then[group].usd:.4f} USD per hour" for group in found.then
            ),
            hint="Ask for fewer or smaller machines, or raise budget.usd_per_hour in the profile.",
        )
    if unknown:
        names = ", ".join(dict.fromkeys(unknown))
        raise BilboError(
            f"cluster {spec.name!r} has a budget, and what it would cost is unknown: there is no "
            f"price for {names} in {spec.region}; nothing was changed",
            hint=f"Get prices with `bilbo prices update --region {spec.region}`, or remove budget "
            "from the profile.",
        )
