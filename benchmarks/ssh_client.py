"""The contenders of `ssh_stage`: `python benchmarks/ssh_client.py WHO KEY PORT HOSTS COMMAND`.

Runs COMMAND on each of HOSTS (a file with one address per line) over one connection each. Prints as
JSON the seconds of wall and of CPU after its imports, including children. Needs a Python that has
the packages of WHO.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Work = Callable[[], object]


def ours(key: str, port: int, hosts: list[str], command: str) -> Work:
    """bilbo's `rcmd`: stores host keys, reports failures, uses one connection per host."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from bilbo.model import WORKER, Node
    from bilbo.remote import KnownHosts, Remote, run_command

    folder = tempfile.mkdtemp()
    nodes = [
        Node(WORKER, WORKER, f"i-{n:017x}", host, host, "", "", "", "", "ubuntu", key, port)
        for n, host in enumerate(hosts)
    ]
    remote = Remote(KnownHosts(Path(folder) / "known_hosts"))

    def work() -> None:
        results = asyncio.run(run_command(nodes, command, remote, on_output=lambda *_: None))
        wrong = [each for each in results if each.exit_code != 0]
        if wrong:
            sys.exit(f"{len(wrong)} failed, first: {wrong[0].failure}")

    return work


def bare(key: str, port: int, hosts: list[str], command: str) -> Work:
    """asyncssh and nothing else: all at once, no host keys, no retries."""
    import asyncssh

    async def one(host: str, client_key: asyncssh.SSHKey) -> None:
        async with asyncssh.connect(
            host,
            port,
            username="ubuntu",
            client_keys=[client_key],
            known_hosts=None,
            config=None,
            agent_path=None,
            login_timeout=300,
        ) as connection:
            await connection.run(command, check=True)

    async def main() -> None:
        client_key = asyncssh.read_private_key(key)
        await asyncio.gather(*(one(host, client_key) for host in hosts))

    return lambda: asyncio.run(main())


def parallel_ssh(key: str, port: int, hosts: list[str], command: str) -> Work:
    """parallel-ssh's native client, all hosts at once."""
    from pssh.clients import ParallelSSHClient

    def work() -> None:
        client = ParallelSSHClient(
            hosts, user="ubuntu", port=port, pkey=key, pool_size=len(hosts), allow_agent=False,
            num_retries=1, timeout=300,
        )  # fmt: skip
        output = client.run_command(command)
        client.join(output)
        if any(each.exit_code != 0 for each in output):
            sys.exit("a command failed")

    return work


def pyinfra(key: str, port: int, hosts: list[str], command: str) -> Work:
    """pyinfra's API, all hosts at once."""
    from pyinfra.api import Config, Inventory, State
    from pyinfra.api.connect import connect_all
    from pyinfra.api.operation import add_op
    from pyinfra.api.operations import run_ops
    from pyinfra.operations import server

    def work() -> None:
        data = {
            "ssh_user": "ubuntu",
            "ssh_port": port,
            "ssh_key": key,
            "ssh_strict_host_key_checking": "off",
            "ssh_paramiko_connect_kwargs": {"allow_agent": False, "banner_timeout": 300},
            "ssh_known_hosts_file": "/dev/null",
        }
        inventory = Inventory((hosts, {}), override_data=data)
        state = State(inventory, Config(PARALLEL=len(hosts), CONNECT_TIMEOUT=300))
        connect_all(state)
        add_op(state, server.shell, commands=[command])
        run_ops(state)
        if len(state.active_hosts) != len(hosts):
            sys.exit("a host failed")

    return work


def ansible(key: str, port: int, hosts: list[str], command: str) -> Work:
    """Ansible's raw module through the system's ssh, all hosts at once, without persistence."""
    folder = Path(tempfile.mkdtemp())
    listed = folder / "hosts"
    listed.write_text("\n".join(hosts) + "\n", encoding="utf-8")
    argv = [
        str(Path(sys.executable).parent / "ansible"), "all", "-i", str(listed), "-m", "raw",
        "-a", command, "-f", str(len(hosts)), "-u", "ubuntu", "--private-key", key,
        "-e", f"ansible_port={port}", "-T", "300",
    ]  # fmt: skip
    env = {
        **os.environ,
        "ANSIBLE_HOST_KEY_CHECKING": "False",
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o UserKnownHostsFile=/dev/null "
        "-o IdentityAgent=none -F none",
        "ANSIBLE_HOME": str(folder),
        "LC_ALL": "C.UTF-8",
    }
    # One run cannot separate its imports from its work, so a run without hosts is subtracted.
    empty = [*argv[:3], str(listed), "--list-hosts"]

    def work() -> None:
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        if done.returncode or done.stdout.count("CHANGED") != len(hosts):
            sys.exit(f"a host failed: {done.stdout[-500:]} {done.stderr[-500:]}")

    before = spent()
    subprocess.run(empty, env=env, capture_output=True, check=True)
    used = [now - then for now, then in zip(spent(), before, strict=True)]
    started.extend(used)
    return work


started: list[float] = []  # the cost of Ansible's start: wall, CPU


def spent() -> tuple[float, float]:
    """Seconds of wall and of CPU so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime


CONTENDERS = {
    "bilbo": ours,
    "bare asyncssh": bare,
    "parallel-ssh": parallel_ssh,
    "pyinfra": pyinfra,
    "ansible raw": ansible,
}


def main() -> None:
    """Prepares, then measures."""
    who, key, port, hosts, command = sys.argv[1:]
    names = Path(hosts).read_text(encoding="utf-8").split()
    work = CONTENDERS[who](key, int(port), names, command)
    before = spent()
    work()
    wall, cpu = (now - then for now, then in zip(spent(), before, strict=True))
    start_wall, start_cpu = started or (0.0, 0.0)
    print(json.dumps({"wall": wall - start_wall, "cpu": cpu - start_cpu}))


if __name__ == "__main__":
    main()
