"""The channel to a host whose login files do what people's login files do, and every wait on it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from cli_hosts import key_pair, told_by
from reliability import errors, told
from ssh_hosts import Host, running

from bilbo.remote import (
    Deadlines,
    HostFailure,
    KnownHosts,
    Remote,
    fetch_logs,
    get_files,
    put_files,
    run_command,
    service_status,
)
from bilbo.status import HostStatus

QUICK = Deadlines(connect=5, start=20, ready=20, new_key=0.3)
TITLE = "printf '\\033]0;my host\\007'"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "home", asyncssh.read_private_key(key_pair(tmp_path)))


def reach(host: Host, **changes: float) -> Remote:
    """How the functions under test reach the host."""
    return Remote(KnownHosts(host.home.parent / "known_hosts"), replace(QUICK, **changes))


async def status(host: Host, **changes: float) -> object:
    """The host's services, or its failure."""
    async with running(host):
        node = host.node(host.home.parent / "key.pem")
        (found,) = await service_status([node], "test", reach(host, **changes))
        return found


@pytest.mark.parametrize(
    "login",
    [
        TITLE,
        """echo '{"event": "login"}'""",
        """echo '{"event": "status", "id": 1, "services": [{"service": "no"}]}'""",
        "(while sleep 0.01; do printf x; done) &",
        "head -c 3000000 /dev/zero",
    ],
)
def test_what_login_files_print_is_not_the_agents(host: Host, login: str) -> None:
    """A window's title without a newline, JSON, endless dots, megabytes: the agent is heard."""
    host.login = login
    assert asyncio.run(status(host)) == HostStatus(())


@pytest.mark.parametrize(
    ("login", "cause"),
    [
        ("cat", "did not begin within 1 s"),
        ("exec sleep 1000", "did not begin within 1 s"),
        ("echo my tmux; exec yes", "did not begin within 1 s"),
        ("read -p 'Your name? ' name", "ended with exit code 0 before bilbo's agent began"),
        ("echo no terminal; exec false", "ended with exit code 1 before bilbo's agent began"),
    ],
)
def test_login_files_that_do_not_let_the_agent_begin_are_named(
    host: Host, login: str, cause: str
) -> None:
    """The failure says when, shows what they printed, and which files to look into."""
    host.login = login
    began = time.monotonic()
    found = asyncio.run(status(host, greeting=1.0))
    assert isinstance(found, HostFailure)
    assert cause in found.what
    assert "~/.bash_profile" in found.hint and "exec tmux" in found.hint
    assert found.details and max(map(len, found.details)) <= 200
    assert found.details[0].startswith(("welcome", "y", "exec")) or "cat" in login
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("fault", "login"),
    [
        ("`~/.profile` on a host waits for input (`cat`), and `bilbo logs` runs", "cat >/dev/null"),
        (
            "`~/.profile` on a host ends in `exec tmux`, and `bilbo logs` runs",
            "echo open terminal failed: not a terminal; exit 1",
        ),
    ],
)
def test_what_is_shown_of_such_login_files(host: Host, fault: str, login: str) -> None:
    """Also where `--timeout` asks for less than ten seconds."""
    host.login = login
    done = told_by([host], host.home.parent / "key.pem", "logs", "test", "--timeout", "1")
    told(fault, errors(done.stderr), done.returncode, "nothing was started on the host")


def test_what_is_shown_of_login_files_that_print(host: Host) -> None:
    """Nothing of a window's title without a newline, nor of what looks like the agent's JSON."""
    host.login = f"""echo '{{"event": "login"}}'; {TITLE}"""
    host.kept.mkdir(parents=True)
    (host.kept / "said.sh").touch()
    (host.kept / "said.log").write_text("a line of the log\n")
    done = told_by([host], host.home.parent / "key.pem", "logs", "test", "--timeout", "10")
    assert (done.stdout, done.stderr) == ("a line of the log\n", "")
    told("`~/.profile` on a host prints a window's title or JSON, and `bilbo logs` runs",
         done.stdout, done.returncode, "all as it was")  # fmt: skip


def test_a_log_that_cannot_be_read_ends_the_command(host: Host) -> None:
    """`--timeout` reaches the wait for the answer, too."""
    host.kept.mkdir(parents=True)
    (host.kept / "stuck.sh").touch()
    os.mkfifo(host.kept / "stuck.log")
    began = time.monotonic()
    done = told_by([host], host.home.parent / "key.pem", "logs", "test", "--timeout", "2")
    assert time.monotonic() - began < 20
    told("A host accepts a command and then answers nothing, and `bilbo logs --timeout 2` runs",
         errors(done.stderr), done.returncode, "all as it was")  # fmt: skip


def test_ten_seconds_are_enough_for_login_files() -> None:
    """Unless `--timeout` gives them less."""
    assert Deadlines().greeting == 10
    assert Deadlines.all(40).greeting == 10
    assert Deadlines.all(3).greeting == 3


def test_many_agents_at_once_may_begin_later(tmp_path: Path) -> None:
    """Hosts of the stand-in share one machine, and a thousand come in turns."""
    remote = Remote(KnownHosts(tmp_path / "known_hosts"))
    seconds = [remote.at_once(count).deadlines.greeting for count in (1, 2, 200, 1000)]
    assert seconds == pytest.approx([10, 10.1, 29.9, 35.5])


def test_an_agent_that_falls_silent_ends_no_later_than_its_deadline(host: Host) -> None:
    """A log that cannot be read to its end, such as a pipe's: `logs` fails and says what came."""
    host.login = TITLE
    host.kept.mkdir(parents=True)
    (host.kept / "stuck.sh").touch()
    os.mkfifo(host.kept / "stuck.log")

    async def main() -> list[HostFailure | None]:
        async with running(host):
            node = host.node(host.home.parent / "key.pem")
            return [
                (
                    await fetch_logs(
                        [node], "test", reach(host, start=1.0), on_lines=print, follow=follow
                    )
                )[0]
                for follow in (False, True)
            ]

    began = time.monotonic()
    for failure in asyncio.run(main()):
        assert failure and failure.what == "the host did not answer within 1 s"
        assert failure.details[-1].endswith("my host\x07")
    assert time.monotonic() - began < 5


class Deaf(asyncssh.SSHServer):
    """Lets everybody in, and never answers what they ask for."""

    def begin_auth(self, username: str) -> bool:
        return False

    async def session_requested(self) -> bool:
        await asyncio.sleep(1000)
        return True


class Hangs(asyncssh.SFTPServer):
    """Answers no request about a file, as a file system does whose server is gone."""

    async def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        await asyncio.sleep(1000)
        return asyncssh.SFTPAttrs()

    lstat = stat


async def failed(host: Host, ask: Callable[[Any, Remote], Any], **server: Any) -> str:
    """What is said when `ask` meets this SSH server."""
    listening = await asyncssh.listen(
        host.address, 0, server_host_keys=[host.server_key], config=None, **server
    )
    host.port = listening.get_port()
    try:
        node = host.node(host.home.parent / "key.pem")
        found = await asyncio.wait_for(ask(node, reach(host, start=0.5)), timeout=10)
    finally:
        listening.close()
    for part in (1, "failure"):
        if isinstance(found, tuple):
            found = found[0]
        found = getattr(found, str(part), found)
    assert isinstance(found, HostFailure)
    return found.what


ASKS: dict[str, Callable[[Any, Remote], Any]] = {
    "run": lambda node, remote: run_command([node], "true", remote, on_output=print),
    "status": lambda node, remote: service_status([node], "test", remote),
    "get": lambda node, remote: get_files(
        node, "there", Path("/nonexistent"), remote, on_copying=print
    ),
    "put": lambda node, remote: put_files((node,), Path(__file__), "", remote, on_copying=print),
}


@pytest.mark.parametrize("ask", ASKS)
def test_a_host_that_answers_nothing_is_named(host: Host, ask: str) -> None:
    """A server that accepts the login and then no request ends no command later than promised."""
    said = asyncio.run(failed(host, ASKS[ask], server_factory=Deaf))
    assert said in ("the host did not open a channel within 0 s", "nothing has moved for 0 s")


@pytest.mark.parametrize("ask", ["get", "put"])
def test_a_file_system_that_hangs_is_named(host: Host, ask: str) -> None:
    """A copy that does not move ends, whatever it waits for."""

    class Open(Deaf):
        def session_requested(self) -> bool:  # type: ignore[override]
            return True

    said = asyncio.run(failed(host, ASKS[ask], server_factory=Open, sftp_factory=Hangs))
    assert said == "nothing has moved for 0 s"
