"""Private keys: read before anything is billed, by the reader that logs in later."""

from __future__ import annotations

import asyncio
import codecs
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest
from bilbo_cli import INSTANCE, Bilbo
from reliability import errors, told
from ssh_hosts import Host, running

from bilbo.cluster.host_access import run_command, ssh_command
from bilbo.cluster.launching import public_keys
from bilbo.cluster.work import Work
from bilbo.errors import RemoteError
from bilbo.model import ClusterSpec, Node, Target
from bilbo.profile import building
from bilbo.record import Record, Store
from bilbo.remote import HostFailure, read_key

KEY = asyncssh.generate_private_key("ssh-ed25519")
PEM = KEY.export_private_key()


class Quiet:
    """Progress that remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def work(home: Path) -> Work:
    store = Store(home)
    store.prepare()
    return Work(store, Target("us-east-1"), Quiet())  # type: ignore[arg-type]


def keep(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def protected(path: Path) -> None:
    keep(path, PEM)
    subprocess.run(["ssh-keygen", "-q", "-p", "-f", path, "-N", "secret"], check=True)


WRONG: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (lambda path: None, "there is no private key", "Correct `ssh_private_key`"),
    "folder": (lambda path: path.mkdir(), "is a folder", "Correct `ssh_private_key`"),
    "pipe": (os.mkfifo, "is no regular file", "Correct `ssh_private_key`"),
    "mode": (lambda path: keep(path, PEM, 0o640), "others can read", "chmod 600"),
    "bom": (
        lambda path: keep(path, codecs.BOM_UTF8 + PEM),
        "begins with a byte-order mark",
        "without a BOM",
    ),
    "utf-16": (
        lambda path: keep(path, PEM.decode().encode("utf-16")),
        "begins with a byte-order mark",
        "without a BOM",
    ),
    "ppk": (
        lambda path: keep(path, b"PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\n"),
        "is in PuTTY's format",
        "-O private-openssh",
    ),
    "public": (
        lambda path: keep(path, KEY.export_public_key(), 0o644),
        "is a public key",
        "without .pub",
    ),
    "public, PEM": (
        lambda path: keep(path, KEY.export_public_key("pkcs8-pem")),
        "is a public key",
        "without .pub",
    ),
    "passphrase": (protected, "is protected by a passphrase", "ssh-keygen -p"),
    "nonsense": (lambda path: keep(path, b"nonsense"), "is not a private key", "Correct `ssh_"),
    "half": (lambda path: keep(path, PEM[:150]), "is not a private key", "Correct `ssh_"),
    "empty": (lambda path: keep(path, b""), "is not a private key", "Correct `ssh_"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_unusable_key_is_named_with_its_remedy(tmp_path: Path, wrong: str) -> None:
    """Each kind of wrong file by its own name, also with signs of the shell in its path."""
    spoil, what, hint = WRONG[wrong]
    path = tmp_path / "my key's 100% ü.pem"
    spoil(path)
    with pytest.raises(HostFailure) as caught:
        read_key(path)
    assert what in caught.value.what
    assert str(path) in caught.value.what
    assert hint in caught.value.hint


def test_the_remedies_work(tmp_path: Path) -> None:
    """The command for permissions, run as it is printed, makes the key usable."""
    path = keep(tmp_path / "my key's 100% ü.pem", PEM, 0o644)
    with pytest.raises(HostFailure) as caught:
        read_key(path)
    subprocess.run(["sh", "-c", caught.value.hint.removeprefix("Run: ")], check=True)
    assert read_key(path).public_data == KEY.public_data


def spec_with(*keys: Path) -> ClusterSpec:
    instance = {**INSTANCE, "ssh_private_key": str(keys[0])}
    document = {
        "instance": instance,
        "dask": {"worker": {"instance": {"ssh_private_key": str(keys[-1])}}},
    }
    return building.build(document, "keyed", "us-east-1")


def test_every_bad_key_of_a_profile_is_told_at_once(tmp_path: Path) -> None:
    """All keys in one error, each with its remedy; who only plans may be without."""
    one = keep(tmp_path / "one.pem", b"nonsense")
    two = tmp_path / "none.pem"
    home = work(tmp_path / "home")
    with pytest.raises(RemoteError) as caught:
        public_keys(spec_with(one, two), home)
    assert str(caught.value).splitlines() == [
        "cannot log in to the machines of cluster 'keyed'; nothing was changed",
        f"  there is no private key {two}",
        "      Correct `ssh_private_key` in the profile.",
        f"  {one} is not a private key",
        "      Correct `ssh_private_key` in the profile.",
    ]
    assert public_keys(spec_with(two), home, needed=False) == {}
    assert home.progress.said == [f"`create` will need the private key {two}; it is not here."]  # type: ignore[attr-defined]
    with pytest.raises(RemoteError):
        public_keys(spec_with(one), home, needed=False)
    keep(one, PEM)
    assert public_keys(spec_with(one), home) == {str(one): KEY.public_data}


@pytest.mark.parametrize("name", ["with space", "Schlüssel ü 키", "100% %d %% %h", "a'b\"c\\d"])
def test_any_path_works_in_every_command(tmp_path: Path, name: str) -> None:
    """bilbo's own connection and the system's ssh log in with the key and the known hosts there."""
    home = tmp_path / name
    mine = work(home)
    key = keep(home / "key %h ü.pem", PEM)
    record = Record("odd", "ready", "us-east-1", None, "", {}, "")
    (home / "clusters" / "odd").mkdir()
    said: list[bytes] = []

    async def with_ssh(node: Node) -> tuple[int | None, bytes]:
        # Without a command of its own, so that the shell of `bilbo ssh` reads the input.
        quiet = ["-o", "BatchMode=yes", "-o", "GlobalKnownHostsFile=/dev/null", "-F", "none"]
        words = await asyncio.to_thread(ssh_command, mine, record, node, quiet)
        child = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await child.communicate(b"exit 5\n")
        return child.returncode, errors

    async def main() -> tuple[int | None, bytes]:
        host = Host(tmp_path / "host", KEY)
        async with running(host):
            node = host.node(key)
            await asyncio.to_thread(
                run_command, mine, record, [node], "echo hello",
                on_output=lambda _, data, __: said.append(data),
            )  # fmt: skip
            return await with_ssh(node)

    assert asyncio.run(main()) == (5, b"")
    assert b"".join(said) == b"hello\n"


def test_nothing_is_billed_for_an_unusable_key(bilbo: Bilbo) -> None:
    """`plan` and `create` refuse it before they ask AWS for anything."""
    key = bilbo.home / "local" / "blind.pem"
    instance = {**INSTANCE, "ssh_private_key": "~/.bilbo/local/blind.pem"}
    profile = bilbo.profile("blind", {"instance": instance, "notebook": {}})
    left = "nothing: it is found before anything is created"
    for wrong, what in (
        ("passphrase", "Private key with a passphrase"),
        ("ppk", "Private key in PuTTY's format"),
        ("public", "A public key as the private one"),
        ("mode", "Private key that others can read"),
        ("folder", "A folder as the private key"),
    ):
        WRONG[wrong][0](key)
        told(
            f"{what}, in `plan`", errors(bilbo("--local", "plan", profile, code=1).stderr), 1, left
        )
        key.rmdir() if key.is_dir() else key.unlink()
    keep(key, codecs.BOM_UTF8 + PEM)
    for verb in ("plan", "create"):
        said = errors(bilbo("--local", verb, profile, code=1).stderr)
        told(f"Private key with a byte-order mark, in `{verb}`", said, 1, left)
    assert bilbo("clusters").stdout == ""
