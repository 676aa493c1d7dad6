"""Engines behind their one interface: what Ray runs, and what holds for every engine."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bilbo import services
from bilbo.agent.leave_ray import Head, leave
from bilbo.agent.watch import members
from bilbo.engines import ENGINES, Engine, ray
from bilbo.model import HEADS, ClusterSpec, Inventory, Measurement, Node
from bilbo.profile import building, checking

MACHINE = Measurement(cpus=4, threads_per_core=2, memory=16 * 2**30)
INSTANCE = {
    "ami": "ami-12345678",
    "ec2type": "m5.xlarge",
    "keyname": "key",
    "ssh_user": "ubuntu",
    "ssh_private_key": "~/key.pem",
}
SCRIPT = """\
exec ray start \\
    --address 10.0.0.2:6379 \\
    --node-ip-address 10.0.0.3 \\
    --node-name i-3 \\
    --num-cpus 4 \\
    --block \\
"""


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


def spec(engine: str, part: dict[str, Any]) -> ClusterSpec:
    document = {"region": "us-east-1", "instance": INSTANCE, "notebook": {}, engine: part}
    checking.check_profile(document)
    return building.build(document, "test")


def inventory(engine: Engine) -> Inventory:
    workers = (node("worker", 3), node("worker", 4))
    return Inventory(node("notebook", 1), node(engine.head_role, 2), workers)


def scripts(part: dict[str, Any]) -> list[str]:
    plan = services.stage_plan(spec("ray", part), inventory(ray.RAY), "t")
    return [host.service(MACHINE).script for host in plan.hosts()]


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_every_engine_is_whole(engine: Engine) -> None:
    """Its profile, machines' names, ports, addresses, scripts and program for leaving are there."""
    found = spec(engine.name, {engine.head_role: {}, "worker": {"count": 2}})
    assert found.engine == engine.name and engine.head_role in HEADS
    assert found.head and found.head.instance_name == f"test-{engine.name}-{engine.head_role}"
    assert found.workers[0].instance_name == f"test-{engine.name}-worker"
    assert engine.ports.items() <= found.ports.items()
    addresses = engine.addresses(node(engine.head_role, 2))
    assert all(key.startswith(f"{engine.name}_") for key in addresses)
    assert addresses[engine.dashboard].startswith("http://13.0.0.2:")
    assert "13.0.0.2" in (engine.how_to_connect(addresses) or "")
    assert engine.how_to_connect({}) is None
    assert engine.packages and {*engine.breaking} <= {*engine.packages}
    plan = services.stage_plan(found, inventory(engine), "t")
    for host in plan.hosts():
        made = host.service(MACHINE)
        assert made.page or made.members
        subprocess.run(["bash", "-n"], input=made.script, text=True, check=True)
    assert plan.notebook
    for name in engine.notebook(node(engine.head_role, 2)):
        assert f"export {name}=" in plan.notebook.service(MACHINE).files["environment"]
    programs = Path(services.__file__).parent / "agent"
    assert (programs / f"{engine.leave}.py").is_file()


def test_ray_computes_on_its_workers() -> None:
    """The head offers no CPU and a worker all that its host has, unless the profile says so."""
    head, _, worker, _ = scripts({})
    assert "    --num-cpus 0 \\\n" in head and SCRIPT in worker
    said = {"num_cpus": 2, "num_gpus": 1, "resources": {"slot": 2}, "object_store_memory": 10**9}
    head, _, worker, _ = scripts({"head": {"num_cpus": 1}, "worker": said})
    assert "    --num-cpus 1 \\\n" in head
    for option in (
        "--num-cpus 2",
        "--num-gpus 1",
        "--resources '{\"slot\": 2}'",
        "--object-store-memory 1000000000",
    ):
        assert f"    {option} \\\n" in worker


@pytest.mark.programs
def test_ray_knows_every_option() -> None:
    """Each option is one that the installed Ray lists in its help, or an old hidden one."""
    program = Path(sys.executable).parent / "ray"
    asked = subprocess.run(
        [program, "start", "--help"], capture_output=True, text=True, check=True
    ).stdout
    said = {"num_gpus": 1, "resources": {"slot": 2}, "object_store_memory": 10**9}
    wanted = {
        option
        for script in scripts({"head": said, "worker": said})
        if "ray start" in script
        for option in re.findall(r"^ +(--[a-z-]+)", script, re.MULTILINE)
    }
    assert {option for option in wanted if f"  {option} " not in asked} == {"--node-name"}


def test_ray_s_sockets_have_short_paths() -> None:
    """The folder that Ray is given stays short, whatever the length of the cluster's name."""
    long = "n" * 40
    named = replace(spec("ray", {}), name=long)
    plan = services.stage_plan(named, inventory(ray.RAY), "t")
    assert plan.head
    (folder,) = re.findall(r"^folder=(.*)\$\(", plan.head.service(MACHINE).script, re.MULTILINE)
    socket = "/session_2026-11-22_09-42-57_123456_1234567/sockets/dash_MetricsHead"
    assert len(f"{folder}0123456789abcdef{socket}") <= 107


def test_reads_who_has_joined_where_the_engine_says() -> None:
    """Dask and Ray list their workers under keys of their own."""
    dask_roll = ENGINES["dask"].roll(node("scheduler", 2))
    ray_roll = ENGINES["ray"].roll(node("head", 2))
    listed = [{"name": "i-3", "address": "tcp://1"}, {"name": "i-4", "address": "tcp://2"}]
    where = {"items": dask_roll.items, "name": dask_roll.name, "address": dask_roll.address}
    assert members({"workers": listed}, where) == {"i-3": "tcp://1", "i-4": "tcp://2"}
    nodes = [{"node_name": "i-3", "node_id": "a"}, {"node_name": "i-4", "node_id": "b"}]
    where = {"items": ray_roll.items, "name": ray_roll.name, "address": ray_roll.address}
    found = members({"data": {"result": {"result": nodes}}}, where)
    assert found == {"i-3": "a", "i-4": "b"}


class Known(Head):
    """A head of Ray's that knows three nodes, of which the drained ones without actors end."""

    def __init__(self, actors: set[str]) -> None:
        super().__init__("nowhere")
        self.alive = {"i-1": "a", "i-2": "b", "i-3": "c"}
        self.actors = actors

    def nodes(self) -> dict[str, str]:
        return dict(self.alive)

    def busy(self) -> list[str]:
        return ["a", "a", "c"]

    def settled(self) -> set[str]:
        return self.actors

    def drain(self, nodes: list[str]) -> None:
        stay = {each for each in self.alive.values() if each not in nodes or each in self.actors}
        self.alive = {name: each for name, each in self.alive.items() if each in stay}


def test_the_idle_leave_ray_first_and_actors_stay() -> None:
    """Who is not in goes first, then who has least to do; hosts with actors only if they must."""
    group = {"hosts": ["i-1", "i-2", "i-3", "i-gone"], "leave": 2}
    asked = {"groups": [group], "must": False}
    assert leave(Known(set()), asked) == {"left": ["i-gone", "i-2"], "kept": []}
    assert leave(Known({"b"}), asked) == {"left": ["i-gone", "i-3"], "kept": []}
    everyone = {"groups": [{**group, "leave": 4}], "must": False}
    kept = "i-2: its actors would be lost with all that they hold"
    assert leave(Known({"b"}), everyone) == {"left": [], "kept": [kept]}
    began = time.monotonic()
    forced = leave(Known({"b"}), {**everyone, "must": True})
    assert time.monotonic() - began < 5  # an actor that has nothing to do is not waited for
    assert sorted(forced["left"]) == ["i-1", "i-2", "i-3", "i-gone"]


# -- a third engine -------------------------------------------------------------------------

PROJECT = Path(services.__file__).parent.parent
# What docs/engines.md says that a third engine is: a module, the schema, and `ENGINES`.
BUILD = """
from dataclasses import replace

from bilbo import render
from bilbo.engines import ENGINES
from test_engines import spec, test_every_engine_is_whole

test_every_engine_is_whole(ENGINES["third"])
third = replace(spec("third", {"worker": {"count": 3}}), cidrs=("203.0.113.7/32",))
main = render.render(third)["main.tf"]
assert "test-third-worker" in main and "test-third-head" in main
"""


def test_a_third_engine_takes_three_places(tmp_path: Path) -> None:
    """A copy of bilbo with a third engine in the three places that docs/engines.md names, and in
    no other, reads its profile, renders it and starts it."""
    for folder in ("bilbo", "schemas", "templates"):
        shutil.copytree(
            PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    engines = tmp_path / "bilbo" / "engines"
    text = (engines / "ray.py").read_text(encoding="utf-8")
    text = text.replace('name="ray"', 'name="third"').replace('"ray_', '"third_')
    (engines / "third.py").write_text(text.replace("RAY =", "THIRD ="), encoding="utf-8")

    path = tmp_path / "schemas" / "profile-01.schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    schema["properties"]["third"] = schema["properties"]["ray"]
    path.write_text(json.dumps(schema), encoding="utf-8")

    path = engines / "__init__.py"
    text = path.read_text(encoding="utf-8").replace("(DASK, RAY)", "(DASK, RAY, THIRD)")
    text = text.replace("import RAY\n", "import RAY\nfrom bilbo.engines.third import THIRD\n")
    path.write_text(text, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-c", BUILD],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(PROJECT / "tests")))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_only_an_engine_s_own_files_name_it() -> None:
    """No code outside `engines/` and the agent's programs of one engine compares with an engine's
    name, its packages or services, or imports its module."""
    own = {
        f"{kind}_{name}.py" for name in ENGINES for kind in ("leave", "await", "roll", "figures")
    }
    services_ = {f"{each.name}-{role}" for each in ENGINES.values() for role in (*HEADS, "worker")}
    names = {*ENGINES, *services_, "distributed", *(f"bilbo.engines.{name}" for name in ENGINES)}
    found = []
    for path in sorted((PROJECT / "bilbo").rglob("*.py")):
        if path.parent.name == "engines" or path.name in own:
            continue
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(each, ast.Constant):
                said = each.value
            elif isinstance(each, ast.ImportFrom):
                said = each.module
            else:
                continue
            if isinstance(said, str) and said in names:
                found.append(f"{path.relative_to(PROJECT)}:{each.lineno}: {said}")
    assert not found, "\n".join(found)
