"""The notebook's token, AWS keys and private keys stand nowhere that others can read."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from bilbo_cli import INSTANCE, ONE_PROCESS, Bilbo, nothing_is_left

from bilbo import local


class Watch(threading.Thread):
    """Reads the command lines of all processes, over and over."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue


def readable_by_others(folder: Path) -> Iterator[Path]:
    """Files that somebody else may read: every folder on the way lets them in, too."""
    for top, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if (Path(top) / name).stat().st_mode & 0o011]
        for name in files:
            path = Path(top) / name
            if stat.S_ISREG(path.lstat().st_mode) and path.stat().st_mode & 0o044:
                yield path


def test_no_secret_is_seen(bilbo: Bilbo) -> None:
    """From plan to destroy no secret is in an argv, a log, a readable file or printed text."""
    document = {
        "instance": INSTANCE,
        "notebook": {},
        "dask": {"worker": {"count": 1, **ONE_PROCESS}},
    }
    profile = bilbo.profile("quiet", document)
    watch = Watch()
    watch.start()
    texts = [bilbo("-v", "--local", "plan", profile), bilbo("-v", "--local", "create", profile)]
    record = bilbo.record("quiet")
    token = record["token"]
    assert token in record["notebook_url"]
    texts += [
        bilbo("-v", "restart", "quiet"),
        bilbo("desc", "quiet"),
        bilbo("logs", "quiet", "all"),
    ]
    target = local.target(bilbo.home)
    assert target is not None
    key = (bilbo.home / "local" / "local.pem").read_text()
    secrets = {
        "the notebook's token": token,
        "the AWS secret key": target.environment["AWS_SECRET_ACCESS_KEY"],
        "the private key": "".join(key.splitlines()[1:3]),
    }
    bilbo.home.chmod(0o755)  # as if it lay where others may look
    for name, secret in secrets.items():
        for path in readable_by_others(bilbo.home):
            content = re.sub(rb"\s", b"", path.read_bytes())
            assert secret.encode() not in content, f"{name} stands in {path}"
        for path in (bilbo.home / "logs").iterdir():
            assert secret not in path.read_text(), f"{name} stands in {path}"
        for done in texts:
            assert secret not in done.stdout + done.stderr, f"{name} is printed by {done.args}"
    bilbo("destroy", "quiet", "-y")
    watch.stop.set()
    watch.join()
    argv = b"\n".join(watch.seen)
    assert b"dask" in argv
    assert b"terraform" in argv
    for name, secret in secrets.items():
        assert secret.encode() not in argv, f"{name} was in an argv"
    nothing_is_left(bilbo.home)
