"""Files in a host's home folder are not run in place of Python's own library."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import asyncssh
import pytest
from ssh_hosts import Host, running

from bilbo.model import HostPlan, HostResult, Node, Page, Service, StagePlan
from bilbo.present.report import failures
from bilbo.remote import Deadlines, HostFailure, KnownHosts, Remote, bring_up, software
from bilbo.remote.program import run_program

QUICK = Deadlines(connect=5, start=20, ready=20, init=60, new_key=0.3)
# What the interpreter itself takes from there before anything of ours is run, if it is told to.
STARTS = {"encodings", "codecs", "site", "sitecustomize", "usercustomize", "os", "io", "abc"}


@pytest.fixture(params=["", ":", "$HOME"], ids=["plain", "empty-entry", "home-on-path"])
def planted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Host, Remote, Node]]:
    """A host in whose home every module of the library has a namesake that marks and raises."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    path = tmp_path / "key.pem"
    key.write_private_key(path)
    path.chmod(0o600)
    host = Host(tmp_path / "home", key)
    host.home.mkdir()
    for name in sys.stdlib_module_names - STARTS - set(sys.builtin_module_names):
        if not name.startswith("__") and find_spec(name):  # of Windows's there is none to shadow
            text = f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\nraise SystemExit(1)\n"
            (host.home / f"{name}.py").write_text(text, encoding="utf-8")
    if request.param:
        Path(host.home / "path").write_text(f"export PYTHONPATH={request.param}\n")
        host.path = f"{Path(sys.executable).parent}:/usr/bin:/bin\n. ~/path"
    remote = Remote(KnownHosts(tmp_path / "known_hosts"), QUICK)
    yield host, remote, host.node(path)
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_namesakes_of_the_library(planted: tuple[Host, Remote, Node]) -> None:
    """A host is measured, its packages are found and its service started as if they were not."""
    host, remote, _ = planted

    async def main() -> HostResult:
        async with running(host):
            node = host.node(Path(planted[2].ssh_private_key))
            server = f"{sys.executable} -I -m http.server --bind {node.private_ip} 7999"
            page = Page(node.private_ip, 7999, "/")
            service = Service("server", f"exec {server}", page=page)
            plan = HostPlan(
                node, "server", lambda _: service, executables=("dask",), packages=("dask",),
                init_cmd=("true",),
            )  # fmt: skip
            (answer,) = await software([plan], "test", remote)
            assert not isinstance(answer, HostFailure), answer.details
            assert answer["versions"]["dask"]
            (result,) = await bring_up(StagePlan("test", notebook=plan), remote)
            return result

    result = asyncio.run(main())
    assert result.ok, (result.stage, result.cause, result.log)
    assert result.facts["versions"]["dask"]


def test_a_program_of_another_python(planted: tuple[Host, Remote, Node]) -> None:
    """A program of bilbo's is run by the services' Python, and imports what that has."""
    host, remote, _ = planted

    async def main() -> None:
        async with running(host):
            node = host.node(Path(planted[2].ssh_private_key))
            with pytest.raises(HostFailure) as caught:
                await run_program(
                    node, "test", remote, "leave_ray", {"groups": [], "must": False},
                    executables=["dask"], environment={"RAY_ADDRESS": "none"},
                )  # fmt: skip
            # It has imported what it needs, and looked for the head.
            assert caught.value.details[-1] == "AssertionError", caught.value.details

    asyncio.run(main())


def test_a_failing_command_of_the_profile(tmp_path: Path) -> None:
    """It is told by its number: its text may hold a token, and what is told is kept."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    path = tmp_path / "key.pem"
    key.write_private_key(path)
    path.chmod(0o600)
    host = Host(tmp_path / "home", key)
    remote = Remote(KnownHosts(tmp_path / "known_hosts"), QUICK)
    commands = ("true", "TOKEN=hunter2; echo hunter2; exit 7", "true")

    async def main() -> HostResult:
        async with running(host):
            plan = HostPlan(host.node(path), "s", lambda _: Service("s", "true"), init_cmd=commands)
            (result,) = await bring_up(StagePlan("test", notebook=plan), remote)
            return result

    result = asyncio.run(main())
    assert result.cause == "init_cmd's command 2 of 3 ended with exit code 7"
    kept = json.dumps([result.cause, result.hint])
    assert "hunter2" not in kept
    from bilbo.errors import PartlyDone

    error = PartlyDone("c works in part", details=tuple(failures([result], {})))
    assert "hunter2" in str(error)
    assert "hunter2" not in error.logged()
    assert "command 2 of 3" in error.logged()
    failure = HostFailure("x", log=["hunter2"])
    assert "hunter2" in str(failure)
    assert failure.logged() == "x"
