"""Hosts whose login files set a proxy: nothing goes through it from machine to machine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import asyncssh
import pytest
from cli_hosts import key_pair
from reliability import told
from ssh_hosts import Host, fresh_address, running

from bilbo.agent import leave_ray, supervisor
from bilbo.model import HostPlan, Page, Service, StagePlan
from bilbo.remote import Deadlines, KnownHosts, Remote, bring_up
from bilbo.remote.agent_session import agent_source

QUICK = Deadlines(connect=5, start=20, ready=20, new_key=0.3)
DEAD = "http://127.0.0.1:9"


def test_services_reach_all_machines_without_the_proxy(tmp_path: Path) -> None:
    """`no_proxy` of the login files is completed; more machines alone are no reason to start a
    service anew, which has them at its next start."""
    path = key_pair(tmp_path)
    host = Host(tmp_path / "home", asyncssh.read_private_key(path))
    host.login = f"export http_proxy={DEAD} NO_PROXY=example.com\n"

    async def main() -> list[str]:
        said = []
        async with running(host):
            node = host.node(path)
            script = (
                'echo "$http_proxy $no_proxy $NO_PROXY" >"$HOME/said"\n'
                f"exec python3 -m http.server --bind {node.private_ip} 7999"
            )
            service = Service("web", script, page=Page(node.private_ip, 7999, "/"))
            plan = HostPlan(node, "web", lambda _: service, replace=True)
            one = (node.private_ip,)
            remote = Remote(KnownHosts(tmp_path / "known_hosts"), QUICK)
            for addresses, fresh in ((one, ()), ((*one, "10.0.0.9"), ()), (one, {node.role})):
                stage = StagePlan("test", notebook=plan, addresses=addresses)
                (result,) = await bring_up(stage, remote, fresh=fresh)
                assert result.ok
                assert result.facts["already"] == (len(addresses) == 2)
                said.append((host.home / "said").read_text().strip())
        return said

    names = f"example.com,{host.address}"
    assert asyncio.run(main()) == [f"{DEAD} {names} {names}"] * 3
    told(
        "The login files on the hosts set a proxy that reaches none of the machines",
        "nothing",
        0,
        "the proxy for everything else; `no_proxy` has the machines' addresses, too",
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "10.0.0.1,10.0.0.2"),
        ({"no_proxy": "a,10.0.0.2", "NO_PROXY": "b"}, "a,10.0.0.2,b,10.0.0.1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_what_stands_there_already_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, str], after: str
) -> None:
    """Also a `*`, which programs understand only if it stands alone."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "addresses").write_text("10.0.0.1\n10.0.0.2")
    assert supervisor.environment(str(tmp_path / "web"))["no_proxy"] == after


class Dashboard(BaseHTTPRequestHandler):
    """Ray's, as far as it is asked."""

    def do_GET(self) -> None:
        nodes = [{"node_name": "i-1", "node_id": "n1"}]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": {"result": {"result": nodes}}}).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_rays_head_is_asked_without_the_proxy() -> None:
    """The program that lets workers leave runs in the environment of a login."""
    address = fresh_address()
    with HTTPServer((address, leave_ray.DASHBOARD_PORT), Dashboard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ask = f"\nassert Head({address!r}).nodes() == {{'i-1': 'n1'}}"
        source = agent_source("leave_ray").replace('if __name__ == "__main__":\n    main()', ask)
        done = subprocess.run(
            [sys.executable, "-c", source],
            env={"http_proxy": DEAD},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
