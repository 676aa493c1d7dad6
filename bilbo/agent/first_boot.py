"""Waits until this host is free for a person's own commands: its first boot may still install
packages, and package managers allow one user at a time."""

# ruff: noqa: UP006, UP035, UP045 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Dict, Iterable, Optional, Tuple

from bilbo.agent.channel import Client
from bilbo.agent.service import read_text, start_time

PAUSE = 0.25
# Held with flock or fcntl by dpkg, apt and rpm while they work.
LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
    "/var/lib/rpm/.rpm.lock",
    "/usr/lib/sysimage/rpm/.rpm.lock",
)
# With the pid of the yum, dnf or zypper that works.
PID_FILES = (
    "/var/run/yum.pid",
    "/var/cache/dnf/metadata_lock.pid",
    "/var/cache/dnf/download_lock.pid",
    "/var/lib/dnf/rpmdb_lock.pid",
    "/run/zypp.pid",
)


def wait_until_free(client: Client, seconds: float) -> None:
    """Wait for cloud-init and package managers -> `waiting` for each that it waits for, then `done`
    or `timeout`. Ends when the client sends another request or is gone."""
    end = time.monotonic() + seconds
    first_boot = None
    if shutil.which("cloud-init"):
        nothing = subprocess.DEVNULL
        command = ["cloud-init", "status", "--wait"]  # a failed first boot is over, too
        first_boot = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
    told = 0
    last = ""
    try:
        while True:
            cause = ""
            if first_boot and first_boot.poll() is None:
                cause = "cloud-init is still setting up the host"
            cause = cause or lock_holder(LOCKS, PID_FILES)
            if not cause:
                client.emit("done", ran=told)
                return
            if time.monotonic() > end:
                client.emit("timeout", cause=cause)
                return
            # cloud-init needs half a second to say that there is nothing to wait for.
            if cause != last and time.monotonic() > end - seconds + 1:
                client.emit("waiting", cause=cause)
                told, last = told + 1, cause
            if client.wants_more(PAUSE):
                return
    finally:
        if first_boot and first_boot.poll() is None:
            first_boot.kill()
            first_boot.wait(timeout=5)


def lock_holder(locks: Iterable[str], pid_files: Iterable[str]) -> str:
    """Who holds one of these; empty if nobody does. The files themselves may be root's alone."""
    held = _held_locks()
    for path in locks:
        with contextlib.suppress(OSError):
            found = os.stat(path)  # noqa: PTH116
            device = os.major(found.st_dev), os.minor(found.st_dev)
            pid = held.get((*device, found.st_ino))
            if pid is not None:
                return f"{_name(pid)} holds {path}"
    for path in pid_files:
        with contextlib.suppress(OSError, ValueError):
            pid = int(read_text(Path(path)).split("\n")[0] or 0)
            if pid > 0 and start_time(pid) is not None:
                return f"{_name(pid)} holds {path}"
    return ""


def _held_locks() -> Dict[Tuple[int, int, int], int]:
    """The pid that holds each locked file of this machine: see proc_locks(5)."""
    found = {}
    for line in read_text(Path("/proc/locks")).splitlines():
        words = line.split()
        if "->" in words:  # it waits for the lock
            continue
        with contextlib.suppress(IndexError, ValueError):
            major, minor, inode = words[5].split(":")
            found[(int(major, 16), int(minor, 16), int(inode))] = int(words[4])
    return found


def _name(pid: Optional[int]) -> str:
    """A process as people know it."""
    name = read_text(Path(f"/proc/{pid}/comm")).strip()
    return f"{name or 'a process'} ({pid})"
