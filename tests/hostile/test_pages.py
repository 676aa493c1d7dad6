"""The services' pages: no web page ends workers, and no file of a machine's lets anybody in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import asyncssh
import pytest
from ssh_hosts import Host, processes_of, running

from bilbo import services
from bilbo.engines import dask
from bilbo.model import (
    NOTEBOOK,
    NOTEBOOK_PORT,
    SCHEDULER,
    WORKER,
    ClusterSpec,
    HostPlan,
    HostResult,
    Inventory,
    Machine,
    NodeGroup,
    Served,
    StagePlan,
)
from bilbo.remote import Deadlines, KnownHosts, Remote, bring_up

MACHINE = Machine("ami-1", "m5.xlarge", "key", "ubuntu", "key.pem")
TOKEN = "s3cret" + os.urandom(8).hex()
ONE = {"nproc": 1, "nthread": 1}


pytestmark = pytest.mark.programs


@dataclass
class Place:
    """A client's key and files."""

    folder: Path
    key: asyncssh.SSHKey

    @property
    def key_path(self) -> Path:
        return self.folder / "key.pem"

    def hosts(self, count: int) -> list[Host]:
        return [Host(self.folder / f"host-{number}", self.key) for number in range(count)]

    def remote(self, ready: float = 60) -> Remote:
        deadlines = replace(Deadlines(), ready=ready)
        return Remote(KnownHosts(self.folder / "known_hosts"), deadlines, lambda event: None)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o600)
    return Place(tmp_path, key)


def ask(url: str, method: str = "GET", headers: Mapping[str, str] = {}) -> tuple[int, bytes]:
    """The status and body of an answer, whatever the status and the certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    data = b'{"n": 1}' if method == "POST" else None
    try:
        with urlopen(
            Request(url, data=data, method=method, headers=dict(headers)),
            context=context if url.startswith("https") else None,
        ) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


# Dask


def cluster(notebook: bool = False) -> ClusterSpec:
    """A scheduler and a worker, or a notebook alone."""

    def group(role: str) -> NodeGroup:
        return NodeGroup(role, role, f"test-{role}", MACHINE, settings=ONE)

    if notebook:
        return ClusterSpec("test", "us-east-1", notebook=group(NOTEBOOK))
    return ClusterSpec(
        "test", "us-east-1", engine="dask", head=group(SCHEDULER), workers=(group(WORKER),)
    )


def dask_plan(place: Place, hosts: list[Host]) -> StagePlan:
    """What is started on two hosts."""
    head, worker = hosts[0].node(place.key_path, SCHEDULER), hosts[1].node(place.key_path)
    return services.stage_plan(cluster(), Inventory(head=head, workers=(worker,)), "")


def as_before(plan: HostPlan) -> HostPlan:
    """The scheduler as an earlier bilbo started it, its list of workers in Dask's own place."""

    def service(measurement: Any) -> Any:
        now = plan.service(measurement)
        assert now.page and '"roll_dask", ' in now.script
        script = now.script.replace('"roll_dask", ', '"distributed.http.scheduler.api", ')
        page = replace(now.page, path="/api/v1/get_workers", earlier="")
        return replace(now, script=script, programs=(), page=page)

    return replace(plan, service=service)


def test_no_web_page_ends_a_worker(place: Place) -> None:
    """The routes that retire workers are not served, even where the host's own settings ask for
    them; what is served instead is a list to be read, and the worker stays."""

    async def main() -> None:
        hosts = place.hosts(2)
        async with running(*hosts):
            settings = hosts[0].home / ".config" / "dask"
            settings.mkdir(parents=True)
            routes = ["distributed.http.scheduler.api", "distributed.http.health"]
            text = {"distributed": {"scheduler": {"http": {"routes": routes}}}}
            (settings / "mine.yaml").write_text(json.dumps(text), encoding="utf-8")
            plan = dask_plan(place, hosts)
            results = await bring_up(plan, place.remote())
            assert [(each.ok, each.cause) for each in results] == [(True, "")] * 2
            await asyncio.to_thread(check, plan)

    def check(plan: StagePlan) -> None:
        assert plan.head and plan.roll
        page = f"http://{plan.head.node.private_ip}:{dask.DASHBOARD_PORT}"
        for route in ("retire_workers", "get_workers", "adaptive_target", "check_idle"):
            for method in ("POST", "GET"):
                assert ask(f"{page}/api/v1/{route}", method)[0] == 404
        for method in ("POST", "PUT", "DELETE"):
            assert ask(page + plan.roll.page.path, method)[0] == 405
        assert ask(page + "/proxy/80/127.0.0.1/")[0] == 404
        status, body = ask(page + plan.roll.page.path)
        assert status == 200
        (found,) = json.loads(body)["workers"]
        assert found["name"] == plan.workers[0].node.instance_id
        assert found["address"].startswith(f"tcp://{plan.workers[0].node.private_ip}:")
        assert ask(page + "/status")[0] == 200

    asyncio.run(main())


def test_a_scheduler_of_before_goes_on(place: Place) -> None:
    """One that an earlier bilbo started is not stopped; its list of workers is read where it is."""

    async def main() -> None:
        hosts = place.hosts(2)
        async with running(*hosts):
            plan = dask_plan(place, hosts)
            assert plan.head
            before = replace(plan, head=as_before(plan.head), workers=(), roll=None)
            (first,) = await bring_up(before, place.remote())
            assert first.ok, first.cause
            head, worker = await bring_up(plan, place.remote())
            assert head.ok and head.facts["already"] and head.facts["kept"]
            assert worker.ok, worker.cause
            (anew, _) = await bring_up(plan, place.remote(), fresh={SCHEDULER, WORKER})
            assert anew.ok and not anew.facts["kept"]

    asyncio.run(main())


def test_a_scheduler_without_the_list_is_not_ready(place: Place) -> None:
    """What is started now is not taken for ready by the routes that it must not serve."""

    async def main() -> HostResult:
        hosts = place.hosts(2)
        async with running(*hosts):
            plan = dask_plan(place, hosts)
            assert plan.head

            def service(measurement: Any) -> Any:
                made = as_before(plan.head).service(measurement)  # type: ignore[arg-type]
                return replace(made, page=plan.roll.page)  # type: ignore[union-attr]

            odd = replace(plan, head=replace(plan.head, service=service), workers=(), roll=None)
            (result,) = await bring_up(odd, place.remote(ready=12))
            return result

    result = asyncio.run(main())
    assert not result.ok
    assert "/bilbo/workers: HTTP status 404" in result.cause


# JupyterLab

OPEN_EVERYWHERE = {
    "jupyter_config.py": 'c.ServerApp.token = ""\nc.IdentityProvider.token = ""\n',
    "jupyter_server_config.py": (
        'c.ServerApp.token = ""\nc.PasswordIdentityProvider.token = ""\nc.LabApp.token = ""\n'
    ),
    "jupyter_server_config.json": '{"IdentityProvider": {"token": ""}}',
    "jupyter_lab_config.py": (
        'c.ServerApp.token = ""\nc.IdentityProvider.token = ""\nc.NotebookApp.token = ""\n'
        'c.PasswordIdentityProvider.token = ""\n'
    ),
    "jupyter_notebook_config.py": 'c.NotebookApp.token = ""\nc.ServerApp.token = ""\n',
}
ANYBODY = """
from jupyter_server.auth.identity import IdentityProvider, User

class Anybody(IdentityProvider):
    def get_user(self, handler):
        return User("anybody")

c.ServerApp.identity_provider_class = Anybody
"""


def on_a_host(
    place: Place,
    settings: Mapping[str, str],
    check: Callable[[Host, HostResult], Awaitable[None]],
    *,
    left: Mapping[str, str] | None = None,
) -> None:
    """Starts JupyterLab on a host whose user has these settings files, and on which an earlier one
    has left others, and looks at it."""

    async def main() -> None:
        (host,) = place.hosts(1)
        async with running(host):
            folder = host.home / ".jupyter"
            folder.mkdir()
            for name, text in settings.items():
                (folder / name).write_text(text, encoding="utf-8")
            for name, text in (left or {}).items():
                (host.kept / name).parent.mkdir(parents=True)
                (host.kept / name).write_text(text, encoding="utf-8")
            inventory = Inventory(notebook=host.node(place.key_path, NOTEBOOK))
            plan = services.stage_plan(cluster(notebook=True), inventory, TOKEN)
            (result,) = await bring_up(plan, place.remote(ready=40))
            await check(host, result)

    asyncio.run(main())


def api(host: Host, served: Served = Served(), **headers: str) -> int:  # noqa: B008
    """The status of its API's answer."""
    url = services.notebook_url(host.node(Path("key.pem")), TOKEN, served).partition("?")[0]
    return ask(f"{url}api/status", headers=headers)[0]


def test_no_file_switches_the_token_off(place: Place) -> None:
    """Whatever the machine's own settings files say of the token, in whichever place."""

    async def check(host: Host, result: HostResult) -> None:
        assert result.ok, (result.cause, result.log)
        assert result.facts["served"] == Served()
        assert await asyncio.to_thread(api, host) == 403
        assert await asyncio.to_thread(lambda: api(host, Authorization=f"token {TOKEN}")) == 200
        assert await asyncio.to_thread(lambda: api(host, Authorization="token ")) == 403

    on_a_host(place, OPEN_EVERYWHERE, check)


def test_an_open_server_is_not_ready(place: Place) -> None:
    """Settings that let everybody in by other means: the cause is named, and the server ended."""

    async def check(host: Host, result: HostResult) -> None:
        assert not result.ok
        assert "without the token: anyone can use it" in result.cause
        assert "It was stopped" in result.hint
        with pytest.raises(OSError):
            await asyncio.to_thread(api, host)
        assert not [pid for pid in processes_of(host) if b"jupyter" in command_line(pid)]

    on_a_host(place, {"jupyter_server_config.py": ANYBODY}, check)


def command_line(pid: int) -> bytes:
    """A process's command line; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_a_machines_own_address_is_told(place: Place) -> None:
    """A certificate, a base_url and a password are honoured, and are in the notebook's address;
    what a killed server left behind is no description of this one."""
    key, certificate = place.folder / "tls.key", place.folder / "tls.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=elsewhere",
         "-keyout", str(key), "-out", str(certificate), "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    settings = f"""
c.ServerApp.base_url = "/team/a"
c.ServerApp.certfile = {str(certificate)!r}
c.ServerApp.keyfile = {str(key)!r}
c.PasswordIdentityProvider.hashed_password = "argon2:no"
"""
    lie = {"pid": os.getpid(), "secure": False, "base_url": "/evil/"}
    left = {"jupyter/jpserver-1.json": json.dumps(lie)}

    async def check(host: Host, result: HostResult) -> None:
        assert result.ok, (result.cause, result.log)
        served = result.facts["served"]
        assert served == Served(secure=True, base="/team/a/")
        url = services.notebook_url(host.node(Path("key.pem")), TOKEN, served)
        assert url == f"https://{host.address}:{NOTEBOOK_PORT}/team/a/?token={TOKEN}"
        status, page = await asyncio.to_thread(ask, url)
        assert status == 200 and b"JupyterLab" in page
        assert await asyncio.to_thread(api, host, served) == 403

    on_a_host(place, {"jupyter_server_config.py": settings}, check, left=left)
