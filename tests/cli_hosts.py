"""bilbo's command line against hosts of `ssh_hosts`, by a record that says where they are."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import asyncssh
from bilbo_cli import Bilbo
from ssh_hosts import Host, running

from bilbo import record as states
from bilbo.model import Inventory
from bilbo.record import Record, Store, now


def key_pair(folder: Path) -> Path:
    """A private key in a file of that folder, as strict as ssh wants it."""
    path = folder / "key.pem"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(path)
    path.chmod(0o600)
    return path


def told_by(
    hosts: list[Host], key: Path, *arguments: str, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """What bilbo says of the cluster `test`, whose workers these hosts are. They listen
    meanwhile."""
    bilbo = Bilbo(key.parent / "bilbo")

    async def main() -> subprocess.CompletedProcess[str]:
        async with running(*hosts):
            nodes = tuple(host.node(key) for host in hosts)
            record = Record(
                "test", states.READY, "us-east-1", "dask", now(), profile={}, terraform_dir="",
                inventory=Inventory(workers=nodes),
            )  # fmt: skip
            Store(bilbo.home).save(record)
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bilbo", *arguments),
                env=bilbo.environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await asyncio.wait_for(child.communicate(), timeout)
            assert child.returncode is not None and b"Traceback" not in err, err
            return subprocess.CompletedProcess(
                arguments, child.returncode, out.decode(), err.decode()
            )

    return asyncio.run(main())
