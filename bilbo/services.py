"""Plans what each host of a cluster runs, without contacting any host.

`stage_plan` combines an engine and the notebook into a plan that `remote` carries out.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

from bilbo.engines import (
    ENGINES,
    ENVIRONMENT,
    HERE,
    READ_ENVIRONMENT,
    Engine,
    address,
    bash,
    group_of,
)
from bilbo.lifetime import install_script
from bilbo.model import (
    HEAD,
    NOTEBOOK_PORT,
    ClusterSpec,
    HostPlan,
    Inventory,
    Measurement,
    Node,
    Page,
    Served,
    Service,
    StagePlan,
)

TOKEN_FILE = "jupyter.token"
# Jupyter's server and kernels write here; the server also describes its address here.
RUNTIME = "jupyter"
BASE = re.compile(r"/([A-Za-z0-9._~@:+-]{1,100}/){0,20}")  # safe in an address as it is
SERVERS = f"{RUNTIME}/jpserver-*.json"
CONFIG_FILE = "jupyter_server_config.py"
# Of all settings files Jupyter reads this one last: JUPYTER_CONFIG_PATH precedes any other folder,
# and JupyterLab's own files the server's. Settings of a class override those of its base classes.
CONFIG = f"""\
# Written by bilbo: JupyterLab's token, whatever other settings of the machine say of it.
import os

c = get_config()
with open(os.path.join(os.path.dirname(__file__), "{TOKEN_FILE}")) as file:
    token = file.read()
for name in ("ServerApp", "IdentityProvider", "PasswordIdentityProvider", "LegacyIdentityProvider"):
    c[name].token = token
"""
# People's browsers reach the head at its public address, which no security group lets members do:
# what an extension asks there for them (dask-labextension, whether a dashboard is one) goes to the
# private one. Tornado's documentation has `hostname_mapping` for this.
_WITHIN = """
from tornado.httpclient import AsyncHTTPClient
from tornado.simple_httpclient import SimpleAsyncHTTPClient

if AsyncHTTPClient.configured_class() is SimpleAsyncHTTPClient:
    AsyncHTTPClient.configure(SimpleAsyncHTTPClient, hostname_mapping={mapping})
"""
JUPYTER_PACKAGES = ("jupyterlab", "jupyter_server")


def stage_plan(spec: ClusterSpec, inventory: Inventory, token: str) -> StagePlan:
    """What to start where. Includes workers without a head, so that they are reported."""
    engine = ENGINES[spec.engine] if spec.engine else None
    head = inventory.head
    ours = partial(_equipped, spec, engine, engine.member(head) if engine and head else {})
    theirs = partial(_equipped, spec, engine, engine.notebook(head) if engine and head else {})
    return StagePlan(
        cluster=spec.name,
        head_role=engine.head_role if engine else HEAD,
        head=ours(engine.head(spec, head)) if engine and head else None,
        notebook=theirs(notebook_plan(spec, inventory, token, engine))
        if inventory.notebook
        else None,
        workers=tuple(
            _reclaimable(spec, engine, head, ours(engine.worker(spec, node, head or node)))
            for node in inventory.workers
            if engine
        ),
        roll=engine.roll(head) if engine and head else None,
        breaking=engine.breaking if engine else (),
        patient=engine.patient if engine else False,
        addresses=tuple(node.private_ip for node in inventory.nodes()),
    )


def _equipped(
    spec: ClusterSpec, engine: Engine | None, variables: Mapping[str, str], plan: HostPlan
) -> HostPlan:
    """The plan whose service has the file ENVIRONMENT beside it, and what the engine reads."""
    group = group_of(spec, plan.node)
    more, lines = engine.configure(group) if engine else ({}, ())
    text = environment({**variables, **group.machine.env}, lines)

    def service(measurement: Measurement) -> Service:
        made = plan.service(measurement)
        return replace(made, files={**made.files, **more, ENVIRONMENT: text})

    ends = spec.lifetime
    return replace(
        plan,
        service=service,
        lifetime=install_script(group.machine.ssh_user, ends.unreached) if ends else "",
    )


def _reclaimable(spec: ClusterSpec, engine: Engine, head: Node | None, plan: HostPlan) -> HostPlan:
    """The plan whose worker leaves when AWS takes its machine back, if it may."""
    if head is None or not (plan.node.spot or group_of(spec, plan.node).spot):
        return plan
    settings = {
        "host": plan.node.instance_id,
        "service": plan.service_name,
        "program": engine.leave,
        "executables": list(plan.executables),
        "environment": dict(engine.notebook(head)),
    }
    return replace(plan, watches={**plan.watches, "spot": lambda: settings})


def environment(variables: Mapping[str, str], lines: Sequence[str] = ()) -> str:
    """A file for sh that exports variables, for who has set `here` to its folder."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    begin = "# Written by bilbo: read by the services, `bilbo rcmd` and `bilbo ssh`."
    return "\n".join([begin, *exports, *lines]) + "\n"


def notebook_url(node: Node, token: str, served: Served = Served()) -> str:  # noqa: B008
    """JupyterLab's address for a browser, with the token."""
    scheme = "https" if served.secure else "http"
    where = f"{address(node)}:{NOTEBOOK_PORT}{served.base}"
    return f"{scheme}://{where}?token={quote(token, safe='')}"


def described(text: str) -> Served:
    """How to reach JupyterLab, from its host's description of the server; bilbo's defaults if the
    text is not such a description."""
    try:
        told, _ = json.JSONDecoder().raw_decode(text.lstrip())
        secure, base = told["secure"], told["base_url"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return Served()
    if isinstance(secure, bool) and isinstance(base, str) and BASE.fullmatch(base):
        return Served(secure, base)
    return Served()


def served(url: str) -> Served:
    """How to reach JupyterLab, from an address of `notebook_url`."""
    parts = urlsplit(url)
    return Served(parts.scheme == "https", parts.path or "/")


def notebook_plan(
    spec: ClusterSpec, inventory: Inventory, token: str, engine: Engine | None
) -> HostPlan:
    """JupyterLab, ready when its API accepts the token and refuses requests without it.

    A change never restarts a running one, because people's kernels run in it.
    """
    node = inventory.notebook
    if node is None:
        raise ValueError("the inventory has no notebook")
    service = Service(
        name="jupyter",
        script=notebook_script(spec, node),
        files={TOKEN_FILE: token, CONFIG_FILE: CONFIG + within(inventory.head)},
        listens=((node.private_ip, NOTEBOOK_PORT),),
        page=Page(
            node.private_ip,
            NOTEBOOK_PORT,
            "/api/status",
            {"Authorization": f"token {token}"},
            closed=True,
            described=SERVERS,
        ),
    )
    return HostPlan(
        node=node,
        service_name=service.name,
        service=lambda _: service,
        executables=("jupyter", "jupyter-lab"),
        packages=(*JUPYTER_PACKAGES, *(engine.packages if engine else ())),
        init_cmd=group_of(spec, node).machine.init_cmd,
        requirements=group_of(spec, node).machine.packages,
        disk=group_of(spec, node).machine.vol_size or 0,
    )


def within(head: Node | None) -> str:
    """What has JupyterLab's server ask the head at its private address, whatever it is called."""
    if head is None or head.public_ip in ("", head.private_ip):
        return ""
    return _WITHIN.format(mapping=json.dumps({head.public_ip: head.private_ip}))


def jupyter_place(node: Node) -> dict[str, Any]:
    """Where a machine's watcher asks its JupyterLab what people do there."""
    return {
        "host": node.private_ip,
        "port": NOTEBOOK_PORT,
        "described": SERVERS,
        "token_file": TOKEN_FILE,
    }


def notebook_script(spec: ClusterSpec, node: Node) -> str:
    """JupyterLab reads its token from a file that only the user can read: argv is public, and every
    kernel inherits environment variables and may print them."""
    lines = [HERE, READ_ENVIRONMENT, "unset JUPYTER_TOKEN"]
    lines += [f'export JUPYTER_TOKEN_FILE="$here/{TOKEN_FILE}"']
    # JupyterLab writes the token to a file there; in its default folder anyone could read it.
    lines += [f'export JUPYTER_RUNTIME_DIR="$here/{RUNTIME}"']
    lines += [f"# {CONFIG_FILE} there gives the token, and goes before the machine's own settings."]
    lines += ['export JUPYTER_CONFIG_PATH="$here${JUPYTER_CONFIG_PATH:+:$JUPYTER_CONFIG_PATH}"']
    lines += ["as_root=()", 'if [ "$(id -u)" = 0 ]; then as_root=(--allow-root); fi']
    command = [
        "jupyter lab",
        "--no-browser",
        f"--ip={shlex.quote(node.private_ip)}",
        f"--port={NOTEBOOK_PORT}",
        "--ServerApp.port_retries=0",
        '--ServerApp.root_dir="$HOME"',
        '"${as_root[@]}"',
    ]
    return bash(f"JupyterLab of cluster {spec.name}", lines, command)
