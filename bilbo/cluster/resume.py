"""`resume`: brings a paused cluster back, with the machines and the counts that it had."""

from __future__ import annotations

import secrets
from dataclasses import replace

from bilbo import aws
from bilbo import record as states
from bilbo.cluster.apply import Applied, Undertaking, apply_changes
from bilbo.cluster.bookkeeping import note_machines
from bilbo.cluster.budget import check_budget
from bilbo.cluster.epitaph import say_why
from bilbo.cluster.fallback import with_fallback
from bilbo.cluster.host_settings import must_be_alike
from bilbo.cluster.launches import close
from bilbo.cluster.look import look, mend
from bilbo.cluster.noticing import noticed
from bilbo.cluster.ownership import owned
from bilbo.cluster.purchases import with_purchases
from bilbo.cluster.resting import asleep, booted, known_amis, singles
from bilbo.cluster.root_devices import with_root_devices
from bilbo.cluster.settling import settle
from bilbo.cluster.starting import Created, conclude, start, tell, with_nodes, with_token
from bilbo.cluster.taking_up import not_ending, take_up
from bilbo.cluster.work import Work, interruptible
from bilbo.errors import BilboError
from bilbo.profile import building
from bilbo.reality import Reality
from bilbo.record import Record

_GONE = ("terminated", "shutting-down")


def resume(name: str, work: Work, *, yes: bool = False, force: bool = False) -> Created:
    """Starts a paused cluster's notebook and head, and as many workers as it had.

    A cluster that paused itself, and one that was resumed in part, are completed in the same way.
    Raises BilboError if its disks are gone or something would be lost, AwsError (it is then paused
    as before), and as `create` does.
    """
    what = f"part of cluster {name!r} may run already"
    hint = f"To continue: bilbo resume {name}; to stop it again: bilbo pause {name}"
    with work.store.lock(name, "resume"), interruptible(what, hint, work.terraform(name)):
        before = not_ending(work.store.load(name))
        spec = building.build(before.profile, name, before.region)
        before, state = take_up(spec, before, work)
        before = noticed(before, work)
        _has_its_disks(before, work)
        spec = replace(spec, profile_name=before.profile_name)
        spec = settle(spec, work, before, False, amis=known_amis(spec, before, state))
        spec = with_root_devices(owned(spec, work, before, state), work, state)
        spec = with_purchases(spec, state)
        must_be_alike(spec, work)
        if before.status == states.CREATING:
            close(spec, work)
        resting = before.status in states.RESTING
        seen = Reality() if resting else look(before, work, others=False)
        woken = asleep(before, seen)
        record = before.changed(
            status=states.CREATING, account=spec.account, owner=spec.owner,
            token=before.token or secrets.token_hex(24),
        )  # fmt: skip
        task = Undertaking(
            spec, work, work.terraform(name), record, before, yes, force, keep=True,
            head_is_dead=lambda: seen.head_is_dead, asleep=lambda: woken,
            tell_costs=check_budget(spec, work, before),
        )  # fmt: skip
        spec, applied = with_fallback(task, apply_changes(task))
        if before.status == states.READY and seen.well and _as_it_was(before, applied):
            return Created(before, changed=False)
        record = with_token(record, before, applied.inventory, work)
        record = work.store.save(with_nodes(record, spec, applied.inventory))
        note_machines(before, record, work)
        tell(spec, work, "Start")
        fresh = [*mend(seen, work), *booted(before, seen, record.inventory, woken)]
        results = start(spec, work, record, fresh=fresh)
        say_why(name, before.rest, record.inventory, work)
        return Created(conclude(spec, work, record, results, applied.error, f"bilbo resume {name}"))


def _as_it_was(before: Record, applied: Applied) -> bool:
    return not applied.changed and before.inventory == applied.inventory


def _has_its_disks(before: Record, work: Work) -> None:
    """Raises BilboError if a machine of those that keep files is gone: another one in its place is
    no resumption."""
    found = aws.endings(work.target, before.name, before.owner)
    gone = [
        node
        for node in singles(before.inventory)
        if node.instance_id not in found or found[node.instance_id].state in _GONE
    ]
    if gone or not singles(before.inventory):
        names = ", ".join(f"{node.role} {node.instance_id}" for node in gone)
        raise BilboError(
            f"cluster {before.name!r} cannot be resumed: AWS has "
            + (f"no {names} any more" if names else "none of its machines"),
            hint="To make it anew, without the files that were on it, run `bilbo create` with its "
            f"profile and -n {before.name}; to remove what is left: bilbo destroy {before.name}",
        )
