"""`env`, `dask.config`, `dask.worker.args`: where they take effect, and where they never show."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import asyncssh
import pytest
from bilbo_cli import INSTANCE
from reliability import told
from ssh_hosts import Host, environments, processes_of, running

from bilbo import hostside, services
from bilbo.cluster.host_access import as_a_service, run_command
from bilbo.cluster.starting import start
from bilbo.cluster.work import Work
from bilbo.engines import dask, ray
from bilbo.errors import ProfileError, RecordError
from bilbo.hostside import Known
from bilbo.model import (
    NOTEBOOK,
    NOTEBOOK_PORT,
    SCHEDULER,
    ClusterSpec,
    Inventory,
    Node,
    SharedState,
    Target,
)
from bilbo.present.settings import settings_text, shown_override
from bilbo.profile import building
from bilbo.profile.checking import check_profile
from bilbo.profile.packages import with_packages
from bilbo.profile.places import Places
from bilbo.record import Record, Store, to_json
from bilbo.remote import Deadlines, KnownHosts, Remote, bring_up
from bilbo.render import render

SECRET = "s3cret value $HOME `id`"
CONFIG = {"distributed": {"worker": {"memory": {"target": 0.55}}}, "instance": "mine"}
DOCUMENT: dict[str, Any] = {
    "instance": {**INSTANCE, "env": {"TOKEN": SECRET, "BOTH": "common"}},
    "notebook": {},
    "dask": {
        "config": CONFIG,
        "worker": {
            "instance": {"env": {"BOTH": "worker's"}},
            "nproc": 1,
            "nthread": 1,
            "args": ["--lifetime", "1 hour"],
        },
    },
}


def spec(document: dict[str, Any] = DOCUMENT) -> ClusterSpec:
    check_profile(document)
    document = with_packages(document, Path(), Places())
    return building.build(document, "test", "us-east-1")


def test_env_is_merged_name_by_name() -> None:
    """A role's own variables go before the common ones, as tags do."""
    found = {group.name: dict(group.machine.env) for group in spec().groups()}
    assert found["notebook"] == {"TOKEN": SECRET, "BOTH": "common"}
    assert found["worker"] == {"TOKEN": SECRET, "BOTH": "worker's"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"instance": {"env": {"2X": ""}}}, "not begin with a digit"),
        ({"instance": {"env": {"BILBO_SERVICE": ""}}}, "bilbo sets the variables"),
        ({"instance": {"env": {"X": 1}}}, "must be a string"),
        ({"instance": {"env": {"X": "a\0b"}}}, "NUL"),
        ({"dask": {"worker": {"args": ["--nworkers", "2"]}}}, "--nworkers: nproc"),
        ({"dask": {"worker": {"args": ["--name=x"]}}}, "an option that bilbo sets"),
        ({"dask": {"config": []}}, "must be an object"),
        ({"ray": {"config": {}}}, "belongs in dask"),
    ],
)
def test_mistakes_are_named(wrong: dict[str, Any], said: str) -> None:
    """Each with what would be right."""
    with pytest.raises(ProfileError) as caught:
        check_profile(wrong)
    assert said in "\n".join(caught.value.details)


def test_values_of_env_are_in_nothing_that_is_shown_or_shared(tmp_path: Path) -> None:
    """HCL, a shared state's outputs, what a review compares, the record: hashes, or nothing."""
    shared = replace(spec(), state=SharedState("b", "us-east-1"), cidrs=("10.0.0.0/8",))
    for text in render(shared).values():
        assert SECRET not in text and "TOKEN" not in text
    compared = hostside.compare(shared, Known())
    assert "TOKEN" in settings_text(compared)
    assert SECRET not in repr((compared, hostside.values(shared), hostside.digests(shared)))
    assert "env" in hostside.digests(shared)["worker"]
    assert SECRET not in repr(shared.workers)
    assert shown_override(f"instance.env.TOKEN={SECRET}") == "instance.env.TOKEN=***"
    store = Store(tmp_path)
    store.prepare()
    store.save(record(DOCUMENT))
    told = store.path("test").read_text()
    assert SECRET not in told and "sha256:" in told
    assert SECRET not in json.dumps(to_json(store.load("test")))
    assert (tmp_path / "clusters" / "test" / "env.json").stat().st_mode & 0o777 == 0o600


def record(document: dict[str, Any]) -> Record:
    return Record("test", "ready", "us-east-1", "dask", "", document, "")


def test_the_record_gives_the_values_back(tmp_path: Path) -> None:
    """`scale` and `restart` know them; where they are lost, `create` is asked for by name."""
    store = Store(tmp_path)
    store.prepare()
    store.save(record(DOCUMENT))
    loaded = store.load("test")
    assert loaded.profile == DOCUMENT
    store.save(loaded)
    assert store.load("test").profile == DOCUMENT
    (tmp_path / "clusters" / "test" / "env.json").write_text("no")
    lost = store.load("test")
    built = building.build(lost.profile, "test", "us-east-1")
    node = Node("worker", "worker", "i-1", "", "", "", "", "", "", "", "")
    work = Work(store, Target("us-east-1"), progress=None)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=r"lost the values of env \(BOTH, TOKEN"):
        start(built, work, replace(lost, inventory=Inventory(workers=(node,))))
    store.save(lost)
    assert store.load("test").profile == lost.profile
    without = {**DOCUMENT, "instance": dict(INSTANCE), "dask": {}}
    store.save(record(without))
    assert not (tmp_path / "clusters" / "test" / "env.json").exists()


def test_a_plan_says_what_waits_for_a_restart() -> None:
    """Of a running cluster's changed keys; of a new one's none."""
    before = hostside.values(spec())
    env = {**DOCUMENT["instance"]["env"], "TOKEN": "other"}
    changed = {**DOCUMENT, "instance": {**DOCUMENT["instance"], "env": env, "init_cmd": ["true"]}}
    told = settings_text(hostside.compare(spec(changed), Known(before)))
    assert "What runs sees the new env, init_cmd only after `bilbo restart`" in told
    assert "other" not in told
    assert "bilbo restart" not in settings_text(hostside.compare(spec(changed), Known()))


def test_links_lead_where_a_browser_gets() -> None:
    """To the scheduler's public address, unless the profile's own configuration says otherwise."""
    head = Node(SCHEDULER, SCHEDULER, "i-1", "13.0.0.1", "10.0.0.1", "", "", "", "", "", "")
    found = dask.environment(head)
    assert found["DASK_SCHEDULER_ADDRESS"] == "tcp://10.0.0.1:8786"
    assert found["DASK_DISTRIBUTED__DASHBOARD__LINK"] == "http://13.0.0.1:8787/status"
    own = {"distributed": {"dashboard": {"link": "/proxy/{port}/status"}}}
    group = building.build(
        {"instance": INSTANCE, "dask": {"config": own}}, "test", "us-east-1"
    ).workers[0]
    assert "unset DASK_DISTRIBUTED__DASHBOARD__LINK" in dask.configure(group)[1]
    assert ray.member(head) == {"RAY_ADDRESS": "10.0.0.1:6379"}
    assert ray.environment(head) == {"RAY_ADDRESS": "ray://10.0.0.1:10001"}


LOOK = """
import json, os, dask
from dask.distributed import Client
with Client(timeout=20) as client:
    seen = client.run(lambda: [os.environ.get("TOKEN"), os.environ.get("BOTH"),
                               dask.config.get("distributed.worker.memory.target"),
                               dask.config.get("machine", None)])
    print(json.dumps([list(seen.values()), client.scheduler.address, client.dashboard_link,
                      os.environ.get("BOTH"), dask.config.get("machine", None)]))
"""


@pytest.mark.programs
def test_a_script_on_a_machine_finds_the_cluster(tmp_path: Path) -> None:
    """By `rcmd` and in a terminal of JupyterLab, as in a kernel, with `env` and `dask.config`; the
    machine's own DASK_CONFIG stays in force; no command line and no log holds a value."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o600)
    machines = [Host(tmp_path / name, key) for name in ("notebook", "scheduler", "worker")]
    own = tmp_path / "own.yaml"
    own.write_text("machine: its own\ndistributed: {worker: {memory: {target: 0.1}}}\n")
    machines[2].path = f"{Path(sys.executable).parent}:/usr/bin:/bin\nexport DASK_CONFIG={own}"
    store = Store(tmp_path / "home")
    store.prepare()
    (tmp_path / "home" / "clusters" / "test").mkdir()
    work = Work(store, Target("us-east-1"), progress=Silent())

    async def main() -> None:
        async with running(*machines):
            nodes = [
                host.node(tmp_path / "key.pem", role)
                for host, role in zip(machines, (NOTEBOOK, SCHEDULER, "worker"), strict=True)
            ]
            inventory = Inventory(nodes[0], nodes[1], (nodes[2],))
            plan = services.stage_plan(spec(), inventory, "token")
            remote = Remote(KnownHosts(tmp_path / "known_hosts"), Deadlines())
            results = await bring_up(plan, remote)
            assert [(r.ok, r.cause, r.log) for r in results] == [(True, "", ())] * 3
            for node in nodes[:2]:
                said = await asyncio.to_thread(by_rcmd, work, node)
                seen, scheduler, link, both, _ = said
                assert seen == [[SECRET, "worker's", 0.55, "its own"]]
                assert scheduler == f"tcp://{nodes[1].private_ip}:8786"
                assert link == f"http://{nodes[1].public_ip}:8787/status"
                assert both == "common"
            left = "the cluster's scheduler is asked, and no local one is started"
            told("A script that `bilbo rcmd` runs asks for a `Client()` without an address",
                 scheduler, 0, left)  # fmt: skip
            await asyncio.to_thread(terminal_of, machines[0], nodes[0])
            shows = [pid for pid, text in command_lines().items() if SECRET.encode() in text]
            assert shows == []
            for host in machines:
                folder = host.kept
                assert (folder / "environment").stat().st_mode & 0o777 == 0o600
                holders = {p.name for p in folder.glob("*") if p.is_file() and holds(p)}
                assert holders == {"environment"}
            again = await bring_up(plan, remote)
            assert all(result.facts["already"] for result in again)

    asyncio.run(main())


class Silent:
    """Progress that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def holds(path: Path) -> bool:
    return SECRET.encode() in path.read_bytes()


def command_lines() -> dict[int, bytes]:
    found = {}
    for pid in environments():
        try:
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
    return found


def by_rcmd(work: Work, node: Node) -> Any:
    """What a script says that `bilbo rcmd` runs on a machine."""
    said: list[bytes] = []
    command = f"{sys.executable} -c '{LOOK}'"
    (result,) = run_command(
        work, record(DOCUMENT), [node], command, on_output=lambda _, data, __: said.append(data)
    )
    assert result.exit_code == 0, (result, said)
    return json.loads(b"".join(said).splitlines()[-1])


def terminal_of(host: Host, node: Node) -> None:
    """A terminal of JupyterLab's has the cluster's address and the profile's variables."""
    before = set(processes_of(host))
    url = f"http://{node.public_ip}:{NOTEBOOK_PORT}/api/terminals"
    with urlopen(Request(url, data=b"", headers={"Authorization": "token token"})) as answer:
        assert json.load(answer)["name"]
    found = environments()
    new = [found[pid] for pid in set(processes_of(host)) - before if pid in found]
    assert new
    assert all(b"DASK_SCHEDULER_ADDRESS=tcp://" in each and b"TOKEN=" in each for each in new)


def test_every_shell_takes_the_words(tmp_path: Path) -> None:
    """A command with quotes, dollars and newlines runs as it was written, with the variables; where
    there is no such file, without them."""
    command = "echo \"it's $SAID\"\necho 'a  b'; exit 4"
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SHELL": "/bin/bash"}
    words = ["sh", "-c", as_a_service("test", "i-1", command)]
    first = subprocess.run(words, capture_output=True, text=True, check=False, env=home)
    assert (first.stdout, first.returncode) == ("it's \na  b\n", 4)
    folder = tmp_path / ".bilbo" / "test" / "i-1"
    folder.mkdir(parents=True)
    (folder / "environment").write_text(services.environment({"SAID": "x'y\nz"}))
    second = subprocess.run(words, capture_output=True, text=True, check=False, env=home)
    assert (second.stdout, second.returncode) == ("it's x'y\nz\na  b\n", 4)
