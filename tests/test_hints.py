"""What bilbo says to do next follows the cause, and only what a change needs is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, clients
from reliability import errors, told

from bilbo import local
from bilbo.cluster import starting
from bilbo.cluster.starting import conclude
from bilbo.cluster.work import Work
from bilbo.errors import BilboError, PartlyDone, RemoteError, TerraformError
from bilbo.model import HostResult, Inventory, Node, Target
from bilbo.profile import building
from bilbo.record import Record, Store
from bilbo.terraform import Diagnostic, Outcome
from bilbo.terraform.stream import to_error

KEY_PAIR = "Failed: The key pair 'mine' does not exist. Launching EC2 instance failed."
TEMPLATE = (
    "api error InvalidLaunchTemplateName.AlreadyExistsException: Launch template name in use."
)


def node(number: int, role: str) -> Node:
    place = f"127.0.0.{number}"
    return Node(role, role, f"i-{number}", place, place, "", "t3.micro", "ami-1", "k", "u", "~/k")


def advice(
    tmp_path: Path, *failures: HostResult, error: BilboError | None = None, again: str = "create"
) -> str:
    """What a cluster of a scheduler and a worker says at its end."""
    spec = building.build({"instance": INSTANCE, "dask": {}}, "hinted", "us-east-1")
    nodes = Inventory(None, node(1, "scheduler"), (node(2, "worker"),))
    store = Store(tmp_path)
    store.prepare()
    record = Record("hinted", "starting", "us-east-1", "dask", "", {}, "", inventory=nodes)
    failed = {each.node.instance_id for each in failures}
    well = [HostResult(n, "ready", True) for n in nodes.nodes() if n.instance_id not in failed]
    work = Work(store, Target("us-east-1"), progress=None)  # type: ignore[arg-type]
    with pytest.raises((PartlyDone, RemoteError)) as caught:
        conclude(spec, work, record, [*well, *failures], error, f"bilbo {again}")
    return caught.value.hint


def of_terraform(message: str) -> TerraformError:
    return to_error(Outcome(1, diagnostics=(Diagnostic("error", message),)), "no", Path("hinted"))


def sick(number: int, *, lasts: bool) -> HostResult:
    role = "scheduler" if number == 1 else "worker"
    return HostResult(node(number, role), "measure", False, "a cause", lasts=lasts)


SAME = "fails the same way until you change that; to remove it: bilbo destroy hinted"


def test_the_same_command_is_advised_only_where_it_helps(tmp_path: Path) -> None:
    """Not for what stays as it is: a deleted key pair, a name that is taken, an old dask."""
    for message in (KEY_PAIR, TEMPLATE):
        error = of_terraform(message)
        assert advice(tmp_path, error=error, again="scale") == f"The same `bilbo scale` {SAME}"
    assert advice(tmp_path, sick(2, lasts=True)) == f"The same `bilbo create` {SAME}"
    # One of them can be completed by it.
    both = advice(tmp_path, sick(1, lasts=True), sick(2, lasts=False))
    assert both.startswith("To complete it, run the same `bilbo create`;")
    capacity = of_terraform("We currently do not have sufficient t3.micro capacity")
    assert advice(tmp_path, error=capacity).startswith("To complete it")


def test_a_remedy_for_each_lasting_error() -> None:
    """Terraform's message leads to what can be done."""
    assert "import its public key again" in of_terraform(KEY_PAIR).hint
    assert "choose another name with -n" in of_terraform(TEMPLATE).hint


@pytest.mark.standin
def test_what_a_change_needs_and_what_not(bilbo: Bilbo) -> None:
    """A foreign launch template; then a deleted key pair, which only a new machine needs."""
    ec2, _ = clients(bilbo.home)
    foreign = {"LaunchTemplateName": "hinted-dask-worker", "LaunchTemplateData": {}}
    ec2.create_launch_template(**foreign)
    document = {"instance": INSTANCE, "dask": {"worker": {"count": 2, **ONE_PROCESS}}}
    profile = bilbo.profile("hinted", document)
    said = errors(bilbo("--local", "create", profile, code=3).stderr)
    left = "the scheduler; nothing, after `bilbo destroy`"
    told("A launch template of somebody else's has the cluster's name", said, 3, left)
    ec2.delete_launch_template(LaunchTemplateName="hinted-dask-worker")
    local.inject(bilbo.home, "lost=autoscaling:CreateAutoScalingGroup")
    said = bilbo("create", profile, code=3).stderr
    assert "AlreadyExists" in said and "To complete it, run the same `bilbo create`" in said
    assert "Found by tag, imported into Terraform's state: hinted-dask-worker" in said
    assert len(bilbo.record("hinted")["workers"]) == 2
    ec2.delete_key_pair(KeyName="local")
    fewer = bilbo("create", profile, "-p", "dask.worker.count=1", "-y")
    assert "0 to add, 1 to change, 0 to destroy" in fewer.stderr
    more = errors(bilbo("create", profile, "-y", code=1).stderr)
    told("The key pair was deleted; more workers are asked for", more, 1, "the cluster, as it was")
    assert len(bilbo.record("hinted")["workers"]) == 1
    bilbo("destroy", "hinted", "-y")


class Said:
    """Progress that remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize(
    ("role", "facts", "said"),
    [
        ("worker", {"initialised": True, "already": True}, "The new init_cmd take effect in what "
         "runs (worker) only at a restart: bilbo restart hinted"),
        ("notebook", {"installed": True, "already": True}, "The new packages take effect in what "
         "runs (notebook) only at a restart: bilbo restart hinted --notebook"),
        ("worker", {"initialised": True, "already": False}, ""),
        ("worker", {"already": True}, ""),
    ],
)  # fmt: skip
def test_what_runs_does_not_see_what_is_prepared_too_late(
    tmp_path: Path, role: str, facts: dict[str, bool], said: str
) -> None:
    """Commands that ran, or packages that were installed, beside a service that ran already."""
    progress = Said()
    work = Work(Store(tmp_path), Target("us-east-1"), progress=progress)  # type: ignore[arg-type]
    results = [HostResult(node(2, role), "ready", True, facts=facts)]
    starting._prepared_too_late("hinted", work, results)
    assert "\n".join(progress.lines) == said
