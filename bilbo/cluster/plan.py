"""`plan`: what Terraform would do for a profile. Creates nothing."""

from __future__ import annotations

from dataclasses import replace

from bilbo.cluster.host_settings import known
from bilbo.cluster.launches import shortages
from bilbo.cluster.launching import check_images, limits, public_keys
from bilbo.cluster.ownership import owned, right_account, stored
from bilbo.cluster.planning import PLAN_FILE, Planned, write_rendered
from bilbo.cluster.purchases import purchase_notes, with_purchases
from bilbo.cluster.root_devices import with_root_devices
from bilbo.cluster.settling import same_place, settle
from bilbo.cluster.shared_state import initialised, not_moving
from bilbo.cluster.volumes import check_volumes
from bilbo.cluster.work import Work, interruptible
from bilbo.hostside import compare
from bilbo.model import ClusterSpec, Inventory
from bilbo.present.ending import ending

_NO_OWNER = (
    "This cluster was created before owners existed: its resources have no tag bilbo:owner, and "
    "adding it would replace every worker. Only new clusters get one."
)


def plan(spec: ClusterSpec, work: Work, *, my_ip: bool = False, show: bool = False) -> Planned:
    """Validates, renders and plans. Raises RemoteError for an unusable private key,
    TerraformError, AwsError for what AWS would refuse, Interrupted, and as `settle` does.

    `show` starts the provider once more. Side effects: writes the cluster's Terraform folder, but
    no record.
    """
    before = work.store.known(spec.name)
    if before is None and not any(True for _ in spec.groups()):
        return Planned(spec, None)
    same_place(before, work)
    right_account(spec, before, work)
    public_keys(spec, work, needed=False)
    reads = interruptible("plan only reads, so nothing changed")
    with work.store.lock(spec.name, "plan"), reads:
        spec = settle(spec, work, before, my_ip, newest=True)
        terraform = work.terraform(spec.name)
        not_moving(spec, terraform)
        state = stored(work.target, terraform, spec.name, spec.state)
        spec = owned(spec, work, before, state)
        spec = with_purchases(with_root_devices(spec, work, state), state)
        for note in purchase_notes(spec, state):
            work.progress.say(note)
        if spec.owner is None:
            work.progress.say(_NO_OWNER)
        files = write_rendered(spec, terraform)
        initialised(terraform, work, spec.name)
        settings = compare(spec, known(spec, work, before))
        path = terraform.cluster_folder / PLAN_FILE
        outcome = terraform.plan(path, work.progress.terraform)
        if not outcome.ok:
            raise terraform.error(outcome, f"terraform plan failed for cluster {spec.name!r}")
        check_images(spec, work, before.inventory if before else Inventory(), outcome.changes)
        check_volumes(spec, work, state, outcome.changes)
        limits(spec, work, outcome.changes)
        short = shortages(spec, work, outcome.changes)
        work.progress.say(ending(spec))
        planned = Planned(spec, outcome, settings, short)
        if not show:
            return planned
        shown = terraform.show(path)
        return replace(planned, files=files, saved=path.read_bytes(), shown=shown)
