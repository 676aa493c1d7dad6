"""Where a stand-in keeps its files, and the state file by which others find it."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bilbo.files import private_write

KEY_NAME = "local"
ADMIN = "/_bilbo/"
ADMIN_HEADER = "X-Bilbo-Key"
LONGEST_BODY = 64 << 20  # bytes; the state of a thousand machines has a tenth of it


@dataclass(frozen=True)
class Paths:
    """The files of the stand-in of one BILBO_HOME; `root` is its `local` folder."""

    root: Path

    @classmethod
    def of(cls, home: Path) -> Paths:
        """The files below the bilbo home `home`."""
        return cls(home.expanduser().resolve() / "local")

    @property
    def state(self) -> Path:
        """The state file, 0600: it holds the stand-in's credentials."""
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        """Locked while a stand-in is started or stopped."""
        return self.root / "lock"

    @property
    def log(self) -> Path:
        """The server's log, of bounded size."""
        return self.root / "server.log"

    @property
    def output(self) -> Path:
        """What the server printed before its log was open."""
        return self.root / "server.out"

    @property
    def private_key(self) -> Path:
        """The private key of the key pair `local`, 0600."""
        return self.root / f"{KEY_NAME}.pem"

    @property
    def instances(self) -> Path:
        """One folder an instance, with its home."""
        return self.root / "instances"

    @property
    def own(self) -> Path:
        """The programs that every machine has first on its PATH, see `own_programs`."""
        return self.root / "own"

    @property
    def power(self) -> Path:
        """What machines ask for: a file an instance that says `reboot` or `poweroff`."""
        return self.root / "power"

    @property
    def aws_config(self) -> Path:
        """An AWS configuration file, so that the caller's own has no say."""
        return self.root / "aws-config"

    @property
    def aws_credentials(self) -> Path:
        """An AWS credentials file, 0600."""
        return self.root / "aws-credentials"

    @property
    def mark(self) -> str:
        """What the processes of this stand-in's instances carry in their environment."""
        return str(self.root)


@dataclass(frozen=True)
class State:
    """How a stand-in is reached. `pid` 0 means stopped; the rest is kept for the next start.

    `octet` is the second of the address range 127.OCTET.0.0/16. Whoever has `access_key` may
    use the stand-in: it runs commands as the user who started it.
    """

    pid: int = 0
    started: str = ""
    region: str = "us-east-1"
    port: int = 0
    ssh_port: int = 0
    octet: int = 0
    access_key: str = ""
    secret_key: str = ""
    log: str = ""

    @property
    def endpoint_url(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self.port}"


def load(paths: Paths) -> State | None:
    """The state last written; None when there is none or it cannot be read."""
    try:
        found = json.loads(paths.state.read_text(encoding="utf-8"))
        return State(**{f.name: found[f.name] for f in fields(State) if f.name in found})
    except (OSError, ValueError, TypeError):
        return None


def save(paths: Paths, state: State) -> None:
    """Write the state, whole or not at all, readable by its owner only."""
    private_write(paths.state, json.dumps(asdict(state), indent=2) + "\n")


def new_access_key() -> str:
    """An access key id that looks like AWS's own and cannot be guessed."""
    return "AKIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))


def erase(folder: Path) -> None:
    """Removes a machine's folder, or that of all, and the links that lead into it."""
    shutil.rmtree(folder, ignore_errors=True)
    remove_links(folder)


def remove_links(folder: Path) -> None:
    """Removes the links in /tmp that lead into a folder of machines: each would have a /tmp of
    its own, which ends with it."""
    for path in Path("/tmp").iterdir():
        with contextlib.suppress(OSError):
            if path.is_symlink() and path.readlink().is_relative_to(folder):
                path.unlink()
