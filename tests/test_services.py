"""What each host runs, decided from the profile and the inventory alone."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bilbo import services
from bilbo.engines import address, dask
from bilbo.model import (
    NOTEBOOK,
    SCHEDULER,
    WORKER,
    ClusterSpec,
    Inventory,
    Machine,
    Measurement,
    Node,
    NodeGroup,
    Served,
)

MACHINE = Machine("ami-1", "m5.xlarge", "key", "ubuntu", "~/key.pem", init_cmd=("true",))
M5_XLARGE = Measurement(cpus=4, threads_per_core=2, memory=16178872320)


def group(role: str, **values: object) -> NodeGroup:
    return NodeGroup(role, role, f"test-{role}", MACHINE, **values)  # type: ignore[arg-type]


def node(role: str, number: int) -> Node:
    return Node(
        role=role,
        group=role,
        instance_id=f"i-{number}",
        public_ip=f"13.0.0.{number}",
        private_ip=f"10.0.0.{number}",
        private_dns_name=f"ip-10-0-0-{number}",
        ec2type="m5.xlarge",
        image_id="ami-1",
        key_name="key",
        ssh_user="ubuntu",
        ssh_private_key="~/key.pem",
    )


SPEC = ClusterSpec(
    "test",
    "us-east-1",
    engine="dask",
    notebook=group(NOTEBOOK),
    head=group(SCHEDULER),
    workers=(group(WORKER, count=2),),
)
INVENTORY = Inventory(node(NOTEBOOK, 1), node(SCHEDULER, 2), (node(WORKER, 3), node(WORKER, 4)))
PLAN = services.stage_plan(SPEC, INVENTORY, "tok&en")

HEAD_SCRIPT = """\
#!/bin/bash
# Written by bilbo: Dask's scheduler of cluster test.
here=$(cd -- "$(dirname "$0")" && pwd)
. "$here/environment" || exit
# roll_dask.py there lists the workers. Nothing that changes anything is served.
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
export DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES='["roll_dask", \
"distributed.http.scheduler.prometheus", "distributed.http.scheduler.info", \
"distributed.http.scheduler.json", "distributed.http.health", "distributed.http.statics"]'
cd "$HOME" || exit
exec dask scheduler \\
    --host 10.0.0.2 \\
    --port 8786 \\
    --dashboard-address 10.0.0.2:8787
"""
WORKER_SCRIPT = """\
#!/bin/bash
# Written by bilbo: Dask's worker of cluster test.
here=$(cd -- "$(dirname "$0")" && pwd)
# Started again by its host, it waits until the head is back. A first start does not.
if [ -n "${BILBO_AGAIN:-}" ]; then
    until (exec 3<>/dev/tcp/10.0.0.2/8787) 2>/dev/null; do sleep 1; done
fi
. "$here/environment" || exit
cd "$HOME" || exit
exec dask worker tcp://10.0.0.2:8786 \\
    --host 10.0.0.3 \\
    --name i-3 \\
    --nworkers 4 \\
    --nthreads 2 \\
    --memory-limit 4044718080 \\
    --dashboard-address 10.0.0.3:0 \\
    --no-dashboard \\
    --preload-nanny "$here/settings_dask.py" \\
    --preload-nanny "$here/await_dask.py" \\
    --local-directory "$here/scratch"
"""
NOTEBOOK_SCRIPT = """\
#!/bin/bash
# Written by bilbo: JupyterLab of cluster test.
here=$(cd -- "$(dirname "$0")" && pwd)
. "$here/environment" || exit
unset JUPYTER_TOKEN
export JUPYTER_TOKEN_FILE="$here/jupyter.token"
export JUPYTER_RUNTIME_DIR="$here/jupyter"
# jupyter_server_config.py there gives the token, and goes before the machine's own settings.
export JUPYTER_CONFIG_PATH="$here${JUPYTER_CONFIG_PATH:+:$JUPYTER_CONFIG_PATH}"
as_root=()
if [ "$(id -u)" = 0 ]; then as_root=(--allow-root); fi
cd "$HOME" || exit
exec jupyter lab \\
    --no-browser \\
    --ip=10.0.0.1 \\
    --port=8888 \\
    --ServerApp.port_retries=0 \\
    --ServerApp.root_dir="$HOME" \\
    "${as_root[@]}"
"""


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({}, (4, 2, 4044718080)),
        ({"nproc": 1, "nthread": 4}, (1, 4, 16178872320)),
        ({"nproc": 2}, (2, 2, 8089436160)),
        ({"nthread": 1}, (4, 1, 4044718080)),
    ],
)
def test_sizes_a_worker_as_measured_unless_told(
    said: dict[str, int], size: tuple[int, int, int]
) -> None:
    """The specification's m5.xlarge gives its own figures; the profile's go before."""
    assert dask.worker_size(M5_XLARGE, group(WORKER, settings=said)) == size


def test_scripts_read_as_a_person_would_write_them() -> None:
    """The exact script of each service, the worker's size measured."""
    assert PLAN.head and PLAN.notebook
    made = [plan.service(M5_XLARGE).script for plan in (PLAN.head, PLAN.workers[0], PLAN.notebook)]
    assert made == [HEAD_SCRIPT, WORKER_SCRIPT, NOTEBOOK_SCRIPT]


@pytest.mark.parametrize("script", [HEAD_SCRIPT, WORKER_SCRIPT, NOTEBOOK_SCRIPT])
def test_bash_accepts_the_scripts(script: str) -> None:
    """Bash finds no mistake in them."""
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.programs
@pytest.mark.parametrize(
    ("script", "verb"), [(HEAD_SCRIPT, "scheduler"), (WORKER_SCRIPT, "worker")]
)
def test_dask_knows_every_option(script: str, verb: str) -> None:
    """Each option is one that the installed Dask lists in its help."""
    dask = str(Path(sys.executable).with_name("dask"))
    asked = subprocess.run([dask, verb, "--help"], capture_output=True, text=True, check=True)
    wanted = re.findall(r"^ +(--[a-z-]+)", script, re.MULTILINE)
    assert wanted
    listed = re.findall(r"^  (-.*)", asked.stdout, re.MULTILINE)
    known = {option for line in listed for option in re.findall(r"--[a-z-]+", line)}
    assert set(wanted) <= known


def test_the_token_is_in_a_file_and_nowhere_else() -> None:
    """The notebook's token is in no script and in no text that a log might get."""
    assert PLAN.notebook
    service = PLAN.notebook.service(M5_XLARGE)
    assert service.files["jupyter.token"] == "tok&en"
    assert "tok&en" not in service.files["jupyter_server_config.py"]
    assert service.page and service.page.headers == {"Authorization": "token tok&en"}
    assert "tok&en" not in service.script
    assert "tok&en" not in repr(service)
    assert "tok&en" not in repr(PLAN)


def test_workers_are_known_by_their_instances() -> None:
    """Dask appends numbers to a name exactly where there are several processes."""
    assert PLAN.workers[0].service(M5_XLARGE).members == ("i-3-0", "i-3-1", "i-3-2", "i-3-3")
    single = replace(SPEC, workers=(group(WORKER, settings={"nproc": 1}),))
    plan = services.stage_plan(single, INVENTORY, "t").workers[1]
    assert plan.service(M5_XLARGE).members == ("i-4",)


def test_plans_every_host_with_what_it_must_have() -> None:
    """Head, notebook and workers in this order, each with its software and its init commands."""
    hosts = list(PLAN.hosts())
    assert [host.node.instance_id for host in hosts] == ["i-2", "i-1", "i-3", "i-4"]
    assert {host.init_cmd for host in hosts} == {("true",)}
    assert [host.executables[0] for host in hosts] == ["dask", "jupyter", "dask", "dask"]
    assert PLAN.head and PLAN.head.oldest == {"dask": "2024.1"}
    assert PLAN.roll and (PLAN.roll.page.host, PLAN.roll.page.port) == ("10.0.0.2", 8787)


def test_a_notebook_alone_knows_no_cluster() -> None:
    """Without an engine there is a notebook only, and no address in its environment."""
    spec = replace(SPEC, engine=None, head=None, workers=())
    plan = services.stage_plan(spec, Inventory(notebook=node(NOTEBOOK, 1)), "t")
    assert plan.head is None and plan.workers == () and plan.notebook
    assert "DASK" not in plan.notebook.service(M5_XLARGE).script
    assert list(services.stage_plan(spec, Inventory(), "t").hosts()) == []


def test_workers_without_a_head_are_planned() -> None:
    """They must appear in the results, or a lost scheduler would hide them."""
    plan = services.stage_plan(SPEC, replace(INVENTORY, head=None), "t")
    assert plan.head is None
    assert len(plan.workers) == 2


def test_addresses_for_people() -> None:
    """The public addresses, or the private ones where there are none; tokens are quoted."""
    head = node(SCHEDULER, 2)
    assert dask.addresses(head) == {
        "dask_scheduler_address": "tcp://13.0.0.2:8786",
        "dask_dashboard_url": "http://13.0.0.2:8787/status",
    }
    assert services.notebook_url(head, "a&b") == "http://13.0.0.2:8888/?token=a%26b"
    below = Served(secure=True, base="/team/a/")
    url = services.notebook_url(head, "a&b", below)
    assert url == "https://13.0.0.2:8888/team/a/?token=a%26b"
    assert services.served(url) == below
    assert services.served(services.notebook_url(head, "t")) == Served()
    assert address(replace(head, public_ip="")) == "10.0.0.2"


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ('{"secure": true, "base_url": "/team/a/", "pid": 1}\n{"secure": 1}', (True, "/team/a/")),
        ('{"secure": false, "base_url": "/"}', (False, "/")),
        *((text, (False, "/")) for text in ("", "[]", "no", "[" * 5000, '{"secure": true}')),
        ('{"secure": "yes", "base_url": "/"}', (False, "/")),
        ('{"secure": true, "base_url": "/?token=x#/"}', (False, "/")),
        ('{"secure": true, "base_url": "//evil/"}', (False, "/")),
        ('{"secure": true, "base_url": "@evil/"}', (False, "/")),
        ('{"secure": true, "base_url": "/a\\u001b/"}', (False, "/")),
    ],
)
def test_what_a_server_tells_of_itself(told: str, found: tuple[bool, str]) -> None:
    """A host's description of JupyterLab is taken by its shape, or not at all."""
    assert services.described(told) == Served(*found)


def test_strings_are_data_for_the_shell(tmp_path: Path) -> None:
    """An instance id or address full of the shell's own signs is one argument, unchanged."""
    nasty = "a b;$(touch x)`y`'\"\\${z}"
    inventory = replace(INVENTORY, workers=(replace(node(WORKER, 3), instance_id=nasty),))
    machine = replace(MACHINE, env={"SAID": f"{nasty}\n'second'"})
    told = replace(group(WORKER, settings={"args": [nasty]}), machine=machine)
    spec = replace(SPEC, workers=(told,))
    service = services.stage_plan(spec, inventory, "t").workers[0].service(M5_XLARGE)
    script = service.script.replace("exec dask worker", "printf '%s\\n' \"$SAID\"")
    (tmp_path / "environment").write_text(service.files["environment"])
    (tmp_path / "it.sh").write_text(script)
    out = subprocess.run(
        ["bash", tmp_path / "it.sh"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert out.count(nasty) == 3 and "'second'" in out


def test_jupyters_server_asks_the_head_at_its_private_address() -> None:
    """Whoever made the settings: what goes to the head's public address goes to the private one."""
    from tornado.httpclient import AsyncHTTPClient

    head = node(SCHEDULER, 2)
    try:
        exec(services.within(head), {})
        made = AsyncHTTPClient(force_instance=True)
        assert made.resolver.mapping == {"13.0.0.2": "10.0.0.2"}  # type: ignore[attr-defined]
    finally:
        AsyncHTTPClient.configure(None)
    assert services.within(None) == services.within(replace(head, public_ip="")) == ""
