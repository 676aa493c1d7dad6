"""Hosts for `ssh_stage` and `look`: one process that serves SSH on many addresses.

A helper of the benchmarks. It runs no shell: it sleeps for `sleep N` in a command and ends any
other command at once, so that only the client is measured. Where bilbo's agent is started, it
answers in its place that all is well, the n-th address as instance `i-n`. Prints its port. For each
line on standard input it prints as JSON the number of connections to each address since the last.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from collections import Counter
from pathlib import Path

import asyncssh

connections: Counter[str] = Counter()
names: list[str] = []


class Host(asyncssh.SSHServer):
    """Counts the connections to the address that it was reached at."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """TCP is connected."""
        connections[conn.get_extra_info("sockname")[0]] += 1


async def command(process: asyncssh.SSHServerProcess[str]) -> None:
    """A command that does nothing for as long as it says, or the agent."""
    if "python3" in (process.command or ""):
        await agent(process)
    # What bilbo's `rcmd` runs tells first, with a mark, that the login shell has come that far.
    if mark := re.search("echo ([0-9a-f]{16}) ", process.command or ""):
        process.stderr.write(f"{mark[1]}\n")
    slept = re.search(r"sleep ([\d.]+)", process.command or "")
    if slept:
        await asyncio.sleep(float(slept[1]))
    process.exit(0)


async def agent(process: asyncssh.SSHServerProcess[str]) -> None:
    """Answers requests for the status of services; the head's with all others as members."""
    program = await process.stdin.readline()
    if greeting := re.match(r"greeting = (\[.*?\]);", program):
        process.stdout.write("-".join(json.loads(greeting[1])) + "\n")
    await process.stdin.readline()  # its modules
    rows = [
        {"service": name, "running": True, "code": None, "age": 100.0, "log": ["a line"] * 5}
        for name in ("dask-scheduler", "dask-worker")
    ]
    while line := await process.stdin.readline():
        request = json.loads(line)
        joined = dict.fromkeys(names, "tcp://x") if request["roll"] else None
        answer = {"id": request["id"], "event": "status", "services": rows, "members": joined}
        process.stdout.write(json.dumps(answer) + "\n")


async def main(public_key: str, addresses: list[str]) -> None:
    """Serves on one port of all addresses until standard input ends."""
    names.extend(f"i-{number:017x}" for number in range(len(addresses)))
    with socket.socket() as free:
        free.bind((addresses[0], 0))
        port = free.getsockname()[1]
    await asyncssh.listen(
        addresses,  # asyncio takes a list, and asyncssh passes it on
        port,
        server_factory=Host,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        authorized_client_keys=asyncssh.import_authorized_keys(
            Path(public_key).read_text(encoding="utf-8")
        ),
        process_factory=command,
        config=None,
        # Supported by OpenSSH 9 and all clients; asyncssh would also offer ML-KEM.
        kex_algs=["curve25519-sha256", "ecdh-sha2-nistp256"],
        backlog=2048,
        login_timeout=300,
    )
    print(port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(connections), flush=True)
        connections.clear()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
