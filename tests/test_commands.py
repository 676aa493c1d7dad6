"""The commands that look at, reach into and restart a cluster, as a person runs them.

One real cluster of the session serves all of them; see `cluster` in conftest.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest
from conftest import Cluster

from bilbo.record import Store


def copied(cluster: Cluster, name: str, change: Callable[[dict[str, Any]], None]) -> str:
    """A second record of the cluster, under another name and changed; its name."""
    record = cluster.bilbo.record(cluster.name)
    record["name"] = name
    change(record)
    folder = cluster.bilbo.home / "clusters" / name
    folder.mkdir(exist_ok=True)
    (folder / "cluster.json").write_text(json.dumps(record), encoding="utf-8")
    return name


@pytest.fixture
def forget(cluster: Cluster) -> Iterator[None]:
    """Removes records that a test made beside the cluster's own."""
    yield
    store = Store(cluster.bilbo.home)
    for name in store.names():
        if name != cluster.name:
            store.forget(name)


def terminal(cluster: Cluster, *arguments: str) -> pexpect.spawn[str]:
    """bilbo on a terminal of 30 lines and 90 columns."""
    return pexpect.spawn(
        sys.executable,
        ["-m", "bilbo", *arguments],
        env=cluster.bilbo.environment(TERM="xterm"),
        dimensions=(30, 90),
        encoding="utf-8",
        timeout=30,
    )


def ended(child: pexpect.spawn[str]) -> int | None:
    """The exit code, when the command has ended."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


@contextmanager
def begun(cluster: Cluster, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """bilbo in the background; never longer than the test."""
    process = cluster.bilbo.start(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def pids(cluster: Cluster) -> dict[str, int]:
    """The supervisors of the cluster's services, by number of the instance."""
    shown = cluster.bilbo("rcmd", cluster.name, "all", "cat .bilbo/shared-cluster/*/*.pid").stdout
    return {number: json.loads(text)["pid"] for number, text in re.findall(r"\[(\d)\] (.*)", shown)}


# rcmd


def test_rcmd_runs_on_the_notebook_by_default(cluster: Cluster) -> None:
    """Both outputs and the exit code are the remote command's; nothing is added to them."""
    done = cluster.bilbo("rcmd", cluster.name, "echo out; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    record = cluster.bilbo.record(cluster.name)
    where = cluster.bilbo("rcmd", cluster.name, "echo $SSH_CONNECTION").stdout.split()[2]
    assert where == record["notebook"]["private_ip"]  # all that a machine knows of itself


def test_rcmd_takes_every_kind_of_target(cluster: Cluster) -> None:
    """A number, a role, an instance id and an address each reach their instance."""
    scheduler = cluster.bilbo.record(cluster.name)["scheduler"]
    targets = ("2", "scheduler", scheduler["instance_id"], scheduler["public_ip"])
    for target in targets:
        done = cluster.bilbo("rcmd", cluster.name, target, "echo", "$SSH_CONNECTION")
        assert done.stdout.split()[2] == scheduler["private_ip"], target


def test_rcmd_leaves_the_commands_options_alone(cluster: Cluster) -> None:
    """Options after the name belong to the command, with and without `--`."""
    for words in (["echo"], ["3", "echo"], ["3", "--", "echo"], ["--", "echo"]):
        shown = cluster.bilbo("rcmd", cluster.name, *words, "-h", "--timeout", "--", "-v").stdout
        assert shown == "-h --timeout -- -v\n"


def test_rcmd_on_several_hosts(cluster: Cluster) -> None:
    """Every line says whose it is, a last one without an end too; the highest code counts."""
    command = "echo one; echo bad >&2; printf two; set -- $SSH_CONNECTION; exit ${3##*.}"
    done = cluster.bilbo("rcmd", cluster.name, "workers", command, code=None)
    expected = sorted(f"[{number}] {text}" for number in (3, 4) for text in ("one", "two"))
    assert sorted(done.stdout.splitlines()) == expected
    assert "[3] bad\n" in done.stderr and "[4] bad\n" in done.stderr
    addresses = [each["private_ip"] for each in cluster.bilbo.record(cluster.name)["workers"]]
    assert done.returncode == max(int(each.split(".")[3]) for each in addresses)


def test_rcmd_passes_input_on(cluster: Cluster) -> None:
    """Ten megabytes through a pipe arrive whole."""
    done = subprocess.run(
        [sys.executable, "-m", "bilbo", "rcmd", cluster.name, "4", "md5sum; printf '\\0\\377'"],
        env=cluster.bilbo.environment(),
        input=bytes(10_000_000),
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"311175294563b07db7ea80dee2e5b3c6  -\n\0\xff"


def test_rcmd_output_comes_at_once_and_ctrl_c_ends_the_command(cluster: Cluster) -> None:
    """A line is there while the command runs; Ctrl-C ends it on the host, too, with 130."""
    with begun(cluster, "rcmd", cluster.name, "3", "echo $$; exec sleep 1000") as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert not Path(f"/proc/{pid}").exists()


def test_rcmd_ends_when_nobody_reads(cluster: Cluster) -> None:
    """`bilbo rcmd … yes | head -1` ends without a word."""
    with begun(cluster, "rcmd", cluster.name, "3", "echo $$; exec yes") as process:
        assert process.stdout and process.stderr
        pid = int(process.stdout.readline())
        process.stdout.close()
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == ""
        assert not Path(f"/proc/{pid}").exists()
        process.stdout = process.stderr = None


def test_rcmd_on_a_terminal(cluster: Cluster) -> None:
    """An interactive program has its terminal: keys, size, a new size, and Ctrl-C."""
    script = (
        "stty size; read answer; echo <$answer>; trap 'stty size' WINCH; echo loops; "
        "while :; do sleep 0.1; done"
    ).replace("<$answer>", "'<'$answer'>'")
    child = terminal(cluster, "rcmd", cluster.name, "3", script)
    child.expect("30 90")
    child.sendline("héllo")
    child.expect("<héllo>")
    child.expect("loops")
    child.setwinsize(40, 100)
    child.expect("40 100")
    child.send("\x03")
    assert ended(child) == 130


def test_rcmd_tells_of_a_host_that_it_cannot_reach(cluster: Cluster, forget: None) -> None:
    """The others run; the unreachable one is named with its cause, and the code is not 0."""

    def closed(record: dict[str, Any]) -> None:
        record["workers"][0]["ssh_port"] = 1

    name = copied(cluster, "broken", closed)
    options = ("--timeout", "0.5", name, "workers", "echo here")
    done = cluster.bilbo("rcmd", *options, code=1)
    assert done.stdout == "[4] here\n"
    assert re.search(r"bilbo: \[3\] worker i-\w+: 127\S+ port 1 refuses connections", done.stderr)
    logs = cluster.bilbo("logs", "--timeout", "0.5", name, "-n", "1", code=3)
    assert "cannot read the logs on 1 of 4 hosts" in logs.stderr


def test_rcmd_refuses_what_is_no_target(cluster: Cluster) -> None:
    """A wrong TARGET is a wrong use, told in two lines: what it is, and what would be one."""
    done = cluster.bilbo("rcmd", cluster.name, "9", "ls", code=2)
    assert done.stderr.startswith(f"bilbo: cluster '{cluster.name}' has no instance '9'\nTARGET is")
    assert done.stderr.count("\n") == 2


# logs, ssh, get, put


def test_logs_of_services_and_init_cmd(cluster: Cluster) -> None:
    """The tail of every service; with several instances each line says whose it is."""
    shown = cluster.bilbo("logs", cluster.name, "-n", "2").stdout
    assert {line[:3] for line in shown.splitlines()} == {"[1]", "[2]", "[3]", "[4]"}
    scheduler = cluster.bilbo("logs", cluster.name, "scheduler").stdout
    assert "distributed.scheduler" in scheduler and not scheduler.startswith("[")
    assert cluster.bilbo("logs", cluster.name, "3", "-s", "init").stdout == "said\n"
    assert cluster.bilbo("logs", cluster.name, "3", "-s", "none").stderr == "No log lines found.\n"
    assert (
        "is not a service name" in cluster.bilbo("logs", cluster.name, "-s", "../x", code=2).stderr
    )


def test_logs_follow(cluster: Cluster) -> None:
    """What is added comes while it is followed; Ctrl-C ends it with 130."""
    with begun(cluster, "logs", cluster.name, "3", "-f", "-n", "1") as process:
        assert process.stdout
        process.stdout.readline()
        add = "echo added >> .bilbo/shared-cluster/i-*/dask-worker.log"
        cluster.bilbo("rcmd", cluster.name, "3", add)
        assert process.stdout.readline() == "added\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130


def test_init_cmd_ran_once_on_each_instance(cluster: Cluster) -> None:
    """The profile's own commands ran before the services started, and not again later."""
    shown = cluster.bilbo("rcmd", cluster.name, "all", "cat init-ran").stdout
    assert sorted(shown.splitlines()) == [f"[{number}] ran" for number in range(1, 5)]


def test_ssh_opens_a_shell(cluster: Cluster) -> None:
    """The system's ssh gets in with no question, on a terminal, and its exit code is passed on."""
    child = terminal(cluster, "ssh", cluster.name, "3")
    child.sendline("echo $((40+2))")
    child.expect("42")
    child.sendline("exit 5")
    assert ended(child) == 5
    several = cluster.bilbo("ssh", cluster.name, "workers", code=2).stderr
    assert "Choose one by its number: 3, 4" in several
    assert "ssh is not on PATH" in cluster.bilbo("ssh", cluster.name, code=1, PATH="").stderr


def test_ssh_passes_options_on(cluster: Cluster) -> None:
    """What stands after -- is ssh's own: a page that a host serves is reached through SSH alone."""
    host = cluster.bilbo.record(cluster.name)["scheduler"]["private_ip"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for target in (["scheduler"], []):
        through = ["--", "-N", "-L", f"127.0.0.1:{port}:{host}:8787"]
        process = cluster.bilbo.start("ssh", cluster.name, *target, *through)
        try:
            assert b"Dask" in fetched(f"http://127.0.0.1:{port}/status")
        finally:
            process.terminate()
            process.wait(timeout=30)


def fetched(url: str) -> bytes:
    """A page, as soon as it answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url) as answer:
                page: bytes = answer.read()
                return page
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_ssh_refuses_a_changed_host_key(cluster: Cluster, forget: None) -> None:
    """The host keys that bilbo remembers are those that ssh checks; a new one is remembered."""
    name = copied(cluster, "copy", lambda record: None)
    known = cluster.bilbo.home / "clusters" / name / "known_hosts"
    cluster.bilbo("ssh", name, "3")
    first = known.read_text(encoding="utf-8")
    instance_id = cluster.bilbo.record(cluster.name)["workers"][0]["instance_id"]
    assert first.startswith(f"{instance_id} ssh-")
    other = cluster.bilbo.home / "clusters" / cluster.name / "known_hosts"
    lines = [line for line in other.read_text(encoding="utf-8").splitlines() if line not in first]
    known.write_text(f"{instance_id} {lines[0].split(' ', 1)[1]}\n", encoding="utf-8")
    assert "HOST IDENTIFICATION HAS CHANGED" in cluster.bilbo("ssh", name, "3", code=255).stderr
    assert "has changed" in cluster.bilbo("rcmd", name, "3", "true", code=1).stderr


def test_put_and_get(cluster: Cluster, tmp_path: Path) -> None:
    """A folder comes back as it went, times and permissions included."""
    source = tmp_path / "Ordner ü"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "data").write_bytes(os.urandom(2_000_000))
    (source / "run.sh").write_text("exit 3")
    (source / "run.sh").chmod(0o755)
    os.utime(source / "run.sh", (1e9, 1e9))
    put = cluster.bilbo("put", cluster.name, str(source), "there", "-t", "4")
    assert put.stderr == "Copied 2 files, 2.0 MB.\n"
    assert cluster.bilbo("rcmd", cluster.name, "4", "./there/run.sh", code=3)
    back = tmp_path / "back"
    cluster.bilbo("get", cluster.name, "~/there/", str(back), "-t", "4")
    assert (back / "deep" / "data").read_bytes() == (source / "deep" / "data").read_bytes()
    assert (back / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (back / "run.sh").stat().st_mtime == 1e9
    cluster.bilbo("get", cluster.name, "there/run.sh", str(tmp_path), "-t", "4")
    assert (tmp_path / "run.sh").read_text() == "exit 3"
    cluster.bilbo("put", cluster.name, str(source / "run.sh"), "-t", "workers")
    cluster.bilbo("rcmd", cluster.name, "workers", "rm run.sh")


def test_put_and_get_say_what_is_missing(cluster: Cluster, tmp_path: Path) -> None:
    """A file that is not there, here or on the host, is named; so are too many targets."""
    missing = str(tmp_path / "missing")
    assert (
        f"{missing}: no such file or folder"
        in cluster.bilbo("put", cluster.name, missing, code=1).stderr
    )
    assert "nothing: No such file" in cluster.bilbo("get", cluster.name, "nothing", code=1).stderr
    assert (
        "this command takes one"
        in cluster.bilbo("get", cluster.name, "x", "-t", "all", code=2).stderr
    )


# restart


def test_restart_brings_back_what_was_lost(cluster: Cluster) -> None:
    """A killed worker and the scheduler run anew; JupyterLab is the same process as before."""
    before = pids(cluster)
    os.killpg(before["3"], signal.SIGKILL)
    done = cluster.bilbo("restart", cluster.name)
    assert "Restart dask scheduler & workers.\n" in done.stderr
    assert done.stdout == "\n" + cluster.bilbo("desc", cluster.name).stdout
    after = pids(cluster)
    assert after["1"] == before["1"]
    assert all(after[number] != before[number] for number in "234")
    assert cluster.bilbo.record(cluster.name)["status"] == "ready"


def test_restart_with_a_sick_host_is_partly_done(cluster: Cluster) -> None:
    """One worker out of reach costs exit code 3 and is told; the next restart completes it."""
    worker = cluster.bilbo.record(cluster.name)["workers"][1]["instance_id"]
    cluster.bilbo("local", "fault", f"ssh={worker}:refuse")
    try:
        began = time.monotonic()
        done = cluster.bilbo("restart", cluster.name, "--timeout", "8", code=3)
        assert time.monotonic() - began < 20
    finally:
        cluster.bilbo("local", "fault", "clear")
    assert f"[4] worker {worker}" in done.stderr and "refuses connections" in done.stderr
    record = cluster.bilbo.record(cluster.name)
    assert (record["status"], list(record["problems"])) == ("partial", [worker])
    child = terminal(cluster, "restart", cluster.name)
    child.expect("4 connected, 4 started, 4 ready of 4")
    assert ended(child) == 0
    record = cluster.bilbo.record(cluster.name)
    assert (record["status"], record["problems"]) == ("ready", {})


def test_restart_waits_for_nobody(cluster: Cluster) -> None:
    """While another bilbo holds the cluster, restart says so and touches nothing."""
    with Store(cluster.bilbo.home).lock(cluster.name, "create"):
        done = cluster.bilbo("restart", cluster.name, code=1)
    assert "works on cluster" in done.stderr


def test_restart_without_an_engine(cluster: Cluster, forget: None) -> None:
    """A cluster of a notebook alone has nothing to restart, which is no failure."""
    name = copied(cluster, "alone", lambda r: r.update(type=None, scheduler=None, workers=[]))
    assert "nothing to restart" in cluster.bilbo("restart", name).stdout


# create, plan, clusters, profiles


def test_overrides_on_the_command_line(cluster: Cluster) -> None:
    """`-p` changes what is planned, as JSON and as text; a wrong one is refused by name."""
    plan = ("plan", cluster.profile, "-n", cluster.name, "-p")
    planned = json.loads(cluster.bilbo(*plan, "dask.worker.count=3", "--json").stdout)
    assert [change["address"] for change in planned["changes"]] == [
        "module.worker.aws_autoscaling_group.this"
    ]
    assert [(group["name"], group["count"]) for group in planned["groups"]] == [
        ("notebook", 1),
        ("scheduler", 1),
        ("worker", 3),
    ]
    assert planned["summary"] == "0 to add, 1 to change, 0 to destroy"
    refused = cluster.bilbo(*plan, "instance.init_cmd.0=id", "-p", "dask.worker.count=many", code=1)
    assert "-p dask.worker.count=many: " in refused.stderr


def test_create_opens_the_pages(cluster: Cluster) -> None:
    """`--notebook` and `--dashboard` open what is ready; what there will not be is refused."""
    create = ("create", cluster.profile, "-n", cluster.name)
    cluster.bilbo(*create, "--notebook", "--dashboard")
    deadline = time.monotonic() + 10
    while not cluster.opened.exists() or cluster.opened.read_text().count("\n") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert all(line.startswith("file://") for line in cluster.opened.read_text().splitlines())
    profile = cluster.bilbo.profile("empty", {"region": "us-east-1"})
    assert "no notebook" in cluster.bilbo("create", profile, "--notebook", code=2).stderr
    assert "no engine" in cluster.bilbo("create", profile, "--dashboard", code=2).stderr


def test_clusters_and_profiles(cluster: Cluster, forget: None) -> None:
    """Names alone in a pipe, a table on a terminal, JSON for programs; a damaged record too."""
    (cluster.bilbo.home / "clusters" / "torn").mkdir()
    (cluster.bilbo.home / "clusters" / "torn" / "cluster.json").write_text("{")
    assert cluster.bilbo("clusters").stdout == f"{cluster.name}\ntorn\n"
    child = terminal(cluster, "clusters")
    child.expect("NAME +STATUS +TYPE +NODES +AGE +ENDS +USD *\r\n")
    child.expect(rf"{cluster.name} +\x1b\[32mready *\x1b\[0m +dask +4 +\d+[sm] +- +\S+ *\r\n")
    child.expect(r"torn +\x1b\[31mdamaged *\x1b\[0m")
    assert ended(child) == 0
    first, second = json.loads(cluster.bilbo("clusters", "--json").stdout)
    assert (first["name"], first["status"], first["nodes"]) == (cluster.name, "ready", 4)
    assert second == {"name": "torn", "status": "damaged"}
    described = cluster.bilbo("desc", cluster.name, "--json").stdout
    assert json.loads(described) == cluster.bilbo.record(cluster.name)
    profiles = json.loads(cluster.bilbo("profiles", "--json").stdout)
    assert cluster.profile in [each["name"] for each in profiles]


def test_names_that_try_to_escape(cluster: Cluster) -> None:
    """What can be no cluster's name is refused before any file is looked at."""
    for command, name in (("desc", "../x"), ("destroy", "-rf"), ("restart", "")):
        assert "the cluster's name" in cluster.bilbo(command, "--", name, code=2).stderr


# completion and help


def completed(cluster: Cluster, *words: str) -> list[str]:
    """What the shell is offered for the last word."""
    done = cluster.bilbo(
        COMP_WORDS=" ".join(("bilbo", *words)),
        COMP_CWORD=str(len(words)),
        _BILBO_COMPLETE="bash_complete",
    )
    return [line.split(",", 1)[1] for line in done.stdout.splitlines() if line]


def test_completion_knows_the_names(cluster: Cluster) -> None:
    """Commands, clusters, profiles and targets are offered."""
    assert completed(cluster, "rest") == ["restart"]
    assert cluster.name in completed(cluster, "desc", "")
    assert completed(cluster, "create", "sha") == [cluster.profile]
    assert {"workers", "all", "4"} <= set(completed(cluster, "rcmd", cluster.name, ""))
    assert completed(cluster, "logs", cluster.name, "no") == ["notebook"]
    assert completed(cluster, "logs", "nobody", "no") == []


def test_completion_in_a_real_bash(cluster: Cluster) -> None:
    """The script that `completion bash` prints offers the cluster's name."""
    script = (
        'eval "$(bilbo completion bash)"; COMP_WORDS=(bilbo desc sh); COMP_CWORD=2; '
        '_bilbo_completion bilbo; echo "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=cluster.bilbo.environment(PATH=path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{cluster.name}\n"
    for shell in ("zsh", "fish"):
        assert f"_BILBO_COMPLETE={shell}_complete" in cluster.bilbo("completion", shell).stdout


def test_completion_and_help_are_light(cluster: Cluster) -> None:
    """Completing names and listing commands import nothing that takes long."""
    code = (
        "import sys, click\n"
        "from bilbo.cli import bilbo\n"
        "try: bilbo.main(prog_name='bilbo')\n"
        "except SystemExit: pass\n"
        "heavy = {'asyncssh', 'boto3', 'jsonschema', 'jinja2', 'python_terraform', 'moto'}\n"
        "print(heavy & set(sys.modules))"
    )
    words = {"COMP_WORDS": "bilbo rcmd shared-cluster ", "COMP_CWORD": "3"}
    for extra in ({}, {**words, "_BILBO_COMPLETE": "bash_complete"}):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=cluster.bilbo.environment(**extra),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.endswith("set()\n")


def test_every_help_has_examples() -> None:
    """Every command shows how it is called."""
    import click

    from bilbo.cli import bilbo

    context = click.Context(bilbo)
    for name in bilbo.list_commands(context):
        command = bilbo.get_command(context, name)
        assert command
        if name != "version" and not isinstance(command, click.Group):
            assert f"bilbo {name}" in (command.help or ""), name
