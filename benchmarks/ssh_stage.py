"""What does the SSH stage cost, compared with a bare loop and with other tools?

The peers are in .venv-bench (`make bench` creates it from requirements.txt).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import (
    PROJECT,
    Bound,
    Cost,
    Result,
    Size,
    interleaved,
    main,
    median,
    ratio,
    run,
    script,
    spread,
)

OTHERS = PROJECT / ".venv-bench" / "bin" / "python"
PEERS = ("parallel-ssh", "pyinfra", "ansible raw")
HOSTS = 200
MANY = 1000
SLEEP = "sleep 2"
NOTHING = "true"


@contextlib.contextmanager
def servers(folder: Path, count: int) -> Iterator[tuple[Path, int, Callable[[], dict[str, int]]]]:
    """The hosts: key, port, and a count of connections to each since the last call."""
    import asyncssh

    key = folder / "key"
    made = asyncssh.generate_private_key("ssh-ed25519")
    made.write_private_key(str(key), "openssh")
    made.write_public_key(str(key) + ".pub")
    key.chmod(0o600)
    process = subprocess.Popen(
        [*pinned(1), *script("ssh_server.py", f"{key}.pub", *addresses(count).splitlines())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout
    given, answers = process.stdin, process.stdout

    def counted() -> dict[str, int]:
        given.write("\n")
        given.flush()
        found: dict[str, int] = json.loads(answers.readline())
        return found

    try:
        yield key, int(answers.readline()), counted
    finally:
        process.terminate()
        process.wait()


def pinned(cpu: int) -> list[str]:
    """Pins client and servers to a core each, if there are two."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2 or shutil.which("taskset") is None:
        return []
    return ["taskset", "-c", str(cpus[cpu])]


def addresses(count: int) -> str:
    """The addresses of `count` hosts, one per line."""
    return "\n".join(f"127.77.{n // 250}.{n % 250 + 1}" for n in range(count))


def measure(size: Size) -> Result:
    """Measures CPU with a command that does nothing, and wall with one that sleeps."""
    # The peers' hundreds of processes and connections need more; bilbo is measured without.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 4 if size.smallest else HOSTS
    most = 8 if size.smallest else MANY
    peers = [name for name in PEERS if OTHERS.is_file()]
    with tempfile.TemporaryDirectory() as name, servers(Path(name), most) as (key, port, counted):
        listed = Path(name) / "hosts"
        listed.write_text(addresses(count), encoding="utf-8")

        def contender(who: str, command: str) -> Callable[[], Cost]:
            python = str(OTHERS) if who in PEERS else sys.executable
            argv = [
                *pinned(0), python, script("ssh_client.py")[1], who, str(key), str(port),
                str(listed), command,
            ]  # fmt: skip

            def once() -> Cost:
                cost = run(argv)
                said = json.loads(cost.output.strip().splitlines()[-1])
                twice = [host for host, times in counted().items() if times > 1]
                if who == "bilbo" and twice:
                    raise RuntimeError(f"connected twice to {twice[:3]}")
                return Cost(said["wall"], said["cpu"], cost.memory)

            return once

        names = ["bilbo", "bare asyncssh", *peers]
        cpu = interleaved({each: contender(each, NOTHING) for each in names}, size.runs)
        wall = interleaved({each: contender(each, SLEEP) for each in names}, size.runs)
        listed.write_text(addresses(most), encoding="utf-8")
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
        many = contender("bilbo", NOTHING)()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return result(count, 8 if size.smallest else MANY, names, cpu, wall, many)


def result(
    count: int,
    many_count: int,
    names: list[str],
    cpu: dict[str, list[Cost]],
    wall: dict[str, list[Cost]],
    many: Cost,
) -> Result:
    """The table and the bounds."""
    table: list[list[object]] = [
        ["client", "CPU in s", "against bare", f"wall in s, `{SLEEP}`", "against bare", "MiB"]
    ]
    cpus = {name: [cost.cpu for cost in cpu[name]] for name in names}
    walls = {name: [cost.wall for cost in wall[name]] for name in names}
    for name in names:
        table.append(
            [
                name,
                spread(cpus[name]),
                f"{ratio(cpus[name], cpus['bare asyncssh']):.2f}",
                spread(walls[name]),
                f"{ratio(walls[name], walls['bare asyncssh']):.2f}",
                f"{median([cost.memory for cost in cpu[name]]):.0f}",
            ]
        )
    bounds = [
        Bound("client CPU against the bare loop", 1.3, ratio(cpus["bilbo"], cpus["bare asyncssh"])),
        Bound("wall against the bare loop", 1.3, ratio(walls["bilbo"], walls["bare asyncssh"])),
    ]
    for peer in names[2:]:
        bounds.append(Bound(f"client CPU against {peer}", 1.0, ratio(cpus["bilbo"], cpus[peer])))
        bounds.append(Bound(f"wall against {peer}", 1.0, ratio(walls["bilbo"], walls[peer])))
    bounds.append(Bound(f"memory for {many_count} hosts, in MiB", 200, many.memory))
    notes = [
        f"{count} hosts, one connection and one channel each, all clients in turn within one run, "
        f"imports excluded. Client and servers each have their own core. {many_count} hosts took "
        f"bilbo {many.wall:.1f} s of wall and {many.cpu:.1f} s of CPU with at most 1,024 open "
        "files. bilbo connected to each host only once.",
        "The servers are one asyncssh process, not OpenSSH: 200 OpenSSH logins take tens of "
        "seconds of a core, and would dominate the measurement.",
    ]
    if len(names) == 2:
        notes.append("The peers are not installed: see benchmarks/requirements.txt.")
    return Result(
        "What does the SSH stage cost, compared with a bare loop and with other tools?",
        table,
        bounds,
        notes,
    )


if __name__ == "__main__":
    main(measure)
