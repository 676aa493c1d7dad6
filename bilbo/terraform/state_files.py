"""The files in which Terraform keeps a state on this machine, and what a full disk makes of them.

Terraform writes a state in place, and a state that it cannot write into `errored.tfstate` beside
it. Source: internal/states/statemgr/filesystem.go, and writeLocalErroredState in
internal/backend/local/backend_apply.go.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bilbo.files import private_write

STATE, ERRORED = "terraform.tfstate", "errored.tfstate"
# With less than this a state cannot be written.
_FULL_BYTES = 64 * 1024


def is_whole(path: Path) -> bool:
    """Whether a file is there and holds a complete JSON object."""
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        return False


def cut_off(folder: Path) -> list[Path]:
    """The files of the folder that should hold a state, and were not written to their end.

    An empty `terraform.tfstate` is none: Terraform creates it before it has a state.
    """
    errored, state = folder / ERRORED, folder / STATE
    found = [errored] if errored.is_file() and not is_whole(errored) else []
    if state.is_file() and state.stat().st_size and not is_whole(state):
        found.append(state)
    return found


def set_aside(path: Path) -> Path:
    """Renames such a file, and returns its new path; Terraform's backup, if it is whole, takes the
    place of the state. Raises OSError."""
    aside = path.with_name(f"{path.name}.cut-off")
    path.replace(aside)
    backup = path.with_name(f"{STATE}.backup")
    if path.name == STATE and is_whole(backup):
        private_write(path, backup.read_bytes())
    return aside


def full_text(folder: Path) -> str:
    """What to say of a disk that is full; empty if it is not, or if there is no such folder."""
    try:
        full = shutil.disk_usage(folder).free < _FULL_BYTES
    except OSError:
        return ""
    return f"The disk that holds {folder} is full." if full else ""
