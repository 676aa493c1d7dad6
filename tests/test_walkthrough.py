"""The specification's walk-through, command by command, on the stand-in AWS.

Real Terraform, provider, SSH, Dask, JupyterLab and browser. The tests share one home and run
in the order of the specification's chapters.
"""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, client, nothing_is_left
from browser import chromium, pane_of_dask, run_in_kernel, shown

from bilbo import local
from bilbo.terraform.environment import binary, environment

CLIENT = """
from dask.distributed import Client
client = Client()
client.wait_for_workers({count}, timeout=30)
print(client.scheduler.address, client.submit(sum, range(10)).result())
"""

STAGES = (
    "Create dask cluster 'test-cluster'.\n",
    "Start dask scheduler & workers.\n",
    "Waiting for Dask dashboard ready.\n",
)


@pytest.fixture(scope="module")
def bilbo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bilbo]:
    """bilbo with an empty home, whose stand-in ends with the module."""
    home = tmp_path_factory.mktemp("home")
    try:
        yield Bilbo(home)
    finally:
        local.stop(home)


def test_a_profile_that_asks_for_no_instance(bilbo: Bilbo) -> None:
    """The simplest profile makes nothing: plan says so, and create too."""
    profile = bilbo.profile("test", {"instance": INSTANCE})
    assert bilbo("--local", "plan", profile).stdout == "Nothing to do.\n"
    assert bilbo("--local", "plan", profile, "--detailed-exitcode").returncode == 0
    assert bilbo("--local", "create", profile).stdout == "Nothing to do.\n"
    assert bilbo("clusters").stdout == ""
    assert bilbo("profiles").stdout == "test.json\n"


def test_a_notebook_alone(bilbo: Bilbo) -> None:
    """plan, create, clusters, desc, notebook and destroy of a notebook, as specified."""
    profile = bilbo.profile("test", {"instance": INSTANCE, "notebook": {}})
    planned = bilbo("--local", "plan", profile, "--detailed-exitcode", code=2).stdout
    assert planned.startswith(
        "  Notebook:\n"
        "    AMI: ami-0f49fa254e1806b72\n"
        "    Instance Type: t3.micro\n"
        "    Security Group: generated, admits 127.0.0.0/8\n"
        "    Key Name: local\n"
    )
    assert planned.endswith("3 to add, 0 to change, 0 to destroy\n")
    assert bilbo("clusters").stdout == ""

    created = bilbo("--local", "create", profile)
    assert created.stderr.count("Nothing ends this cluster by itself.") == 1
    assert "Create notebook.\n" in created.stderr
    assert "Start notebook.\n" in created.stderr
    layout = (
        r"\nName: test\nReady Time: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n"
        r"\nNotebook:\n\[1\] instance_id: i-[0-9a-f]{17}, public_ip: 127\.\d+\.\d+\.\d+\n"
    )
    assert re.fullmatch(layout, created.stdout), created.stdout
    assert bilbo("clusters").stdout == "test\n"
    assert bilbo("desc", "test").stdout == created.stdout.lstrip("\n")

    record = bilbo.record("test")
    assert record["status"] == "ready"
    assert record["type"] is None
    assert record["instances"] == [record["notebook"]["instance_id"]]
    url = bilbo("notebook", "test", "-u").stdout.strip()
    assert url == record["notebook_url"]
    with chromium() as browser:
        browser.get(url)
        shown(browser, "#jp-main-dock-panel")
        assert "JupyterLab" in browser.title

    again = bilbo("create", profile)
    assert again.stdout == "Nothing to do.\n"
    assert bilbo("dashboard", "test", code=1).stderr.startswith("bilbo: cluster 'test' has no")

    dask = {"worker": ONE_PROCESS}
    bilbo.profile("test", {"instance": INSTANCE, "notebook": {}, "dask": dask})
    grown = bilbo("create", profile)
    assert "end its kernels: bilbo restart test --notebook\n" in grown.stderr
    bilbo("restart", "test", "--notebook")
    found = run_in_kernel(url, CLIENT.format(count=1))
    assert found.split() == [f"tcp://{bilbo.record('test')['scheduler']['private_ip']}:8786", "45"]

    bilbo("destroy", "test", "-y")
    assert bilbo("clusters").stdout == ""
    nothing_is_left(bilbo.home)


def a_local_client_computes(bilbo: Bilbo, record: Mapping[str, Any]) -> None:
    """At the scheduler's public address, where a browser finds the dashboard, too."""
    from distributed import Client  # late, as it is slow to import

    with Client(record["dask_scheduler_address"], timeout=30) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        assert {worker["name"] for worker in workers.values()} == {
            worker["instance_id"] for worker in record["workers"]
        }
        futures = client.map(lambda number: number**2, range(100))
        assert sum(client.gather(futures)) == sum(number**2 for number in range(100))
    with chromium() as browser:
        browser.get(bilbo("dashboard", record["name"], "-u").stdout.strip())
        shown(browser, ".bk-Figure")
        assert "Dask" in browser.title


def plan_by_terraform_alone(bilbo: Bilbo, folder: Path) -> None:
    """Terraform itself plans the folder that bilbo wrote, and has nothing to change."""
    target = local.target(bilbo.home)
    assert target is not None
    surroundings = environment(bilbo.environment(), target.environment, bilbo.home)
    done = subprocess.run(
        [binary(surroundings), "plan", "-detailed-exitcode", "-no-color"],
        cwd=folder,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def members_are_admitted(bilbo: Bilbo, record: Mapping[str, Any]) -> None:
    """The groups of each machine admit every machine by its group, on all ports: the stand-in
    enforces nothing between private addresses, so their rules are read."""
    ec2 = client(bilbo.home, "ec2", record["region"])
    found = ec2.describe_instances(InstanceIds=record["instances"])["Reservations"]
    members = [
        {group["GroupId"] for group in instance["SecurityGroups"]}
        for each in found
        for instance in each["Instances"]
    ]
    assert len(members) == len(record["instances"])
    groups = ec2.describe_security_groups(GroupIds=sorted(set().union(*members)))
    admitted = {
        (group["GroupId"], pair["GroupId"])
        for group in groups["SecurityGroups"]
        for rule in group["IpPermissions"]
        if (rule["IpProtocol"], rule.get("FromPort"), rule.get("ToPort")) == ("tcp", 0, 65535)
        for pair in rule["UserIdGroupPairs"]
    }
    for mine, theirs in itertools.product(members, members):
        assert admitted & set(itertools.product(mine, theirs))


def test_notebook_and_dask_together(bilbo: Bilbo) -> None:
    """`Client()` without an argument, in a kernel of the cloud notebook, is on the cluster."""
    document = {
        "instance": INSTANCE,
        "notebook": {"instance": {"ec2type": "m5.large"}},
        "dask": {"worker": {"count": 2, **ONE_PROCESS}},
    }
    profile = bilbo.profile("test", document)
    created = bilbo("--local", "create", profile, "-n", "test-cluster")
    layout = (
        r"\nName: test-cluster\nReady Time: .+\n"
        r"\nNotebook:\n\[1\] instance_id: .+\nType: dask\n"
        r"\nScheduler:\n\[2\] instance_id: .+\n"
        r"\nWorkers:\n\[3\] instance_id: .+\n\[4\] instance_id: .+\n"
    )
    assert re.fullmatch(layout, created.stdout), created.stdout
    said = created.stderr
    assert [said.find(stage) for stage in STAGES] == sorted(said.find(stage) for stage in STAGES)
    assert all(stage in said for stage in STAGES)
    record = bilbo.record("test-cluster")
    assert record["notebook"]["ec2type"] == "m5.large"
    plan_by_terraform_alone(bilbo, Path(record["terraform_dir"]))
    code = CLIENT.format(count=2) + "print(client.dashboard_link)"
    printed = run_in_kernel(record["notebook_url"], code)
    link = f"http://{record['scheduler']['public_ip']}:8787/status"
    assert printed.split() == [f"tcp://{record['scheduler']['private_ip']}:8786", "45", link]
    with chromium() as browser:
        pane = pane_of_dask(browser, record["notebook_url"], link)
    assert pane == link.replace("status", "individual-task-stream")
    a_local_client_computes(bilbo, record)
    members_are_admitted(bilbo, record)

    document["dask"] = {"worker": {"count": 3, **ONE_PROCESS}}
    bilbo.profile("test", document)
    planned = bilbo("plan", profile, "-n", "test-cluster").stdout
    assert planned.endswith(
        "  ~ module.worker.aws_autoscaling_group.this\n\n0 to add, 1 to change, 0 to destroy\n"
    )
    grown = bilbo("create", profile, "-n", "test-cluster")
    assert "[5] instance_id:" in grown.stdout

    bilbo.profile("test", {**document, "notebook": {}})
    refused = bilbo("create", profile, "-n", "test-cluster", code=1)
    assert "the notebook will be stopped and started as t3.micro" in refused.stderr
    document["dask"] = {"worker": {"count": 1, **ONE_PROCESS}}
    bilbo.profile("test", document)
    refused = bilbo("create", profile, "-n", "test-cluster", code=1)
    assert "2 worker(s) will leave" in refused.stderr
    assert bilbo.record("test-cluster")["status"] == "ready"

    bilbo("destroy", "test-cluster", "-y")
    nothing_is_left(bilbo.home)
