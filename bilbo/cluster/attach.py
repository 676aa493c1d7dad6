"""`attach`: makes a team-mate's cluster known here, from its shared state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from bilbo import aws
from bilbo import record as states
from bilbo.cluster.host_settings import taken
from bilbo.cluster.ownership import owned, right_account
from bilbo.cluster.planning import write_rendered
from bilbo.cluster.purchases import with_purchases
from bilbo.cluster.resting import at_rest, paused
from bilbo.cluster.root_devices import known_root_devices
from bilbo.cluster.settling import settle
from bilbo.cluster.shared_state import (
    admitted,
    outputs_of,
    recorded,
    say_unlike,
    told_digests,
    unlocked,
)
from bilbo.cluster.starting import with_nodes, with_token
from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.errors import BilboError, RecordError, UsageError
from bilbo.model import ONES_OWN, WORKER, ClusterSpec, SharedState
from bilbo.record import Record, now


def shared_document(
    name: str,
    state: SharedState,
    work: Work,
    *,
    mine: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """Returns a cluster's profile from its shared state, with this machine's own settings.

    `mine` is a profile of this machine, `key` the path of the private key. Raises RecordError
    if there is no such cluster or it is already known here, UsageError without a key, AwsError if
    the state cannot be read.
    """
    unknown(name, work)
    outputs = outputs_of(admitted(aws.shared_state(work.target, state, name), state.address()))
    if "profile" not in outputs:
        raise RecordError(
            f"no cluster {name!r} in {state.address()}",
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
    _take_options(document, mine or {})
    if mine and "webbrowser" in mine:
        document["webbrowser"] = mine["webbrowser"]
    if key is not None:
        for _, instance in _instances(document):
            instance.pop("ssh_private_key", None)
        _at(document, ("instance",))["ssh_private_key"] = key
    elif mine is None:
        raise UsageError(
            "a shared state does not hold the private key of the cluster's hosts",
            hint="Pass the key with -i, or give the cluster's profile instead of the address.",
        )
    return document


def _take_options(document: dict[str, Any], mine: Mapping[str, Any]) -> None:
    """Takes what a state may not set of an engine: its configuration, and its workers' options."""
    for engine in ENGINES.keys() & mine.keys() & document.keys():
        if "config" in mine[engine]:
            document[engine]["config"] = mine[engine]["config"]
        groups = mine[engine].get(WORKER, {})
        for group in groups if isinstance(groups, list) else [{"name": "", **groups}]:
            path = (engine, WORKER, *filter(None, [group["name"]]))
            if "args" in group:
                _at(document, path)["args"] = group["args"]


def unknown(name: str, work: Work) -> None:
    """Raises RecordError if this home knows the cluster."""
    if work.store.known(name):
        raise RecordError(
            f"cluster {name!r} is already known here",
            hint=f"`bilbo desc {name}` describes it.",
        )


def _instances(
    document: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yields every `instance` with its path; a group in a list is one step, its name."""
    if isinstance(document, list):
        document = {each["name"]: each for each in document if isinstance(each, dict)}
    if not isinstance(document, dict):
        return
    for name, value in document.items():
        if name == "instance" and isinstance(value, dict):
            yield (*path, name), value
        elif name != "config":  # the engine's, whose keys are its own
            yield from _instances(value, (*path, name))


def _at(document: Any, path: tuple[str, ...]) -> dict[str, Any]:
    """Returns the object at a path, created if missing; a detached one for an unknown group."""
    for step in path:
        if isinstance(document, list):
            document = next((each for each in document if each.get("name") == step), {})
        else:
            document = document.setdefault(step, {})
    found: dict[str, Any] = document
    return found


def attach(spec: ClusterSpec, work: Work) -> Record:
    """Makes the cluster known here: its record, its Terraform folder, its notebook's token.

    `spec` is built from `shared_document`. Raises RecordError if the cluster is already known or
    its state is locked, TerraformError, AwsError.
    """
    state = spec.state
    if state is None:
        raise BilboError("`attach` requires a cluster with shared state")
    with work.store.lock(spec.name, "attach"):
        unknown(spec.name, work)
        unlocked(state, spec.name, work)
        shared = admitted(aws.shared_state(work.target, state, spec.name), state.address())
        say_unlike(spec, told_digests(outputs_of(shared)), work)
        record = recorded(spec, work, shared)
        right_account(spec, record, work)
        spec = owned(settle(spec, work, record, my_ip=False), work, record, shared)
        # What the state does not tell is settled by the next command that changes something.
        unknown_ones = dict.fromkeys((each.machine.ami for each in spec.workers), "")
        devices = {**unknown_ones, **known_root_devices(spec, shared)}
        spec = with_purchases(replace(spec, root_devices=devices), shared)
        record = record.changed(account=spec.account)
        terraform = work.terraform(spec.name)
        write_rendered(paused(spec) if record.status == states.PAUSED else spec, terraform)
        terraform.init()
        if record.status == states.PAUSED:  # its notebook's host tells the token once it runs
            counts = {group.name: group.count for group in spec.workers}
            return work.store.save(at_rest(record, states.PAUSED, counts, {}))
        record = with_token(record, record, record.inventory, work)
        record = with_nodes(record, spec, record.inventory)
        if not record.token:
            record = replace(record, notebook_url=None)
        return work.store.save(record.changed(status=states.READY, ready_time=now()))
