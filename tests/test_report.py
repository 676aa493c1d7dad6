"""Text in the specification's wording and layout: each case is taken from it."""

from __future__ import annotations

from dataclasses import replace

from bilbo.inventory import inventory, missing, stopped
from bilbo.model import SCHEDULER, WORKER, HostResult, Inventory, Node
from bilbo.present import report
from bilbo.present.times import local_time
from bilbo.profile.building import build
from bilbo.record import Record
from bilbo.terraform import Outcome, PlannedChange

INSTANCE = {
    "ami": "ami-0f49fa254e1806b72",
    "security_group": "sg-0bc538e0a7c089b4d",
    "ec2type": "t3.micro",
    "keyname": "my-keypair",
    "ssh_user": "ubuntu",
    "ssh_private_key": "~/.ssh/my-keypair.pem",
}


def node(role: str, instance_id: str, public_ip: str) -> Node:
    """A node of which only the summary's values matter."""
    return Node(
        role,
        role,
        instance_id,
        public_ip,
        "10.0.0.1",
        "",
        "t3.micro",
        "ami",
        "key",
        "ubuntu",
        "~/.ssh/key.pem",
    )


def record(**nodes: object) -> Record:
    """A ready record with these nodes."""
    return Record(
        name="test-cluster",
        status="ready",
        region="ap-northeast-2",
        type=None,
        created_time="2020-01-08T17:20:00+00:00",
        ready_time="2020-01-08T17:27:33+00:00",
        profile={},
        terraform_dir="",
        inventory=Inventory(**nodes),  # type: ignore[arg-type]
    )


NOTEBOOK = node("notebook", "i-0c69620cad536bf43", "13.124.57.145")
HEAD = node(SCHEDULER, "i-068c450413c6adf06", "54.180.24.43")
WORKERS = (
    node(WORKER, "i-08ae30d974e682df1", "52.78.129.196"),
    node(WORKER, "i-03eb8bd69c8671241", "15.165.160.217"),
)


def test_the_notebooks_summary() -> None:
    """A notebook alone is printed as in the specification."""
    found = record(notebook=NOTEBOOK)
    when = local_time("2020-01-08T17:27:33+00:00")
    assert report.summary(found) == (
        f"Name: test-cluster\nReady Time: {when}\n"
        "\nNotebook:\n[1] instance_id: i-0c69620cad536bf43, public_ip: 13.124.57.145"
    )


def test_the_whole_clusters_summary() -> None:
    """Numbers run on from the notebook over the scheduler to the workers."""
    found = replace(record(notebook=NOTEBOOK, head=HEAD, workers=WORKERS), type="dask")
    when = local_time("2020-01-08T17:27:33+00:00")
    assert report.summary(found) == (
        f"Name: test-cluster\nReady Time: {when}\n"
        "\nNotebook:\n[1] instance_id: i-0c69620cad536bf43, public_ip: 13.124.57.145\n"
        "Type: dask\n"
        "\nScheduler:\n[2] instance_id: i-068c450413c6adf06, public_ip: 54.180.24.43\n"
        "\nWorkers:\n[3] instance_id: i-08ae30d974e682df1, public_ip: 52.78.129.196\n"
        "[4] instance_id: i-03eb8bd69c8671241, public_ip: 15.165.160.217"
    )


def test_the_summary_without_a_notebook() -> None:
    """The scheduler is the first, and the engine stands above it."""
    found = replace(record(head=HEAD, workers=WORKERS), type="dask")
    when = local_time("2020-01-08T17:27:33+00:00")
    assert report.summary(found) == (
        f"Name: test-cluster\nReady Time: {when}\n"
        "Type: dask\n"
        "\nScheduler:\n[1] instance_id: i-068c450413c6adf06, public_ip: 54.180.24.43\n"
        "\nWorkers:\n[2] instance_id: i-08ae30d974e682df1, public_ip: 52.78.129.196\n"
        "[3] instance_id: i-03eb8bd69c8671241, public_ip: 15.165.160.217"
    )


def test_the_plans_block() -> None:
    """A plan's block has the specification's indentation and wording."""
    spec = build({"instance": INSTANCE, "notebook": {}}, "test", "ap-northeast-2")
    assert report.plan_blocks(spec, {}) == (
        "  Notebook:\n"
        "    AMI: ami-0f49fa254e1806b72\n"
        "    Instance Type: t3.micro\n"
        "    Security Group: sg-0bc538e0a7c089b4d\n"
        "    Key Name: my-keypair"
    )


def test_changes_are_counted_as_terraform_counts() -> None:
    """A replacement is one to add and one to destroy; its reason is told."""
    outcome = Outcome(
        2,
        changes=(
            PlannedChange("module.a.x.this", "x", "create"),
            PlannedChange("module.b.y.this", "y", "replace", "replace_because_tainted"),
            PlannedChange("module.c.z.this", "z", "update"),
        ),
    )
    assert report.changes(outcome) == (
        "  + module.a.x.this\n"
        "-/+ module.b.y.this  (replace because tainted)\n"
        "  ~ module.c.z.this\n"
        "\n2 to add, 1 to change, 1 to destroy"
    )


def test_a_failed_host_is_told_whole() -> None:
    """Number, role, id, address, stage, cause, log and what to do."""
    result = HostResult(WORKERS[0], "start", False, "it died", "Do this.", ("one", "two"))
    assert report.failures([result], {WORKERS[0].instance_id: 3}) == [
        "[3] worker i-08ae30d974e682df1 (52.78.129.196) failed at start: it died",
        "    | one",
        "    | two",
        "    Do this.",
    ]


def test_outputs_become_an_inventory() -> None:
    """Workers are sorted, names derived, what is missing or stopped is known."""
    spec = build(
        {"instance": INSTANCE, "notebook": {}, "dask": {"worker": {"count": 3}}}, "t", "x-1"
    )
    machine = {"ec2type": "t3.micro", "image_id": "ami-1", "key_name": "key"}
    outputs = {
        "notebook": {
            "instance_id": "i-1",
            "public_ip": "1.1.1.1",
            "private_ip": "10.0.0.1",
            "private_dns_name": "own",
            "state": "stopped",
            **machine,
        },
        "scheduler": None,
        "workers": {
            "worker": {
                "i-b": {
                    "instance_id": "i-b",
                    "public_ip": "2.2.2.2",
                    "private_ip": "10.0.0.3",
                    **machine,
                },
                "i-a": {
                    "instance_id": "i-a",
                    "public_ip": "3.3.3.3",
                    "private_ip": "10.0.0.2",
                    **machine,
                },
            }
        },
    }
    found = inventory(spec, outputs)
    assert [worker.instance_id for worker in found.workers] == ["i-a", "i-b"]
    assert found.workers[0].private_dns_name == "ip-10-0-0-2.x-1.compute.internal"
    assert found.notebook is not None
    assert found.notebook.private_dns_name == "own"
    assert [(group.name, count) for group, count in missing(spec, found)] == [
        ("scheduler", 1),
        ("worker", 1),
    ]
    assert stopped(spec, outputs) == ["i-1"]
