"""`render`: only the Terraform files, for a repository, written to a folder of your own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bilbo import aws
from bilbo.cluster.ownership import owner_in
from bilbo.cluster.purchases import with_purchases
from bilbo.cluster.reviewed import must_name_its_callers
from bilbo.cluster.root_devices import known_root_devices
from bilbo.errors import RenderError
from bilbo.model import ClusterSpec, Target
from bilbo.render import render

_HEADER = re.compile(r'# Cluster "([^"]+)", written by bilbo ')


def export(spec: ClusterSpec, folder: Path, target: Callable[[], Target]) -> list[str]:
    """Writes the cluster's HCL to `folder`, and returns the paths that it wrote, sorted.

    The account is the profile's; owner and root devices come from a shared state at `target`: none
    makes the files differ between machines. Root devices in no state become a variable. Files that
    are not HCL, including `.terraform.lock.hcl`, are left alone. Raises RenderError for what
    depends on the caller, or before overwriting a file that is not bilbo's; AwsError if a shared
    state cannot be read.
    """
    self_contained(spec)
    if spec.state:
        state = aws.shared_state(target(), spec.state, spec.name)
        devices = known_root_devices(spec, state)
        spec = replace(spec, owner=owner_in(state), root_devices=devices)
        spec = with_purchases(spec, state)
    files = render(spec)
    _ours(spec, folder, files)
    _no_links(folder, files)
    try:
        for path in sorted((folder / "modules").rglob("*.tf")):
            if path.relative_to(folder).as_posix() not in files:
                path.unlink()
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text.encode())  # the same bytes on Windows, too
    except OSError as error:
        raise RenderError(f"cannot write: {error.strerror}", where=str(folder)) from error
    return sorted(files)


def _no_links(folder: Path, files: dict[str, str]) -> None:
    """Raises RenderError before a file is written or removed through a link: anyone may have made
    a folder in a repository."""
    for name in sorted(files):
        path = folder / name
        for each in (path, *path.parents):
            if each == folder:
                break
            if each.is_symlink():
                raise RenderError(
                    "this is a link; nothing was written",
                    where=str(each),
                    hint="Remove it, or choose another folder with -o.",
                )


def self_contained(spec: ClusterSpec) -> None:
    """Raises RenderError if the profile lacks a key that it needs to mean the same everywhere."""
    if "region" not in spec.profile:
        raise RenderError(
            "render requires `region` in the profile",
            hint='Add "region" to the profile: the environment differs between machines.',
        )
    must_name_its_callers(spec, "render")
    open_ones = sorted({group.role for group in spec.groups() if not group.machine.ami})
    if open_ones:
        raise RenderError(
            f"render requires `instance.ami` in the profile for the {' and the '.join(open_ones)}",
            hint="An image's name stands for the newest AMI of that name, which changes.",
        )


def _ours(spec: ClusterSpec, folder: Path, files: dict[str, str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise RenderError("not a folder", where=str(folder))
    main = folder / "main.tf"
    found = _HEADER.match(_start(main))
    foreign = [path for path in sorted(folder.glob("*.tf*")) if _foreign(path, main)]
    if main.exists() and found is None:
        foreign.append(main)
    elif found is None:
        foreign += [folder / name for name in files if (folder / name).exists()]
    if foreign:
        raise RenderError(
            "bilbo did not write this file; nothing was written",
            where=str(foreign[0]),
            hint="Choose another folder with -o: Terraform reads all files of a folder as one "
            "configuration.",
        )
    if found and found[1] != spec.name:
        raise RenderError(
            f"the folder holds cluster {found[1]!r}; nothing was written",
            where=str(folder),
            hint=f"Choose another folder with -o, or render that cluster with -n {found[1]}",
        )


def _foreign(path: Path, main: Path) -> bool:
    return path != main and path.name.endswith((".tf", ".tf.json"))


def _start(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(500)
    except OSError:
        return ""
