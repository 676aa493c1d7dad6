"""The short name of Ray's folder, in a /tmp that all users of a machine share."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from test_engines import scripts

RAY = """#!/bin/bash
while [ "$1" != --temp-dir ]; do shift; done
mkdir "$2/session_2"
echo "$2"
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A cluster's folder on a host whose Ray says where its files are to be, and ends."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ray").write_text(RAY, encoding="utf-8")
    (tmp_path / "bin" / "ray").chmod(0o755)
    (tmp_path / "ray-head.sh").write_text(scripts({})[0], encoding="utf-8")
    (tmp_path / "environment").touch()
    return tmp_path


def start(host: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs the script of Ray's head."""
    path = f"{host / 'bin'}:/usr/bin:/bin"
    environment = {**os.environ, "PATH": path, "HOME": str(host), **more}
    script = str(host / "ray-head.sh")
    return subprocess.run(["bash", script], env=environment, capture_output=True, text=True)


def test_nobody_can_foresee_it(host: Path) -> None:
    """Each start has a name of its own, nothing of the instance's in it, and short enough for
    sockets; it leads into the cluster's private folder, and the one before goes."""
    links = []
    for _ in range(2):
        done = start(host)
        assert done.returncode == 0, done.stderr
        links.append(Path(done.stdout.strip()))
    first, second = links
    try:
        assert first != second and not os.path.lexists(first)
        assert second.parent == Path("/tmp") and len(str(second)) < 30 and "i-" not in str(second)
        assert stat.S_ISLNK(second.lstat().st_mode) and second.lstat().st_uid == os.getuid()
        assert second.readlink() == host / "ray"
        assert (host / "ray" / "session_2").is_dir() and (host / "ray.1" / "session_2").is_dir()
    finally:
        second.unlink()


def test_a_name_that_is_taken_is_not_used(host: Path) -> None:
    """Were it foreseen all the same, what lies there is not written into, and Ray not started."""
    taken = Path("/tmp/ray-0123456789abcdef")
    program = host / "bin" / "od"
    program.write_text("#!/bin/sh\necho ' 01 23 45 67 89 ab cd ef'\n", encoding="utf-8")
    program.chmod(0o755)
    taken.mkdir()
    try:
        done = start(host)
        assert done.returncode != 0 and "File exists" in done.stderr
        assert list(taken.iterdir()) == []
    finally:
        taken.rmdir()
    others = host / "others"
    others.mkdir()
    taken.symlink_to(others)
    try:
        assert start(host).returncode != 0
        assert taken.readlink() == others and list(others.iterdir()) == []
    finally:
        taken.unlink()


def test_a_tmp_that_others_can_change(host: Path) -> None:
    """Where another user could take the link away, Ray is not started, and why is said."""
    program = host / "bin" / "find"
    program.write_text('#!/bin/sh\nshift; exec /usr/bin/find "$LIKE_TMP" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    for mode, well in ((0o777, False), (0o775, False), (0o1777, True), (0o755, True)):
        (host / "tmp").mkdir(exist_ok=True)
        (host / "tmp").chmod(mode)
        done = start(host, LIKE_TMP=str(host / "tmp"))
        assert (done.returncode == 0) == well, oct(mode)
        assert ("chmod +t /tmp" in done.stderr) != well
        if well:
            Path(done.stdout.strip()).unlink()
