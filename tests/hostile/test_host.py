"""A host that lies: what it serves reaches no other place here, and no terminal."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import ClassVar

import asyncssh
import pytest

from bilbo.remote.fetching import Fetching
from bilbo.text import plain

LINK, FOLDER, FILE = stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o777, stat.S_IFREG | 0o6777


class Liar(asyncssh.SFTPServer):
    """Serves a tree of its own choice: `{path: (permissions, data or names)}`."""

    tree: ClassVar[dict[str, tuple[int, bytes | list[str]]]] = {}

    def _attrs(self, path: bytes) -> asyncssh.SFTPAttrs:
        name = os.path.normpath(path.decode()) if path in (b".", b"./") else path.decode()
        if name not in self.tree:
            raise asyncssh.SFTPNoSuchFile(name)
        mode, data = self.tree[name]
        size = len(data) if isinstance(data, bytes) else 0
        return asyncssh.SFTPAttrs(permissions=mode, size=size, atime=1, mtime=1)

    def lstat(self, path: bytes) -> asyncssh.SFTPAttrs:
        return self._attrs(path)

    def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        found = self._attrs(path)
        if stat.S_ISLNK(found.permissions or 0):  # each link leads wherever is worst
            found.permissions = FOLDER
        return found

    async def scandir(self, path: bytes):  # type: ignore[no-untyped-def]
        names = self.tree[path.decode()][1]
        for name in names:
            assert isinstance(name, str)
            there = self._attrs(f"{path.decode()}/{name}".encode())
            yield asyncssh.SFTPName(name.encode(), attrs=there)

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        data = self.tree[path.decode()][1]
        assert isinstance(data, bytes)
        folder = Path(os.environ["LIAR"])
        file = folder / "served"
        file.write_bytes(data)
        return file.open("rb")


async def fetch(tree: dict[str, tuple[int, bytes | list[str]]], target: Path) -> list[str]:
    """What is left out when a liar's `evil` is copied to `target`."""
    server_key = asyncssh.generate_private_key("ssh-ed25519")
    client_key = asyncssh.generate_private_key("ssh-ed25519")
    factory = type("Served", (Liar,), {"tree": tree})
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[server_key], sftp_factory=factory, config=None,
        authorized_client_keys=asyncssh.import_authorized_keys(
            client_key.export_public_key().decode()
        ),
    )  # fmt: skip
    try:
        async with (
            asyncssh.connect(
                "127.0.0.1", server.get_port(), known_hosts=None, client_keys=[client_key],
                username="x", config=None,
            ) as connection,
            connection.start_sftp_client() as client,
        ):  # fmt: skip
            copying = Fetching(client, lambda path, done, total: None)
            await copying.get("evil", target)
            return copying.left_out
    finally:
        server.close()


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's home, beside which the target is; nothing may be written there."""
    (tmp_path / "liar").mkdir()
    monkeypatch.setenv("LIAR", str(tmp_path / "liar"))
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    return home


def test_a_chain_of_links(outside: Path, tmp_path: Path) -> None:
    """`x -> .`, `y -> x/..` and what lies behind them: nothing is made a link, or written through
    one; what is left out is named, and the rest is there, without setuid."""
    names = ["x", "y", "good", "..", "a/b", "../escape"]
    tree: dict[str, tuple[int, bytes | list[str]]] = {
        "evil": (FOLDER, names),
        "evil/x": (LINK, b"."),
        "evil/y": (LINK, b"x/.."),
        "evil/good": (FILE, b"data"),
        "evil/..": (FOLDER, []),
        "evil/a/b": (FILE, b"no"),
        "evil/../escape": (FILE, b"no"),
    }
    left = asyncio.run(fetch(tree, tmp_path / "target"))
    assert [line.split(": ")[0] for line in left] == [
        "evil/x",
        "evil/y",
        "evil/a/b",
        "evil/../escape",
    ]
    assert [path.name for path in (tmp_path / "target").rglob("*")] == ["good"]
    good = (tmp_path / "target" / "good").stat()
    assert stat.S_IMODE(good.st_mode) == 0o755
    assert list(outside.rglob("*")) == [outside / ".ssh"]


def test_links_that_are_there_already(outside: Path, tmp_path: Path) -> None:
    """A link in the target folder, whoever made it, is not written through."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "folder").symlink_to(outside / ".ssh")
    (target / "file").symlink_to(outside / "file")
    os.mkfifo(target / "pipe")
    tree: dict[str, tuple[int, bytes | list[str]]] = {
        "evil": (FOLDER, ["folder", "file", "pipe"]),
        "evil/folder": (FOLDER, ["authorized_keys"]),
        "evil/folder/authorized_keys": (FILE, b"ssh-rsa evil"),
        "evil/file": (FILE, b"no"),
        "evil/pipe": (FILE, b"no"),
    }
    target.rename(tmp_path / "evil")
    left = asyncio.run(fetch(tree, tmp_path))
    assert len(left) == 3
    assert list(outside.rglob("*")) == [outside / ".ssh"]


def test_terminal_escapes() -> None:
    """What a terminal would obey is written out; other languages are left alone."""
    assert plain("\x1b]52;c;aGk=\x07") == "\\x1b]52;c;aGk=\\x07"
    assert plain("a\r\nb\tc\x9bd\u202ee") == "a\nb\tc\\x9bd\\u202ee"
    assert plain("클러스터 ü") == "클러스터 ü"
