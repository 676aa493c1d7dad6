"""The stand-in's one process: `python -m bilbo.local.server HOME REGION`.

Started by `bilbo.local.start`, never by hand. Serves moto's API in threads and the instances'
SSH in the main thread's event loop, until SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import logging.handlers
import os
import resource
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bilbo.errors import LocalError
from bilbo.files import private_write
from bilbo.local import network, own_programs, standin_state
from bilbo.local.processes import end_of_standin, start_time

log = logging.getLogger("bilbo.local")

TEND_EVERY = 0.5  # seconds between two looks at the Auto Scaling groups
SILENCE = 60  # seconds in which a client of the API sends nothing of what it has announced
AMIS = Path(__file__).with_name("amis.json")

# moto reads these while it is imported.
MOTO_SETTINGS = {
    "MOTO_AMIS_PATH": str(AMIS),
    "MOTO_DISABLE_GLOBAL_CORS": "true",  # no web page of the user's browser may come in
}


def main(home: str, region: str) -> None:
    """Be the stand-in of the bilbo home `home`, until SIGTERM."""
    paths = standin_state.Paths.of(Path(home))
    _log_to(paths)
    _allow_many_files()
    end_of_standin(paths.mark)
    standin_state.erase(paths.instances)
    standin_state.erase(paths.power)
    paths.instances.mkdir(mode=0o700)
    own_programs.lay_out(paths.own)
    with _places(paths, region) as (found, api_socket):
        asyncio.run(_serve(paths, found, api_socket))


def _log_to(paths: standin_state.Paths) -> None:
    handler = logging.handlers.RotatingFileHandler(paths.log, maxBytes=1_000_000, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("werkzeug", "asyncssh", "botocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    threading.excepthook = lambda failure: log.error("a thread failed", exc_info=failure.exc_value)


def _allow_many_files() -> None:
    """A thousand instances are a thousand listening sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 65536)), hard))


@contextlib.contextmanager
def _places(
    paths: standin_state.Paths, region: str
) -> Iterator[tuple[standin_state.State, socket.socket]]:
    """Ports, addresses and credentials, those of the last time where they are free."""
    last = standin_state.load(paths) or standin_state.State()
    octet, claim = network.claim_range(paths.mark, last.octet)
    with claim, network.api_socket(paths.mark, last.port) as api_socket:
        yield (
            replace(
                last,
                pid=os.getpid(),
                started=start_time(os.getpid()),
                region=region,
                port=api_socket.getsockname()[1],
                ssh_port=network.ssh_port(octet, last.ssh_port),
                octet=octet,
                access_key=last.access_key or standin_state.new_access_key(),
                secret_key=last.secret_key or secrets.token_urlsafe(30),
                log=str(paths.log),
            ),
            api_socket,
        )


async def _serve(
    paths: standin_state.Paths, found: standin_state.State, api_socket: socket.socket
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    os.environ.update(MOTO_SETTINGS)
    gc.disable()  # moto loads a great many objects that stay for good
    tasks, web = _start(paths, found, api_socket)
    gc.freeze()
    gc.enable()
    standin_state.save(paths, found)
    _go_quiet()
    log.info("up at %s, instances on 127.%s.0.0/16", found.endpoint_url, found.octet)
    try:
        await stop.wait()
    finally:
        web.shutdown()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        end_of_standin(paths.mark)
        standin_state.save(paths, replace(found, pid=0, started=""))
        log.info("down")


def _start(
    paths: standin_state.Paths, found: standin_state.State, api_socket: socket.socket
) -> tuple[list[asyncio.Task[None]], Any]:
    """Put together moto, its mends, the machines and the API; returns what to end."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.ec2.models import ec2_backends
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    from bilbo.local import groups, hooks
    from bilbo.local.api import Api
    from bilbo.local.machines import LiveMachines
    from bilbo.local.metadata import PREFIX

    if not version("moto").startswith(f"{hooks.TESTED_MOTO}."):
        raise LocalError(f"moto {version('moto')} is installed, {hooks.TESTED_MOTO} is needed")
    key = (standin_state.KEY_NAME, _public_key(paths))
    credentials = (found.access_key, found.secret_key)
    world = hooks.World(network.Addresses(found.octet), key, credentials)
    hooks.install(world)
    diary = groups.install(world)
    ec2_backends[DEFAULT_ACCOUNT_ID][found.region]  # made now, so that the first call is fast
    metadata = f"{found.endpoint_url}{PREFIX}"
    machines = LiveMachines(world, paths.instances, found.ssh_port, paths.mark, metadata)
    moto = DomainDispatcherApplication(create_backend_app)
    api = Api(moto, world, found.access_key, machines.changed, lambda: _status(world, hooks))
    web = _web_server(api, api_socket)
    threading.Thread(target=web.serve_forever, args=(0.1,), daemon=True).start()

    async def tend() -> None:
        while True:
            await asyncio.sleep(TEND_EVERY)
            try:
                await asyncio.to_thread(groups.tend, world, diary)
            except Exception:
                log.exception("the Auto Scaling groups could not be looked after")

    return [asyncio.create_task(machines.keep()), asyncio.create_task(tend())], web


def _web_server(api: Any, api_socket: socket.socket) -> Any:
    from moto.moto_server import werkzeug_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    # Later moto 5.2 releases have a handler that knows S3's header names.
    handler: type[WSGIRequestHandler]
    handler = getattr(werkzeug_app, "MotoRequestHandler", WSGIRequestHandler)

    class Quiet(handler):  # type: ignore[valid-type,misc]
        """A request is no news, and one whose client falls silent ends."""

        timeout = SILENCE

        def log_request(self, *args: Any) -> None:
            """Say nothing."""

        def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
            """The client does not learn what was done, and may ask again, over a new connection."""
            log.warning("an answer was not delivered: %s", error)
            self.close_connection = True

    host, port = api_socket.getsockname()
    return make_server(
        host, port, api, threaded=True, request_handler=Quiet, fd=api_socket.fileno()
    )


def _public_key(paths: standin_state.Paths) -> bytes:
    """The OpenSSH public key of the key pair `local`, whose private key is made once a home."""
    import asyncssh

    if not paths.private_key.exists():
        made = asyncssh.generate_private_key("ssh-ed25519", comment=standin_state.KEY_NAME)
        private_write(paths.private_key, made.export_private_key("openssh").decode())
    return asyncssh.read_private_key(paths.private_key).export_public_key("openssh").strip()


def _status(world: Any, hooks: Any) -> dict[str, Any]:
    with world.lock:
        instances = sorted(
            hooks.all_instances(), key=lambda instance: getattr(instance, "bilbo_serial", 0)
        )
        return {
            "instances": [
                {
                    "instance_id": i.id,
                    "state": i.state,
                    "private_ip": i.private_ip if i.state != "terminated" else "",
                    "public_ip": i.public_ip or "" if i.state != "terminated" else "",
                    "name": hooks.tags_of(i).get("Name", ""),
                    "image_id": i.image_id,
                    "region": i.region_name,
                }
                for i in instances
            ]
        }


def _go_quiet() -> None:
    """Nobody reads what is printed from here on, and it must not fill the disk."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2])
    except LocalError as error:
        sys.exit(str(error))
