"""A volume that has grown: the file system follows, and where it cannot, a person is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from ssh_hosts import Host, own_programs, running

from bilbo.aws import Ami, image_problems
from bilbo.cluster.volumes import check_volumes
from bilbo.cluster.work import Work
from bilbo.errors import AwsError
from bilbo.model import HostPlan, HostResult, Page, Service, StagePlan, Target
from bilbo.profile import building
from bilbo.record import Store
from bilbo.remote import Deadlines, KnownHosts, Remote, bring_up
from bilbo.terraform import PlannedChange

GIB = 1 << 30


class Disk:
    """A host with a disk, whose partition and file system may not fill it."""

    def __init__(self, folder: Path, gib: int, used: int) -> None:
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.key_path = folder / "key.pem"
        self.key.write_private_key(self.key_path)
        self.key_path.chmod(0o600)
        self.host = Host(folder / "host", self.key)
        machine = own_programs(self.host.home).parent
        self.places, self.etc = machine / "dev", machine / "etc"
        self.places.mkdir(parents=True)
        self.etc.mkdir()
        for name, size in (("disk", gib), ("part", used), ("fs", used)):
            (self.places / name).write_text(str(size * GIB))
        self.remote = Remote(KnownHosts(folder / "known_hosts"), Deadlines(20, 60, 60, 60))

    def sizes(self) -> list[int]:
        """GiB of the disk, its partition and its file system."""
        return [int((self.places / name).read_text()) // GIB for name in ("disk", "part", "fs")]

    def brought_up(self, *, gib: int, times: int = 1) -> list[HostResult]:
        """The host's results, of one stage after the other."""

        async def asked() -> list[HostResult]:
            async with running(self.host):
                node = self.host.node(self.key_path)
                page = Page(node.private_ip, 7999, "/")
                server = f"exec python3 -m http.server --bind {node.private_ip} 7999"
                service = Service("server", server, page=page)
                plan = HostPlan(node, "server", lambda _: service, disk=gib)
                stages = [StagePlan("test", notebook=plan)] * times
                return [(await bring_up(each, self.remote))[0] for each in stages]

        return asyncio.run(asked())


def test_a_file_system_fills_its_grown_disk(tmp_path: Path) -> None:
    """Partition and file system grow once; then there is nothing to do."""
    disk = Disk(tmp_path, 20, 8)
    first, second = disk.brought_up(gib=20, times=2)
    assert (first.ok, first.facts["grown"], first.facts["disk"]) == (True, True, "")
    assert disk.sizes() == [20, 20, 20]
    assert (second.ok, second.facts["grown"], second.facts["disk"]) == (True, False, "")


@pytest.mark.parametrize(
    ("refuses", "why"),
    [
        ("growpart", "growpart: command not found"),
        ("resize2fs", "resize2fs: command not found"),
        ("sudo", "a password is required"),
        ("findmnt", "findmnt: command not found"),
        ("lsblk", "lsblk: command not found"),
    ],
)
def test_what_cannot_grow_breaks_nothing(tmp_path: Path, refuses: str, why: str) -> None:
    """A host that lacks a program, or asks a password, gets its service; the reason is kept."""
    disk = Disk(tmp_path, 20, 8)
    (disk.etc / "refuses").write_text(f"{refuses}\n")
    (result,) = disk.brought_up(gib=20)
    assert result.ok, result
    assert why in result.facts["disk"]
    assert not result.facts["grown"] and disk.sizes()[2] == 8


def test_a_disk_of_the_amis_size_is_not_looked_at(tmp_path: Path) -> None:
    """Without vol_size nobody asks, even where there is room: a person may want it."""
    disk = Disk(tmp_path, 20, 8)
    (result,) = disk.brought_up(gib=0)
    assert result.ok and "disk" not in result.facts
    assert disk.sizes() == [20, 8, 8]


# -- the plan ------------------------------------------------------------------------------

INSTANCE = {
    "ami": "ami-1", "ec2type": "t3.micro", "keyname": "k", "ssh_user": "u", "ssh_private_key": "k",
}  # fmt: skip
ADDRESS = "module.notebook.aws_instance.this"
CHANGED = [PlannedChange(ADDRESS, "aws_instance", "update")]


class Said(list[str]):
    """What bilbo says."""

    def say(self, text: str) -> None:
        self.append(text)


def checked(vol_size: int, changes: list[PlannedChange] = CHANGED, **told: Any) -> list[str]:
    """What is said of a notebook whose volume has 20 GiB, or another `root_block_device`."""
    document = {"instance": {**INSTANCE, "vol_size": vol_size}, "notebook": {}}
    spec = building.build(document, "one", "us-east-1")
    resource = {
        "module": "module.notebook", "mode": "managed", "type": "aws_instance", "name": "this",
        "instances": [{"attributes": {"root_block_device": [{"volume_size": 20}], **told}}],
    }  # fmt: skip
    progress: Any = Said()
    target = Target("us-east-1")
    work = Work(Store(Path("nowhere")), target, progress)
    check_volumes(spec, work, {"resources": [resource]}, changes)
    return list(progress)


def test_a_plan_says_that_a_volume_grows_and_refuses_that_it_shrinks() -> None:
    """With both sizes; not for a machine that is replaced, or whose volume has the size."""
    assert checked(30) == [
        "The volume of the notebook grows from 20 to 30 GiB while it runs; `create` grows its "
        "file system, too."
    ]
    with pytest.raises(AwsError, match="notebook has 20 GiB, vol_size is 10"):
        checked(10)
    assert checked(20) == []
    assert checked(10, [PlannedChange(ADDRESS, "aws_instance", "replace")]) == []
    assert checked(30, root_block_device=[{}]) == checked(30, root_block_device=None) == []


def test_a_volume_that_is_smaller_than_its_ami_is_refused() -> None:
    """With both sizes and the remedy; without vol_size, or if it suffices, nothing is said."""
    amis: Any = {"ami-1": Ami("x86_64", "/dev/sda1", 8), "ami-2": None}

    def problems(**more: Any) -> list[str]:
        document = {"instance": {**INSTANCE, **more}, "notebook": {}}
        groups = list(building.build(document, "one", "us-east-1").groups())
        return image_problems("us-east-1", groups, amis)

    assert problems(vol_size=7) == [
        "vol_size 7 is less than the 8 GiB of the AMI ami-1: leave it out, or set at least 8"
    ]
    assert problems(vol_size=8) == problems() == []
    assert problems(ami="ami-2", vol_size=1) == ["the AMI ami-2 does not exist in us-east-1"]
