"""The Python packages of this host, as seen by the Python that runs its services."""

# ruff: noqa: UP006, UP035, UP045 - hosts may have Python 3.6, which knows no newer spelling

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional

from bilbo.agent.first import LIBRARY_FIRST
from bilbo.agent.service import open_private, read_text, write_private

LOOK_SECONDS = 30
# A Python's report about itself. Before 3.8 it cannot list what is installed.
LOOK = """
import json, sys
try:
    from importlib import metadata
except ImportError:
    metadata = None
def version(name):
    try:
        return metadata.version(name)
    except Exception:
        return None
def look(names):
    python = "{}.{}.{}".format(*sys.version_info[:3])
    return {"python": python, "versions": {name: version(name) for name in names}}
"""
PIP = LIBRARY_FIRST + "import runpy; runpy.run_module('pip', run_name='__main__', alter_sys=True)"
TELL = LIBRARY_FIRST + LOOK + "print(json.dumps(look(json.loads(sys.argv[1]))))"


def interpreter(executables: Iterable[str]) -> str:
    """The Python that runs the first of the programs that is a Python script, else ours."""
    for path in filter(None, map(shutil.which, executables)):
        found = python_of(Path(path))
        if found:
            return found
    return sys.executable


def python_of(script: Path) -> Optional[str]:
    """The Python that a script's first lines name."""
    try:
        with script.open("rb") as file:
            first, second = (file.readline(4096).decode(errors="replace") for _ in range(2))
    except OSError:
        return None
    if not first.startswith("#!"):
        return None
    words = first[2:].split()
    # pip's workaround for a path that is too long or has spaces: sh runs it in the second line.
    through_sh = re.match(r"'''exec' (?:\"([^\"]+)\"|(\S+)) ", second)
    if through_sh:
        python: Optional[str] = through_sh.group(1) or through_sh.group(2)
    elif words and os.path.basename(words[0]) == "env":  # noqa: PTH119
        python = shutil.which(words[-1])
    else:
        python = words[0] if words else None
    is_python = python and "python" in os.path.basename(python)  # noqa: PTH119
    return python if is_python and os.access(str(python), os.X_OK) else None


def installed(python: str, packages: Iterable[str]) -> Dict[str, Any]:
    """`python`, its version, and `versions`, each package's or None if not installed."""
    if is_this_python(python):  # as on most images; starting another costs as much as the agent
        here: Dict[str, Any] = {}
        exec(LOOK, here)
        return dict(here["look"](list(packages)))
    answer = subprocess.run(
        [python, "-c", TELL, json.dumps(list(packages))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=LOOK_SECONDS,
        check=True,
        cwd=str(Path.home()),
    )
    found: Dict[str, Any] = json.loads(answer.stdout.decode())
    return found


def is_this_python(python: str) -> bool:
    """Whether that Python has the same packages as this one.

    A virtual environment's Python links to another's, so the folder must be the same too.
    """
    there, here = Path(python), Path(sys.executable)
    return there.parent == here.parent and there.resolve() == here.resolve()


def packages_mark(python: str, lines: List[str]) -> str:
    """What `packages.done` holds once these requirement lines are installed for a Python."""
    import hashlib  # takes 4 ms, and only installing needs it

    return hashlib.sha256("".join(f"{line}\n" for line in (python, *lines)).encode()).hexdigest()


def are_installed(folder: Path, python: str, lines: List[str]) -> bool:
    """Whether these requirement lines were the last ones installed."""
    return read_text(folder / "packages.done") == packages_mark(python, lines)


def install(folder: Path, python: str, lines: List[str]) -> Optional[int]:
    """Install requirement lines with pip for a Python, with its output in `packages.log`.

    Returns pip's exit code; None if the lines were the last ones installed.
    """
    if are_installed(folder, python, lines):
        return None
    write_private(folder / "packages.txt", "".join(line + "\n" for line in lines))
    log = open_private(folder / "packages.log", os.O_APPEND)
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    try:
        code = subprocess.call(
            [python, "-c", PIP, "install", *options, "-r", str(folder / "packages.txt")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=str(Path.home()),
        )
    finally:
        os.close(log)
    if code == 0:
        write_private(folder / "packages.done", packages_mark(python, lines))
    return code
