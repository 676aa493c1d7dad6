"""`extend`: has a cluster with a lifetime end later, or never."""

from __future__ import annotations

import asyncio

from bilbo.cluster.reach import reach
from bilbo.cluster.whereabouts import Whereabouts
from bilbo.cluster.work import Work
from bilbo.errors import BilboError
from bilbo.lifetime import lifetime
from bilbo.record import NEVER, Record, ends_after

# No machine runs that could be told: the record's status.
_AT_REST = ("paused", "ended")


def extend(name: str, seconds: int | None, work: Work) -> Record:
    """Has the cluster end so many seconds later, and not before they are over; never, for None.

    Tells the machine that decides, then saves the record. Raises BilboError if nothing ends the
    cluster anyway or no machine runs, RemoteError, RecordError.
    """
    with work.store.lock(name, "extend"):
        record = work.store.load(name)
        leader = record.inventory.head or record.inventory.notebook
        if lifetime(record.profile.get("lifetime")) is None:
            raise BilboError(
                f"nothing ends cluster {name!r} by itself",
                hint='To have it end, put "lifetime" into its profile and run `bilbo create`.',
            )
        if leader is None or record.status in _AT_REST:
            raise BilboError(
                f"cluster {name!r} is {record.status}: no machine runs that could be told",
                hint="Its time begins anew when it runs again.",
            )
        from bilbo import remote

        told = reach(work, name, where=Whereabouts(record, work))
        left = asyncio.run(remote.extend(leader, name, told, seconds))
        ends = NEVER if seconds is None else ends_after(None if left is None else round(left))
        return work.store.save(work.store.load(name).changed(ends=ends))
