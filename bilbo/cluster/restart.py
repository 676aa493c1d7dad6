"""`restart`: stops and starts head and workers, and on request the notebook."""

from __future__ import annotations

from bilbo.cluster.settling import settle
from bilbo.cluster.starting import conclude, start, with_nodes
from bilbo.cluster.work import Work, interruptible
from bilbo.engines import ENGINES
from bilbo.errors import BilboError
from bilbo.model import HEADS, NOTEBOOK, WORKER
from bilbo.profile import building
from bilbo.record import Record


def restart(name: str, work: Work, *, notebook: bool = False) -> Record | None:
    """Restarts a cluster's head and workers, to the same readiness as `create`.

    Returns None if the cluster has no engine, so nothing to restart. A stopped notebook is started;
    a running one is left alone unless `notebook`, which ends its kernels. Raises PartlyDone if part
    of the cluster works afterwards, RemoteError if none does, RecordError and Interrupted.
    """
    what = f"some services of cluster {name!r} may be stopped"
    again = interruptible(what, f"To continue: bilbo restart {name}")
    with work.store.lock(name, "restart"), again:
        record = work.store.load(name)
        if record.type is None and not notebook:
            return None
        if not any(True for _ in record.inventory.nodes()):
            raise BilboError(
                f"cluster {name!r} has no instances",
                hint="To create them, run `bilbo create` with its profile.",
            )
        if notebook and record.inventory.notebook is None:
            raise BilboError(f"cluster {name!r} has no notebook")
        spec = building.build(record.profile, name, record.region)
        spec = settle(spec, work, record, my_ip=False)
        record = work.store.save(with_nodes(record, spec, record.inventory))
        fresh: tuple[str, ...] = ()
        if record.type:
            engine = ENGINES[record.type]
            work.progress.say(f"Restart {engine.name} {engine.head_role} & workers.")
            fresh = (*HEADS, WORKER)
        if notebook:
            work.progress.say("Restart notebook.")
            fresh += (NOTEBOOK,)
        return conclude(spec, work, record, start(spec, work, record, fresh=fresh))
