"""`render`: the Terraform files alone, for a repository, into a folder of the person's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bilbo import aws
from bilbo.cluster.ownership import owner_in
from bilbo.cluster.reviewed import must_name_its_callers
from bilbo.errors import RenderError
from bilbo.model import ClusterSpec, Target
from bilbo.render import render

_HEADER = re.compile(r'# Cluster "([^"]+)", written by bilbo ')


def export(spec: ClusterSpec, folder: Path, target: Callable[[], Target]) -> list[str]:
    """Makes `folder` hold the cluster's HCL, and returns the paths that it wrote, sorted.

    The account is the profile's, and the owner what a shared state at `target` tells: neither is
    in the files where it would differ from machine to machine. What is not HCL,
    `.terraform.lock.hcl` among it, is left alone. Raises RenderError for what depends on who asks,
    and before anything of somebody else's would be overwritten; AwsError for a shared state that
    cannot be read.
    """
    self_contained(spec)
    if spec.state:
        spec = replace(spec, owner=owner_in(aws.shared_state(target(), spec.state, spec.name)))
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
        raise RenderError(f"cannot be written: {error.strerror}", where=str(folder)) from error
    return sorted(files)


def _no_links(folder: Path, files: dict[str, str]) -> None:
    """Raises RenderError where a file would be written, or removed, through a link: a folder in a
    repository may come from anybody."""
    for name in sorted(files):
        path = folder / name
        for each in (path, *path.parents):
            if each == folder:
                break
            if each.is_symlink():
                raise RenderError(
                    "this is a link, and nothing was written",
                    where=str(each),
                    hint="Remove it, or choose another folder with -o.",
                )


def self_contained(spec: ClusterSpec) -> None:
    """Raises RenderError naming the key that the profile must have to mean the same anywhere."""
    if "region" not in spec.profile:
        raise RenderError(
            "render needs the region to stand in the profile: region is missing",
            hint='Add "region" to the profile: an environment differs from machine to machine.',
        )
    must_name_its_callers(spec, "render")
    open_ones = sorted({group.role for group in spec.groups() if not group.machine.ami})
    if open_ones:
        raise RenderError(
            "render needs every AMI to stand in the profile: instance.ami is missing for the "
            f"{' and the '.join(open_ones)}",
            hint="An image's name means the newest AMI of that name, which changes.",
        )


def _ours(spec: ClusterSpec, folder: Path, files: dict[str, str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise RenderError("this is no folder", where=str(folder))
    main = folder / "main.tf"
    found = _HEADER.match(_start(main))
    foreign = [path for path in sorted(folder.glob("*.tf*")) if _foreign(path, main)]
    if main.exists() and found is None:
        foreign.append(main)
    elif found is None:
        foreign += [folder / name for name in files if (folder / name).exists()]
    if foreign:
        raise RenderError(
            "this file is not bilbo's, and nothing was written",
            where=str(foreign[0]),
            hint="Choose another folder with -o: everything in it would be one Terraform "
            "configuration.",
        )
    if found and found[1] != spec.name:
        raise RenderError(
            f"the folder holds cluster {found[1]!r}, and nothing was written",
            where=str(folder),
            hint=f"Choose another folder with -o, or name the cluster: -n {found[1]}",
        )


def _foreign(path: Path, main: Path) -> bool:
    return path != main and path.name.endswith((".tf", ".tf.json"))


def _start(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(500)
    except OSError:
        return ""
