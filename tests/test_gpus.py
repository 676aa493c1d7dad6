"""GPUs, measured on the host, and the machine's own Dask settings beside bilbo's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from ssh_hosts import Host, running

from bilbo import services
from bilbo.agent import measure, settings_dask
from bilbo.engines import dask
from bilbo.model import (
    SCHEDULER,
    WORKER,
    ClusterSpec,
    HostResult,
    Inventory,
    Machine,
    Measurement,
    NodeGroup,
)
from bilbo.remote import Deadlines, KnownHosts, Remote, bring_up

MACHINE = Machine("ami-1", "g5.xlarge", "key", "ubuntu", "key.pem")
LISTED = """\
GPU 0: NVIDIA A10G (UUID: GPU-5a1b)
  MIG 1g.5gb      Device  0: (UUID: MIG-1)
GPU 1: NVIDIA A10G (UUID: GPU-5a1c)
"""


def workers(**values: Any) -> NodeGroup:
    return NodeGroup(WORKER, WORKER, "test-worker", MACHINE, **values)


@pytest.mark.parametrize(
    ("gpus", "settings", "processes", "own"),
    [
        (0, {}, 4, 0),
        (1, {}, 1, 1),
        (4, {}, 4, 4),
        (4, {"nproc": 4}, 4, 4),
        (4, {"nproc": 1}, 1, 0),
        (1, {"nproc": 4}, 4, 0),
    ],
)
def test_a_process_for_each_gpu(
    gpus: int, settings: dict[str, int], processes: int, own: int
) -> None:
    """`nproc` wins; what is another number than the GPUs sees all of them."""
    measured = Measurement(4, 2, 16 << 30, tuple(map(str, range(gpus))))
    group = workers(settings=settings)
    assert dask.worker_size(measured, group).nworkers == processes
    assert len(dask.own_gpus(measured, group)) == own
    said = dask.estimate(group, measured)
    assert said.startswith(f"Processes: {processes}, ") and ("GPU" in said) == bool(own)


def smi(folder: Path, script: str) -> str:
    """A PATH with a fake nvidia-smi that goes before all others."""
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    return f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin"


LIST = f"cat <<'END'\n{LISTED}END"


@pytest.mark.parametrize(
    ("script", "visible", "found"),
    [
        (LIST, None, ["0", "1"]),
        (f"{LIST}\nexit 9", None, []),
        ("echo 'No devices were found'", None, []),
        ("exec sleep 100", None, []),
        (LIST, "1", ["1"]),
        (LIST, "GPU-5a1c, GPU-5a1b", ["GPU-5a1c", "GPU-5a1b"]),
        (LIST, "", []),
        (LIST, "NoDevFiles", []),
    ],
)
def test_gpus_are_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    visible: str | None,
    found: list[str],
) -> None:
    """As the driver lists them, unless the login shell says which; a broken driver has none."""
    monkeypatch.setenv("PATH", smi(tmp_path / "bin", script))
    # One of the drivers never ends: half a minute of waiting for it would show nothing more.
    monkeypatch.setattr(measure, "GPU_SECONDS", 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert measure.gpus() == found


def test_each_process_has_its_own_device() -> None:
    """By the number that Dask gives its name."""
    assert [settings_dask.device(f"i-0-{n}", "3,1,2") for n in range(3)] == ["3", "1", "2"]
    assert settings_dask.device("i-0f", "7") == "7"


LOOK = """
import json, os, sys
from dask.distributed import Client
with Client(sys.argv[1], timeout=20) as client:
    seen = client.run(lambda: os.environ.get("CUDA_VISIBLE_DEVICES"))
    info = client.scheduler_info(n_workers=-1)["workers"]
    folders = [each["local_directory"] for each in info.values()]
    print(json.dumps([sorted(seen.values()), [w["resources"] for w in info.values()], folders]))
"""
CONFIG = """
temporary-directory: {home}/fast
distributed:
  nanny:
    preload: [{home}/own.py]
"""
OWN = """
def dask_setup(nanny):
    open("{home}/preloaded", "a").write(f"{{nanny.name}} ")
"""


def look(address: str) -> Any:
    """What the workers of a cluster say of themselves, asked from a process of its own."""
    words = [sys.executable, "-c", LOOK, address]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.programs
def test_a_worker_with_two_gpus(tmp_path: Path) -> None:
    """Each process sees its GPU and offers it; the machine's preload runs, its folder is used."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o600)
    head_host = Host(tmp_path / "head", key)
    host = Host(tmp_path / "worker", key, path=smi(tmp_path / "bin", LIST))
    config = host.home / ".config" / "dask"
    config.mkdir(parents=True)
    (config / "mine.yaml").write_text(CONFIG.format(home=host.home))
    (host.home / "own.py").write_text(OWN.format(home=host.home))
    scheduler = NodeGroup(SCHEDULER, SCHEDULER, "test-scheduler", MACHINE)
    group = workers(settings={"nthread": 1})
    spec = ClusterSpec("test", "us-east-1", engine="dask", head=scheduler, workers=(group,))

    async def main() -> tuple[tuple[HostResult, ...], Any]:
        async with running(head_host, host):
            head = head_host.node(tmp_path / "key.pem", SCHEDULER)
            inventory = Inventory(None, head, (host.node(tmp_path / "key.pem"),))
            plan = services.stage_plan(spec, inventory, "t")
            remote = Remote(KnownHosts(tmp_path / "known_hosts"), Deadlines())
            results = await bring_up(plan, remote)
            address = dask.addresses(head)["dask_scheduler_address"]
            return results, await asyncio.to_thread(look, address)

    results, (devices, offered, folders) = asyncio.run(main())
    assert [(r.ok, r.cause) for r in results] == [(True, "")] * 2
    assert devices == ["0", "1"]
    assert offered == [{"GPU": 1}] * 2
    assert all(each.startswith(f"{host.home}/fast/dask-scratch-space/") for each in folders)
    name = results[1].node.instance_id
    assert sorted((host.home / "preloaded").read_text().split()) == [f"{name}-0", f"{name}-1"]
