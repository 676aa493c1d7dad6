"""Whose a cluster and its resources are: the account they are in, and the owner they carry.

Two people may use the same name for two clusters, and anyone can tag anything. A cluster's owner is
a random hash, chosen once and kept in its state; its resources carry it as a tag.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bilbo import aws
from bilbo.aws import Resource
from bilbo.cluster.work import Work
from bilbo.errors import AwsError, RecordError
from bilbo.model import OWNER_TAG, ClusterSpec, SharedState, Target
from bilbo.record import Record
from bilbo.terraform import Terraform

_ARN = re.compile(r"arn:aws[\w-]*:[\w-]*:[\w-]*:(\d{12}):")
_OWNER = re.compile("[0-9a-f]{16}")
# Label prefix of orphans to destroy. With `--also` they may belong to another owner.
ORPHAN = "orphan_"


@dataclass(frozen=True)
class Own:
    """What makes a resource a cluster's own.

    `known` are the ids in the cluster's state, including group names; `also` are ids that a person
    has added. `owner` is None for a cluster from before owners, whose resources carry none.
    """

    owner: str | None
    known: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()

    def has(self, found: Resource) -> bool:
        """Whether the cluster owns it: by state, by the group that launched it, or by tag."""
        if found.id in self.known or found.launched_by in self.known or found.id in self.also:
            return True
        return found.owner == (self.owner or "")


def new_owner() -> str:
    """Returns a unique owner."""
    return secrets.token_hex(8)


def planned_owner(terraform: Terraform) -> str | None:
    """Returns the owner that a plan before the first `create` chose; None if there was none."""
    found = terraform.told().get("owner")
    return found if isinstance(found, str) and _OWNER.fullmatch(found) else None


def kept_in(terraform: Terraform) -> SharedState | None:
    """Returns where the folder's rendered files keep the shared state; None for a local state."""
    there = terraform.backend()
    if not there:
        return None
    return SharedState(there["bucket"], there["region"], there["key"].rpartition("/")[0])


def stored(
    target: Target, terraform: Terraform, name: str, state: SharedState | None
) -> dict[str, Any]:
    """Returns a cluster's state from the bucket or, if it has none, from this machine.

    `{}` if there is none. Starts no Terraform process. Raises AwsError.
    """
    shared = aws.shared_state(target, state, name) if state else {}
    return shared if shared.get("resources") else _local(terraform)


def _local(terraform: Terraform) -> dict[str, Any]:
    path = terraform.folder / "terraform.tfstate"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # Terraform will report what is wrong
        return {}
    return found if isinstance(found, dict) else {}


def ids(state: Mapping[str, Any]) -> frozenset[str]:
    """Returns the ids of a state's managed resources; a group's id is its name."""
    return frozenset(
        found for _, each in _managed(state) if isinstance(found := each.get("id"), str) and found
    )


def account_in(state: Mapping[str, Any]) -> str | None:
    """Returns the account of a state's resources; None if they name none, or several."""
    arns = [str(each.get("arn")) for _, each in _managed(state)]
    found = {match[1] for arn in arns if (match := _ARN.match(arn))}
    return found.pop() if len(found) == 1 else None


def owner_in(state: Mapping[str, Any]) -> str | None:
    """Returns the owner in a state's outputs or, if an apply was cut off, in its resources' tags.

    None for a cluster from before owners.
    """
    outputs = state.get("outputs")
    output = outputs.get("owner") if isinstance(outputs, Mapping) else None
    told = [output.get("value")] if isinstance(output, Mapping) else []
    for name, each in _managed(state):
        tags = each.get("tags")
        if isinstance(tags, Mapping) and not name.startswith(ORPHAN):
            told.append(tags.get(OWNER_TAG))
    return next((each for each in told if isinstance(each, str) and _OWNER.fullmatch(each)), None)


def _managed(state: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields `(name, attributes)` of every managed resource in a state, which may be malformed."""
    for resource in _list(state.get("resources")):
        if isinstance(resource, Mapping) and resource.get("mode") == "managed":
            for instance in _list(resource.get("instances")):
                attributes = instance.get("attributes") if isinstance(instance, Mapping) else None
                if isinstance(attributes, Mapping):
                    yield str(resource.get("name")), attributes


def _list(value: Any) -> Collection[Any]:
    return value if isinstance(value, list) else ()


def same_account(record: Record, work: Work) -> str | None:
    """Returns the account of the credentials, None if AWS does not say.

    Raises RecordError if the cluster is in another account: AWS would show nothing of it, which
    would look as if nothing were left.
    """
    _lives_in(record.account or _account_of_before(record, work), record.name, work)
    return work.account


def _lives_in(there: str | None, name: str, work: Work) -> None:
    here = work.account
    if there and here and there != here:
        raise RecordError(
            f"cluster {name!r} is in AWS account {there}, but these credentials belong to {here}",
            hint="Use that account's credentials (AWS_PROFILE), or choose another name with -n.",
        )


def _account_of_before(record: Record, work: Work) -> str | None:
    """Returns the account from the state, for a record from before records held the account."""
    terraform = work.terraform(record.name)
    return account_in(stored(work.target, terraform, record.name, kept_in(terraform)))


def right_account(spec: ClusterSpec, before: Record | None, work: Work) -> str | None:
    """Returns the account that the cluster is or will be in; None if it is unknown.

    Raises RecordError if the credentials belong to another account, AwsError if the profile names
    another.
    """
    here = same_account(before, work) if before else work.account
    if spec.account and here and spec.account != here:
        raise AwsError(
            f"the profile is for AWS account {spec.account}, but these credentials belong to "
            f"{here}",
            hint="Use that account's credentials (AWS_PROFILE), or change the profile's `account`.",
        )
    return here or spec.account or (before.account if before else None)


def owned(
    spec: ClusterSpec,
    work: Work,
    before: Record | None,
    state: Mapping[str, Any],
    *,
    planned: str | None = None,
) -> ClusterSpec:
    """Returns the specification with the account and the owner filled in.

    The owner of an existing cluster, from its `state` or the record `before`, never changes. A
    cluster from before owners stays without one, because another tag in a launch template would
    replace every worker. A new cluster gets the owner of the reviewed plan (`planned`), or of an
    earlier plan on this machine. Raises as `right_account` does, also for the account in the state.
    """
    _lives_in(account_in(state), spec.name, work)
    owner = owner_in(state) or (before.owner if before else None)
    if owner is None and before is None and not state.get("resources"):
        owner = planned or planned_owner(work.terraform(spec.name)) or new_owner()
    return replace(spec, account=right_account(spec, before, work), owner=owner)


def own_of(record: Record, work: Work, also: Collection[str] = ()) -> Own:
    """Returns what identifies the cluster's own resources now: its state, its owner, and the ids
    in `also`. Raises AwsError."""
    terraform = work.terraform(record.name)
    state = stored(work.target, terraform, record.name, kept_in(terraform))
    return Own(owner_in(state) or record.owner, ids(state), frozenset(also))
