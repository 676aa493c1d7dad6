"""Has this host's root file system fill its disk, which may have been grown."""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

import shutil
import time
from typing import List

from bilbo.agent.boot import said
from bilbo.agent.service import Failure

GIB = 1 << 30
# What a disk may have besides its partitions; EC2 grows disks by whole GiB.
SLACK = GIB // 2
# How long the kernel may take to see a disk's new size.
SEEN_SECONDS = 10.0
GROW_SECONDS = 300.0


def grow(gib: int) -> bool:
    """Grow the root partition and its file system if the disk of `gib` GiB has room behind them.

    Returns whether there was anything to grow. Raises Failure, which says why it could not. cloud-
    init does this at each boot, and this for a disk that grew since. Source of the steps: Amazon
    EBS User Guide, "Extend the file system after resizing an Amazon EBS volume".
    """
    device, kind = [*said(["findmnt", "-nvro", "SOURCE,FSTYPE", "/"]).split(), "", ""][:2]
    rows = table(["lsblk", "-bnrso", "NAME,TYPE,SIZE", device])
    if [row[1] for row in rows] != ["part", "disk"]:
        kinds = " on ".join(row[1] for row in rows)
        raise Failure(f"its root file system is on: {kinds or 'nothing that lsblk knows'}")
    partition, disk = rows[0][0], rows[1][0]
    if not room_behind(disk, gib):
        return False
    # A full file system has no room for growpart's own files.
    as_root(
        ["env", "TMPDIR=/dev/shm", "growpart", f"/dev/{disk}", partition[len(disk) :].strip("p")]
    )
    if kind in ("ext2", "ext3", "ext4"):
        as_root(["resize2fs", device])
    elif kind == "xfs":
        as_root(["xfs_growfs", "/"])
    else:
        raise Failure(f"its partition was grown, but not its file system, which is {kind}")
    return True


def room_behind(disk: str, gib: int) -> bool:
    """Whether the disk has room behind its partitions. Raises Failure if it has not grown yet."""
    end = time.monotonic() + SEEN_SECONDS
    while True:
        rows = table(["lsblk", "-bnro", "TYPE,SIZE", f"/dev/{disk}"])
        size = sum(int(row[1]) for row in rows if row[0] == "disk")
        if size - sum(int(row[1]) for row in rows if row[0] == "part") >= SLACK:
            return True
        if size >= gib * GIB:
            return False
        if time.monotonic() > end:
            raise Failure(f"the host still sees a disk of {size // GIB} GiB")
        time.sleep(0.5)


def table(argv: List[str]) -> List[List[str]]:
    """A program's output as rows of words."""
    return [line.split() for line in said(argv).splitlines()]


def as_root(argv: List[str]) -> None:
    """Run a program by sudo, if there is one. Raises Failure."""
    sudo = ["sudo", "-n"] if shutil.which("sudo") else []
    said([*sudo, *argv], seconds=GROW_SECONDS)
