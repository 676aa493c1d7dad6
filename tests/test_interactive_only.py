"""Programs that only interactive shells find, as where conda is set up in `.bashrc` alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from cli_hosts import key_pair
from reliability import told
from ssh_hosts import Host, processes_of, running

from bilbo.model import HostPlan, HostResult, Service, StagePlan
from bilbo.present.report import failures
from bilbo.remote import Deadlines, KnownHosts, Remote, bring_up

FOR_PEOPLE = "case $- in *i*) ;; *) return ;; esac\n"


def looked_for(place: Path, bashrc: str) -> HostResult:
    """The result of a host that needs `dusk`, whose user has this `.bashrc`."""
    path = key_pair(place)
    host = Host(place / "home", asyncssh.read_private_key(path))
    program = place / "conda" / "bin" / "dusk"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    host.home.mkdir()
    (host.home / ".bashrc").write_text(bashrc)
    remote = Remote(
        KnownHosts(place / "known_hosts"), Deadlines(connect=5, start=20, ready=20, new_key=0.3)
    )

    async def main() -> HostResult:
        async with running(host):
            service = Service("dusk", "exec dusk")
            plan = HostPlan(host.node(path), "dusk", lambda _: service, executables=("dusk",))
            (result,) = await bring_up(StagePlan("test", notebook=plan), remote)
            await asyncio.sleep(0.2)
            assert processes_of(host) == []
            return result

    return asyncio.run(main())


def test_what_bashrc_alone_puts_on_path_is_explained(tmp_path: Path) -> None:
    """The hint says where it is, why it is not found, and how to check."""
    conda = f"echo dusk /a/lie; echo hello; export PATH={tmp_path}/conda/bin:$PATH\n"
    result = looked_for(tmp_path, FOR_PEOPLE + conda)
    assert result.cause == "not on the host's PATH: dusk"
    assert f"{tmp_path}/conda/bin/dusk is there, but only for interactive shells" in result.hint
    assert "bash -lc 'command -v dusk'" in result.hint
    shown = replace(result, hint=result.hint.replace(str(tmp_path), "/opt"))
    told(
        "conda is set up in `~/.bashrc` alone",
        "\n".join(failures([shown], {result.node.instance_id: 1})),
        3,
        "nothing was started on the host",
    )


@pytest.mark.parametrize("bashrc", ["", "sleep 1000 & sleep 1000", "exit 3", "alias dusk=true"])
def test_any_other_bashrc_changes_nothing(tmp_path: Path, bashrc: str) -> None:
    """One that has nothing to tell, does not end, or ends the shell: the hint is the usual one."""
    result = looked_for(tmp_path, bashrc)
    assert result.cause == "not on the host's PATH: dusk"
    assert "Use an AMI on which ubuntu's login shell finds it" in result.hint
