"""This host's size and software."""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Dict, List

from bilbo.agent.software import installed, interpreter

INTERACTIVE_SECONDS = 5.0
# `.bashrc` may print anything, so each answer has the program's name and a space before its path.
LOOK = 'for name; do printf "\\n%s %s\\n" "$name" "$(command -v -- "$name")"; done'


def measure(packages: List[str], executables: List[str]) -> Dict[str, Any]:
    """Logical CPUs, threads per core, memory in bytes, GPUs, executables and package versions.

    Looks for `packages` with the Python that runs the `executables`. `elsewhere` are executables
    that only an interactive shell finds.
    """
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    found = {name: shutil.which(name) for name in executables}
    return {
        "cpus": os.cpu_count() or 1,
        "threads_per_core": threads_per_core(),
        "memory": int(meminfo["MemTotal"].split()[0]) * 1024,
        "gpus": gpus(),
        "executables": found,
        "elsewhere": of_interactive_shells([name for name in executables if not found[name]]),
        **installed(interpreter(executables), packages),
    }


def of_interactive_shells(names: List[str]) -> Dict[str, str]:
    """Where an interactive bash finds programs: conda puts itself on PATH in `.bashrc`, which other
    shells do not read, or not to its end."""
    if not names:
        return {}
    nothing = subprocess.DEVNULL
    child = subprocess.Popen(
        ["bash", "-ic", LOOK, "bash", *names],
        stdin=nothing,
        stdout=subprocess.PIPE,
        stderr=nothing,
        cwd=str(Path.home()),
        start_new_session=True,  # an interactive shell would take a terminal, if it had one
    )
    try:
        said = child.communicate(timeout=INTERACTIVE_SECONDS)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        said = ""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(timeout=INTERACTIVE_SECONDS)
    lines = [line.partition(" ") for line in said.splitlines()]
    return {name: path for name, _, path in lines if name in names and path.startswith("/")}


GPU_SECONDS = 30  # the driver may have to be loaded first
NO_GPUS = ("", "-1", "none", "void", "NoDevFiles")


def gpus() -> List[str]:
    """NVIDIA's GPUs that a process here may use, as CUDA_VISIBLE_DEVICES takes them.

    Those of the login shell's CUDA_VISIBLE_DEVICES, or else those that the driver lists.
    """
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        named = [each.strip() for each in told.split(",")]
        return [each for each in named if each not in NO_GPUS]
    return [str(number) for number in range(count_gpus())]


def count_gpus() -> int:
    """How many GPUs the driver lists; 0 without one."""
    program = shutil.which("nvidia-smi")
    if program:
        try:
            listed = subprocess.check_output(
                [program, "-L"],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=GPU_SECONDS,
            )
            # A line for each GPU; the parts of one that is divided (MIG) are indented.
            return sum(line.startswith(b"GPU ") for line in listed.splitlines())
        except (OSError, subprocess.SubprocessError):
            pass  # a driver that does not fit its program is still asked through the kernel
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


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
