"""Reads a private key's file as strictly as ssh does, and says what is wrong with it."""

from __future__ import annotations

import codecs
import os
import re
import shlex
import stat
from pathlib import Path

import asyncssh

from bilbo.remote.terms import HostFailure

_CORRECT = "Correct `ssh_private_key` in the profile."
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# A key has a few KiB; a path that leads to a device must not fill the memory.
_MAX_BYTES = 1 << 20
# OpenSSH's one line (sshd(8), AUTHORIZED_KEYS), RFC 4716, and PEM.
_PUBLIC = re.compile(
    rb"\s*((ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ AAAA|---- BEGIN SSH2 PUBLIC KEY"
    rb"|-----BEGIN ([A-Z]+ )?PUBLIC KEY)"
)
_PPK = b"PuTTY-User-Key-File-"  # PuTTY's documentation, appendix C: the PPK file format


def read_key(path: Path) -> asyncssh.SSHKey:
    """The private key in a file. Raises HostFailure with a remedy."""
    data = _read(path)
    quoted = shlex.quote(str(path))
    for found, what, hint in (
        (
            data.startswith(_BYTE_ORDER_MARKS),
            f"the private key {path} begins with a byte-order mark",
            "An editor added it. Save the file as plain ASCII without a BOM, or download it again.",
        ),
        (
            data.startswith(_PPK),
            f"the private key {path} is in PuTTY's format (PPK)",
            f"Convert it: puttygen {quoted} -O private-openssh -o {quoted}.pem",
        ),
        (
            bool(_PUBLIC.match(data)),
            f"{path} is a public key",
            "Give the path of the private key, usually the same without .pub.",
        ),
    ):
        if found:
            raise bad_key(what, hint)
    key = _parse(path, data)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise bad_key(f"others can read the private key {path}", f"Run: chmod 600 {quoted}")
    return key


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # reading a pipe could take forever
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise bad_key(f"{path} is {kind}, not a private key", _CORRECT)
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise bad_key(f"there is no private key {path}", _CORRECT) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise bad_key(
            f"the private key {path} cannot be read: {why}", "Correct its permissions."
        ) from None


def _parse(path: Path, data: bytes) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_private_key(data)
    except asyncssh.KeyEncryptionError:
        protected = True
    except asyncssh.KeyImportError as error:
        protected = "assphrase" in str(error)
    except (ValueError, asyncssh.Error):  # cryptography refuses the key's parameters
        protected = False
    if protected:
        raise bad_key(
            f"the private key {path} is protected by a passphrase",
            "bilbo never asks for it: use a key without one, or a copy without it (ssh-keygen -p).",
        )
    raise bad_key(f"{path} is not a private key", _CORRECT)


def bad_key(what: str, hint: str) -> HostFailure:
    """A failure caused by the private key's file."""
    return HostFailure(what, stage="authenticate", hint=hint, lasts=True)
