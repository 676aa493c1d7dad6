"""Renders a cluster's specification as the files of a Terraform root module.

Only `main.tf` is rendered: it calls the static modules copied beside it with literal values, so
that a review shows a changed worker count as one changed line. The same specification gives the
same bytes on any machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from bilbo import __version__
from bilbo.addresses import label
from bilbo.errors import RenderError
from bilbo.hostside import digests
from bilbo.lifetime import DESTROY
from bilbo.model import (
    CLUSTER_TAG,
    GROUP_TAG,
    ONES_OWN,
    OWNER_TAG,
    ROLE_TAG,
    WORKER,
    ClusterSpec,
    NodeGroup,
    SharedState,
    worker_part,
)
from bilbo.resources import folder

SECURITY_GROUP = "module.security_group.id"
SUBNET = "module.network.subnet_id"

# HCL has fewer short escapes than JSON.
_ESCAPES_OF_JSON_ALONE = {"b": "\\u0008", "f": "\\u000c", "/": "/"}
# `terraform fmt` aligns by grapheme clusters of its own version of Unicode. A key keeps only the
# characters that are certainly one cluster each: ASCII, Latin, Greek, Cyrillic, kana, Chinese and
# Korean. The others are escaped.
_UNSURE = re.compile(
    "[^ -~\u00a1-\u00ac\u00ae-\u024f\u0391-\u0482\u048a-\u052f"
    "\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3]"
)


@dataclass(frozen=True)
class Expression:
    """HCL that is not a literal, such as `module.a.id`."""

    text: str


def hcl_string(text: str) -> str:
    """`text` as an HCL string literal that can never become code.

    Source of the rules: HCL's native syntax specification, "Template Expressions"
    (`$${` and `%%{` escape `${` and `%{`) and "Literal Values".

    Raises RenderError for characters that HCL does not allow: NUL and lone surrogates.
    """
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise RenderError(f"{text!r} contains a character that Terraform does not allow")
    quoted = re.sub(
        r"\\(.)",
        lambda match: _ESCAPES_OF_JSON_ALONE.get(match[1], match[0]),
        json.dumps(text, ensure_ascii=False),
    )
    return quoted.replace("${", "$${").replace("%{", "%%{")


def hcl_key(text: str) -> str:
    """As `hcl_string`, but every character takes one column on every machine."""
    return _UNSURE.sub(lambda match: _escape(match[0]), hcl_string(text))


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def hcl(value: Any) -> str:
    """Any JSON value or `Expression` as HCL on one line."""
    if isinstance(value, Expression):
        return value.text
    if isinstance(value, str):
        return hcl_string(value)
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{hcl_string(key)} = {hcl(value[key])}" for key in value)
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, Sequence):
        return f"[{', '.join(hcl(item) for item in value)}]"
    raise RenderError(f"a value of type {type(value).__name__} cannot be written in HCL")


def attributes(arguments: Mapping[str, Any], indent: int = 2) -> str:
    """A block's arguments, one per line, aligned as `terraform fmt` does.

    Maps come last, with one entry per line, so that a review shows the entry that changed.
    """
    flat = {key: value for key, value in arguments.items() if not isinstance(value, Mapping)}
    lines = _aligned({key: hcl(value) for key, value in flat.items()}, indent)
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            entries = {hcl_key(name): hcl(item) for name, item in sorted(value.items())}
            lines += ["", " " * indent + f"{key} = {{"]
            lines += [*_aligned(entries, indent + 2), " " * indent + "}"]
    return "\n".join(lines)


def _aligned(pairs: Mapping[str, str], indent: int) -> list[str]:
    width = max((len(key) for key in pairs), default=0)
    return [f"{' ' * indent}{key:<{width}} = {value}" for key, value in pairs.items()]


def render(spec: ClusterSpec) -> dict[str, str]:
    """The files of the cluster's Terraform folder: `{relative path: text}`.

    Root devices that are not settled become a variable, without which Terraform plans nothing.

    Raises RenderError if the generated security group is needed and `spec.cidrs` is empty, or if a
    value cannot be written in HCL.
    """
    return {"main.tf": _main(spec), **_modules_used(spec)}


def _main(spec: ClusterSpec) -> str:
    groups = list(spec.groups())
    unknown = any(group.machine.ami not in spec.root_devices for group in spec.workers)
    text: str = _template().render(
        header=_header(spec),
        provider=_provider(spec),
        terraform_version=_terraform_version(spec),
        backend=_backend(spec.state, spec.name) if spec.state else None,
        unknown_root_devices=unknown,
        instance_types=sorted({t for g in groups if g.machine.subnet is None for t in g.ec2types}),
        security_group=_security_group(spec) if spec.needs_security_group else None,
        lifetime=_lifetime(spec),
        modules=[_module(spec, group) for group in groups],
        outputs=_outputs(spec),
    )
    return text


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder("templates") / "terraform"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"hcl": hcl, "attributes": attributes}
    return environment.get_template("main.tf.j2")


def _modules_used(spec: ClusterSpec) -> dict[str, str]:
    names = {_kind(group) for group in spec.groups()}
    if any(group.machine.subnet is None for group in spec.groups()):
        names.add("network")
    if spec.needs_security_group:
        names.add("security_group")
    if spec.lifetime:
        names.add("lifetime")
    root = folder("templates") / "terraform"
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for name in sorted(names)
        for path in sorted((root / "modules" / name).glob("*.tf"))
    }


def _header(spec: ClusterSpec) -> str:
    source = f" from the profile {json.dumps(spec.profile_name)}" if spec.profile_name else ""
    return f'Cluster "{spec.name}", written by bilbo {__version__}{source}.'


# How often Terraform's provider sends a request that AWS throttles or fails. Its pauses double from
# 2 s, at random between nothing and all: 62 s at most. Its default of 25 takes an hour or more, in
# silence, also where AWS has no capacity: terraform-provider-aws retries RunInstances then, in
# internal/service/ec2/service_package.go. Source of the pauses: aws-sdk-go-v2, aws/retry.
_ATTEMPTS = 6


def _provider(spec: ClusterSpec) -> dict[str, Any]:
    """The provider's arguments. It refuses credentials of another account."""
    accounts = {"allowed_account_ids": [spec.account]} if spec.account else {}
    return {"region": spec.region, "max_retries": _ATTEMPTS, **accounts}


def _cluster_tags(spec: ClusterSpec) -> dict[str, str]:
    """The tags that mark every resource of the cluster."""
    return {CLUSTER_TAG: spec.name, **({OWNER_TAG: spec.owner} if spec.owner else {})}


def _kind(group: NodeGroup) -> str:
    return "worker_pool" if group.role == "worker" else "node"


def _module(spec: ClusterSpec, group: NodeGroup) -> dict[str, Any]:
    machine = group.machine
    subnet = machine.subnet if machine.subnet is not None else Expression(SUBNET)
    security_group = machine.security_group or Expression(SECURITY_GROUP)
    arguments: dict[str, Any] = {
        "name": group.instance_name,
        "ami": machine.ami,
        "instance_type": machine.ec2type,
        "key_name": machine.keyname,
        "subnet_id": subnet,
        "security_group_ids": [security_group],
    }
    if machine.vol_size is not None:
        arguments["volume_size"] = machine.vol_size
    if machine.iam_instance_profile is not None:
        arguments["iam_instance_profile"] = machine.iam_instance_profile
    if _kind(group) == "worker_pool":
        device = spec.root_devices.get(machine.ami)
        unknown = Expression(f"var.root_devices[{hcl(machine.ami)}]")
        arguments["root_device"] = unknown if device is None else device
        arguments["instance_count"] = group.count
        arguments |= _purchase(group)
    bilbos_own = {**_cluster_tags(spec), ROLE_TAG: group.role, GROUP_TAG: group.name}
    if spec.lifetime:
        script = f"module.lifetime.user_data[{hcl(machine.ssh_user)}]"
        arguments["user_data"] = Expression(script)
        if group.role == WORKER or spec.lifetime.then == DESTROY:
            arguments["shutdown_behavior"] = "terminate"
    arguments["tags"] = {**machine.tags, **bilbos_own}
    return {"label": label(group.role, group.name), "kind": _kind(group), "arguments": arguments}


def _purchase(group: NodeGroup) -> dict[str, Any]:
    """How a worker group buys its machines; nothing for one that has neither spot nor types, whose
    files stay as they were."""
    found: dict[str, Any] = {}
    if group.spot:
        found |= {"spot": True, "on_demand": group.on_demand or 0}
    if group.spot or group.types:
        found["instance_types"] = list(group.ec2types)
    return found


def _lifetime(spec: ClusterSpec) -> dict[str, Any] | None:
    if spec.lifetime is None:
        return None
    users = sorted({group.machine.ssh_user for group in spec.groups()})
    return {"unreached": spec.lifetime.unreached, "users": users}


def _security_group(spec: ClusterSpec) -> dict[str, Any]:
    if not spec.cidrs:
        raise RenderError(
            "the generated security group has no network to allow",
            hint="Set `access.cidrs` in the profile, or a `security_group`.",
        )
    machines = [group.machine for group in spec.groups()]
    subnet = next((m.subnet for m in machines if m.subnet), None)
    tags = {key: value for machine in reversed(machines) for key, value in machine.tags.items()}
    arguments = {
        "cluster": spec.name,
        "name": spec.security_group_name,
        "subnet_id": subnet if subnet else Expression(SUBNET),
        "ipv4_cidrs": sorted(cidr for cidr in spec.cidrs if ":" not in cidr),
        "ipv6_cidrs": sorted(cidr for cidr in spec.cidrs if ":" in cidr),
        "peer_security_group_ids": sorted({m.security_group for m in machines if m.security_group}),
        "ports": {str(port): name for port, name in sorted(spec.ports.items())},
        "tags": {**tags, **_cluster_tags(spec)},
    }
    return {key: value for key, value in arguments.items() if value != []}


def _outputs(spec: ClusterSpec) -> list[dict[str, Any]]:
    outputs = [
        _output(
            group.role,
            f"The {group.role}, as the SSH stage needs it.",
            Expression(f"module.{label(group.role, group.name)}.node"),
        )
        for group in (spec.notebook, spec.head)
        if group
    ]
    if spec.workers:
        pools = {
            group.name: Expression(f"module.{label(group.role, group.name)}.nodes")
            for group in spec.workers
        }
        outputs.append(
            _output(
                "workers", "The running workers by group and instance ID.", Expression(hcl(pools))
            )
        )
    if spec.owner:
        what = "What the cluster's resources carry as bilbo:owner, whoever else uses its name."
        outputs.append(_output("owner", what, spec.owner))
    if spec.state:
        what = "The profile without what is one machine's own: `bilbo attach` builds on it."
        outputs.append(_output("profile", what, _shared_profile(spec)))
        what = "The sha256 of what a team must have alike and the state must not hold."
        outputs.append(_output("host_side", what, digests(spec)))
    return outputs


def _output(name: str, description: str, value: Any) -> dict[str, Any]:
    return {"name": name, "arguments": {"description": description, "value": value}}


# -- shared state --------------------------------------------------------------------------


def _terraform_version(spec: ClusterSpec) -> str:
    # Older versions cannot lock state in S3 without a DynamoDB table.
    return ">= 1.10" if spec.state else ">= 1.6"


def _backend(state: SharedState, cluster: str) -> dict[str, Any]:
    return dict(sorted({**state.backend(cluster), "encrypt": True, "use_lockfile": True}.items()))


def _shared_profile(spec: ClusterSpec) -> dict[str, Any]:
    """The part of the profile that team-mates need. Counts are references, not copies, so that a
    review shows a changed count as one changed line."""
    document = json.loads(json.dumps(dict(spec.profile)))
    for key in ("$schema", "webbrowser", "state"):
        document.pop(key, None)
    document["region"] = spec.region
    if spec.cidrs:
        document.setdefault("access", {})["cidrs"] = list(spec.cidrs)
    for group in spec.workers:
        counted = worker_part(document, spec.engine or "", group.name)
        counted["count"] = Expression(f"module.{label(group.role, group.name)}.instance_count")
    ports = {group.machine.ssh_port for group in spec.groups()}
    own = (*ONES_OWN, "ssh_port") if len(ports) == 1 else ONES_OWN
    shared: dict[str, Any] = _without(document, own)
    if len(ports) == 1:
        shared.setdefault("instance", {})["ssh_port"] = ports.pop()
    return shared


def _without(value: Any, keys: Sequence[str]) -> Any:
    """`value` with every object's keys sorted, and without `keys` in every `instance`."""
    if isinstance(value, list):
        return [_without(item, keys) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: _without(
            {k: v for k, v in value[key].items() if k not in keys}
            if key == "instance" and isinstance(value[key], Mapping)
            else value[key],
            keys,
        )
        for key in sorted(value)
    }
