"""This host's size and software."""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

import os
import shutil
from pathlib import Path
from typing import Any, Dict, List

from bilbo.agent.software import installed, interpreter


def measure(packages: List[str], executables: List[str]) -> Dict[str, Any]:
    """Logical CPUs, threads per core, memory in bytes, executables and package versions.

    Looks for `packages` with the Python that runs the `executables`.
    """
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return {
        "cpus": os.cpu_count() or 1,
        "threads_per_core": threads_per_core(),
        "memory": int(meminfo["MemTotal"].split()[0]) * 1024,
        "executables": {name: shutil.which(name) for name in executables},
        **installed(interpreter(executables), packages),
    }


def threads_per_core() -> int:
    """How many logical CPUs share the first core; 1 if the kernel does not say."""
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
