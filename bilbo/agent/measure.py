"""What this host is and has."""

# ruff: noqa: UP006, UP035, UP045 - hosts may have Python 3.6, which knows no newer spelling

import os
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, Optional


def measure(packages: Iterable[str], executables: Iterable[str]) -> Dict[str, Any]:
    """Logical CPUs, threads per core, memory in bytes, and what is installed where."""
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return {
        "cpus": os.cpu_count() or 1,
        "threads_per_core": threads_per_core(),
        "memory": int(meminfo["MemTotal"].split()[0]) * 1024,
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "versions": {name: installed_version(name) for name in packages},
        "executables": {name: shutil.which(name) for name in executables},
    }


def threads_per_core() -> int:
    """How many logical CPUs share the first core; 1 where the kernel does not say."""
    try:
        siblings = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").read_text()
    except OSError:
        return 1
    return count_cpus(siblings)


def count_cpus(ranges: str) -> int:
    """How many CPUs the kernel names in a list such as `0,4` or `0-1`."""
    count = 0
    for part in ranges.strip().split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def installed_version(name: str) -> Optional[str]:
    """The version of a distribution that this Python can import, or None."""
    try:
        from importlib import metadata

        return metadata.version(name)
    except ImportError:  # also what a missing distribution raises; Python before 3.8 cannot tell
        return None
