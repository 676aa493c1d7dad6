"""The hosts' keys: stored on the first connection, checked from then on."""

from __future__ import annotations

import os
from pathlib import Path

from asyncssh import KeyImportError, SSHKey, import_public_key

from bilbo.files import private_folder


class KnownHosts:
    """A known_hosts file whose host names are instance ids.

    AWS reuses addresses, but never instance ids. The system's ssh reads the same file with
    `-o HostKeyAlias=INSTANCE_ID -o UserKnownHostsFile=PATH`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: dict[str, SSHKey] | None = None

    def key(self, instance_id: str) -> SSHKey | None:
        """The stored key. Raises OSError if the file cannot be read."""
        if self._keys is None:
            self._keys = self._read()
        return self._keys.get(instance_id)

    def accepts(self, instance_id: str, key: SSHKey) -> bool:
        """Whether this is the host's key. Stores it for a host without one, also on disk.

        Raises OSError if the file cannot be read or written.
        """
        known = self.key(instance_id)
        if known is None:
            self._append(instance_id, key)
            assert self._keys is not None  # read by key() above
            self._keys[instance_id] = known = key
        return known.public_data == key.public_data

    def _read(self) -> dict[str, SSHKey]:
        keys: dict[str, SSHKey] = {}
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return keys
        for line in lines:
            host, _, text = line.partition(" ")
            try:
                keys.setdefault(host, import_public_key(text))
            except KeyImportError:
                continue  # cut off by a full disk or edited by hand: stored again
        return keys

    def _append(self, instance_id: str, key: SSHKey) -> None:
        """Append a line in one write, so that concurrent bilbos do not mix their lines."""
        private_folder(self.path.parent)
        self.path.touch(mode=0o600)
        with self.path.open("a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            start = b"" if file.read(1) in (b"", b"\n") else b"\n"
            line = key.export_public_key().split(b" ")[:2]
            file.write(start + b" ".join([instance_id.encode(), *line]).strip() + b"\n")
