"""`attach`: a cluster that a team-mate made, from what its shared state tells."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bilbo import aws
from bilbo import record as states
from bilbo.cluster.shared import admitted, outputs_of, recorded, say_unlike, told_digests, unlocked
from bilbo.cluster.start import with_nodes
from bilbo.cluster.work import Work, owned, reach, right_account, settle
from bilbo.engines import ENGINES
from bilbo.errors import BilboError, RecordError, UsageError
from bilbo.model import ONES_OWN, WORKER, ClusterSpec, Inventory, SharedState
from bilbo.record import Record, now
from bilbo.render import render

if TYPE_CHECKING:
    from bilbo.model import Node, Served

# How long a host that runs is waited for, to tell its notebook's token.
_PATIENCE_SECONDS = 30.0
# How deep a profile may be; what is deeper ends the programs that walk it.
_LEVELS = 32
# What is taken from a shared state, by where it stands: whoever writes the bucket commands nobody's
# machine. A key that is not listed here is not taken, whatever it is.
_OF_INSTANCE = [
    "ami",
    "image",
    "ec2type",
    "keyname",
    "ssh_user",
    "security_group",
    "ssh_port",
    "vol_size",
    "tags",
    "subnet",
    "iam_instance_profile",
]
_OF_GROUP = [
    "name",
    "instance",
    "count",
    "resources",
    "nproc",
    "nthread",
    "num_cpus",
    "num_gpus",
    "object_store_memory",
]
# A token is printed, and stands in a URL.
_TOKEN = re.compile("[!-~]{1,512}")
_OF_PROFILE = ("description", "region", "account", "access", "instance", "notebook", *ENGINES)


def shared_document(
    name: str,
    state: SharedState,
    work: Work,
    *,
    mine: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """The profile of a cluster as its shared state tells it, with what is this machine's own.

    `mine` is a profile of this machine, `key` the path of the private key. Raises RecordError
    where there is no such cluster or it is known here, UsageError without a key, AwsError where
    the state cannot be read.
    """
    unknown(name, work)
    outputs = outputs_of(admitted(aws.shared_state(work.target, state, name), state.address()))
    if "profile" not in outputs:
        raise RecordError(
            f"there is no cluster {name!r} in {state.address()}",
            hint="Check the name, the bucket and the prefix, and the AWS account.",
        )
    document = taken(outputs["profile"])
    document["state"] = {
        "bucket": state.bucket,
        "prefix": state.prefix,
        "region": state.region,
    }
    for path, instance in _instances(mine or {}):
        ones_own: dict[str, Any] = {key: instance[key] for key in ONES_OWN if key in instance}
        _at(document, path).update(ones_own)
    if mine and "webbrowser" in mine:
        document["webbrowser"] = mine["webbrowser"]
    if key is not None:
        for _, instance in _instances(document):
            instance.pop("ssh_private_key", None)
        _at(document, ("instance",))["ssh_private_key"] = key
    elif mine is None:
        raise UsageError(
            "the private key of the cluster's hosts is not in a shared state",
            hint="Name it with -i, or give the cluster's profile in place of the address.",
        )
    return document


def taken(shared: Any) -> dict[str, Any]:
    """The profile in a state's outputs, without anything that a state has no say in. Raises
    RecordError for what is no profile."""
    if not isinstance(shared, dict) or _is_deep(shared):
        raise RecordError("the profile in the shared state is not one that bilbo has written")
    document = _only(shared, _OF_PROFILE)
    for key in document.keys() & {"instance"}:
        document[key] = _only(document[key], _OF_INSTANCE)
    for key in document.keys() & {"notebook"}:
        document[key] = _group(document[key])
    for key in document.keys() & ENGINES.keys():
        parts = _only(document[key], (ENGINES[key].head_role, WORKER))
        document[key] = {
            role: [_group(each) for each in part] if isinstance(part, list) else _group(part)
            for role, part in parts.items()
        }
    return document


def _is_deep(value: Any) -> bool:
    """Whether there is more in a value than in any profile, level by level."""
    level = [value]
    for _ in range(_LEVELS):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [item for each in inner for item in each if isinstance(item, dict | list)]
    return bool(level)


def _group(part: Any) -> dict[str, Any]:
    kept = _only(part, _OF_GROUP)
    if "instance" in kept:
        kept["instance"] = _only(kept["instance"], _OF_INSTANCE)
    return kept


def _only(part: Any, keys: Collection[str]) -> dict[str, Any]:
    """A copy of `part` with those keys alone; nothing of what is no object."""
    if not isinstance(part, dict):
        return {}
    kept: dict[str, Any] = json.loads(json.dumps({k: part[k] for k in part if k in keys}))
    return kept


def unknown(name: str, work: Work) -> None:
    """Raises RecordError where this home knows the cluster."""
    if work.store.known(name):
        raise RecordError(
            f"cluster {name!r} is known here already",
            hint=f"`bilbo desc {name}` describes it.",
        )


def _instances(
    document: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every `instance` by its path; a group in a list is a step of its name."""
    if isinstance(document, list):
        document = {each["name"]: each for each in document if isinstance(each, dict)}
    if not isinstance(document, dict):
        return
    for name, value in document.items():
        if name == "instance" and isinstance(value, dict):
            yield (*path, name), value
        else:
            yield from _instances(value, (*path, name))


def _at(document: Any, path: tuple[str, ...]) -> dict[str, Any]:
    """What stands at a path, made if need be; a thing of its own for a group that is not there."""
    for step in path:
        if isinstance(document, list):
            document = next((each for each in document if each.get("name") == step), {})
        else:
            document = document.setdefault(step, {})
    found: dict[str, Any] = document
    return found


def attach(spec: ClusterSpec, work: Work) -> Record:
    """Makes the cluster known here: its record, its Terraform folder, its notebook's token.

    `spec` is built from `shared_document`. Raises RecordError where the cluster is known already
    or somebody works on it, TerraformError, AwsError.
    """
    state = spec.state
    if state is None:
        raise BilboError("only a cluster with a shared state can be attached")
    with work.store.lock(spec.name, "attach"):
        unknown(spec.name, work)
        unlocked(state, spec.name, work)
        shared = admitted(aws.shared_state(work.target, state, spec.name), state.address())
        say_unlike(spec, told_digests(outputs_of(shared)), work)
        record = recorded(spec, work, shared)
        right_account(spec, record, work)
        spec = owned(settle(spec, work, record, my_ip=False), work, record, shared)
        record = record.changed(account=spec.account)
        terraform = work.terraform(spec.name)
        terraform.write(render(spec))
        terraform.init()
        record = with_token(record, record, record.inventory, work)
        record = with_nodes(record, spec, record.inventory)
        if not record.token:
            record = replace(record, notebook_url=None)
        return work.store.save(record.changed(status=states.READY, ready_time=now()))


def with_token(record: Record, before: Record | None, found: Inventory, work: Work) -> Record:
    """The record with JupyterLab's own token, where a JupyterLab may run that it does not know.

    So a lost record, or one made elsewhere, costs nobody the page that is open.
    """
    if before is None or before.token or found.notebook is None:
        return record
    known = {node.instance_id for node in before.inventory.nodes()}
    if known and found.notebook.instance_id not in known:
        return record  # a new machine
    token, served = _ask_token(record.name, found.notebook, work)
    if not token:
        return record
    from bilbo import services

    url = services.notebook_url(found.notebook, token, served)
    return record.changed(token=token, notebook_url=url)


def _ask_token(cluster: str, node: Node, work: Work) -> tuple[str, Served]:
    """The token in the file that JupyterLab reads it from, empty where it cannot be had; and how
    JupyterLab is reached."""
    from bilbo import remote, services

    said: list[bytes] = []

    def take(_node: Node, data: bytes, is_stderr: bool) -> None:
        if not is_stderr:
            said.append(data)

    command = (
        f"cd ~/.bilbo/{cluster} && cat {services.TOKEN_FILE} || exit 1; echo; "
        f"for each in {services.SERVERS}; do pid=${{each##*-}}; "
        'if [ -d "/proc/${pid%.json}" ]; then cat "$each"; fi; done 2>/dev/null; exit 0'
    )
    patient = replace(work, timeout=work.timeout or _PATIENCE_SECONDS)
    (result,) = asyncio.run(
        remote.run_command([node], command, reach(patient, cluster), on_output=take)
    )
    told = b"".join(said).decode(errors="replace") if result.exit_code == 0 else ""
    token, _, server = told.partition("\n")
    token = token.strip()
    return token if _TOKEN.fullmatch(token) else "", services.described(server)
