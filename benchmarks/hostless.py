"""Terraform's part of `create` and `scale`, as bilbo runs it, without the SSH stage.

A helper of the benchmarks: `python benchmarks/hostless.py create|scale HOME PROFILE NAME COUNT`.
The SSH stage makes no calls to AWS.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bilbo import local
from bilbo import record as states
from bilbo.cluster.ownership import owned, stored
from bilbo.cluster.root_devices import with_root_devices
from bilbo.cluster.settling import settle
from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.model import Inventory
from bilbo.profile import loading
from bilbo.record import Record, Store, now


class Silent:
    """A Progress that shows nothing and confirms everything."""

    def say(self, text: str) -> None:
        """Nothing."""

    def status(self, text: str) -> None:
        """Nothing."""

    def terraform(self, event: Mapping[str, Any]) -> None:
        """Nothing."""

    def hosts(self, count: int) -> None:
        """Nothing."""

    def host(
        self, instance_id: str, role: str, stage: str, message: str, milestone: str = ""
    ) -> None:
        """Nothing."""

    def confirm(self, question: str) -> bool:
        """Yes."""
        return True


def work_of(home: Path) -> Work:
    """The `Work` for the stand-in of a home."""
    target = local.target(home)
    if target is None:
        sys.exit("the stand-in is not running")
    return Work(Store(home), target, Silent())


def stop_services(home: Path, name: str, engine: str) -> None:
    """Stops the services on a cluster's instances. The instances stay."""
    from bilbo.cluster.reach import reach
    from bilbo.model import Node
    from bilbo.remote.agent_session import Session
    from bilbo.remote.commands import with_agent

    work = work_of(home)
    nodes = list(work.store.load(name).inventory.nodes())
    roles = ("worker", ENGINES[engine].head_role)
    services = ["jupyter", *(f"{engine}-{role}" for role in roles)]

    async def stop(_: Node, session: Session) -> None:
        await session.ask("stop", 60, services=services, grace=10)

    asyncio.run(with_agent(nodes, name, reach(work, name), stop))


def change(action: str, home: Path, path: str, name: str, count: int) -> Record:
    """Creates or scales the cluster. Returns the record as if its services ran."""
    # Here, so that users of `work_of` alone do not import it.
    from bilbo.cluster.apply import Undertaking, apply_changes, apply_new

    work = work_of(home)
    work.store.prepare()
    before = work.store.find(name) if action == "scale" else None
    engine = "ray" if "ray" in json.loads(Path(path).read_text(encoding="utf-8")) else "dask"
    overrides = (f"{engine}.worker.count={count}",)
    spec = loading.load(path, home, cluster=name, overrides=overrides, region=work.target.region)
    with work.store.lock(name, action):
        spec = settle(spec, work, before, my_ip=False, newest=before is None)
        terraform = work.terraform(name)
        state = stored(work.target, terraform, name, spec.state)
        spec = with_root_devices(owned(spec, work, before, state), work, state)
        record = before or Record(
            name=name,
            status=states.CREATING,
            region=spec.region,
            type=spec.engine,
            created_time=now(),
            profile=spec.profile,
            profile_name=spec.profile_name,
            terraform_dir=str(terraform.folder),
            endpoint_url=work.target.endpoint_url,
            cidrs=spec.cidrs,
            account=spec.account,
            owner=spec.owner,
            token="benchmark",
        )
        # There is no scheduler to ask which workers should leave.
        known = (
            before.changed(inventory=Inventory(workers=before.inventory.workers))
            if before
            else None
        )
        look = known is None
        task = Undertaking(
            spec, work, terraform, record, known, yes=True, force=True, scaling=True, look=look
        )
        applied = apply_changes(task) if known else apply_new(task)
        if applied.error:
            raise applied.error
        done = record.changed(
            status=states.READY, profile=spec.profile, inventory=applied.inventory
        )
        return work.store.save(replace(done, ready_time=now()))


if __name__ == "__main__":
    action, home, path, name, count = sys.argv[1:]
    change(action, Path(home), path, name, int(count))
