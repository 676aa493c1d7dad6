"""`restart`: stops and starts head and workers, and on request the notebook."""

from __future__ import annotations

from dataclasses import replace

from bilbo import record as states
from bilbo.cluster.bookkeeping import note_machines
from bilbo.cluster.launches import close
from bilbo.cluster.resting import awake
from bilbo.cluster.settling import settle
from bilbo.cluster.starting import conclude, start, with_nodes
from bilbo.cluster.unwritten import finish
from bilbo.cluster.whereabouts import addresses_now, at_present
from bilbo.cluster.work import Work, interruptible
from bilbo.engines import ENGINES
from bilbo.errors import BilboError
from bilbo.model import HEADS, NOTEBOOK, WORKER
from bilbo.profile import building
from bilbo.record import Record


def restart(name: str, work: Work, *, notebook: bool = False) -> Record | None:
    """Restarts a cluster's head and workers, to the same readiness as `create`.

    Returns None if the cluster has no engine, so nothing to restart. A stopped notebook is started;
    a running one is left alone unless `notebook`, which ends its kernels. Asks AWS for addresses
    before it stops anything. Raises BilboError if the head's machine does not run or the cluster
    is paused, PartlyDone if part of the cluster works afterwards, RemoteError if none does,
    RecordError and Interrupted.
    """
    what = f"some services of cluster {name!r} may be stopped"
    again = interruptible(what, f"To continue: bilbo restart {name}")
    with work.store.lock(name, "restart"), again:
        record = awake(work.store.load(name))
        if record.type is None and not notebook:
            return None
        if not any(True for _ in record.inventory.nodes()):
            raise BilboError(
                f"cluster {name!r} has no instances",
                hint="To create them, run `bilbo create` with its profile.",
            )
        if notebook and record.inventory.notebook is None:
            raise BilboError(f"cluster {name!r} has no notebook")
        record = _reachable(record, work)
        spec = building.build(record.profile, name, record.region)
        spec = settle(spec, work, record, my_ip=False)
        if record.status == states.CREATING:
            finish(name, work)
            close(replace(spec, owner=record.owner), work)
        record = work.store.save(with_nodes(record, spec, record.inventory))
        note_machines(record, record, work)
        fresh: tuple[str, ...] = ()
        if record.type:
            engine = ENGINES[record.type]
            work.progress.say(f"Restart {engine.name} {engine.head_role} & workers.")
            fresh = (*HEADS, WORKER)
        if notebook:
            work.progress.say("Restart notebook.")
            fresh += (NOTEBOOK,)
        return conclude(spec, work, record, start(spec, work, record, fresh=fresh))


def _reachable(record: Record, work: Work) -> Record:
    """Returns the record with the machines' present addresses. Raises BilboError if the head's
    machine does not run."""
    found = addresses_now(record, work)
    if found is None:
        return record
    head = record.inventory.head
    if head and head.instance_id not in found:
        raise BilboError(
            f"{head.role} {head.instance_id} of cluster {record.name!r} does not run in AWS; "
            "nothing was stopped",
            hint=f"To repair it, run `bilbo create` with its profile and -n {record.name}.",
        )
    return at_present(record, work, found)
