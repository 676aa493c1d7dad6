"""Whose a cluster and its resources are: the account they are in, and the owner they carry.

Two people may give one name to two clusters, and anybody may put a tag on anything. A cluster's
owner is a short hash, chosen once and kept in its state; its resources carry it as a tag.
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
# What an orphan that is to be destroyed is called: it may be another's, named to be taken.
ORPHAN = "orphan_"


@dataclass(frozen=True)
class Own:
    """What makes a resource one of a cluster's own.

    `known` are the ids in the cluster's state, names of groups among them; `also` those that a
    person has named to be taken. `owner` None is a cluster from before there were any, whose
    resources carry none.
    """

    owner: str | None
    known: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()

    def has(self, found: Resource) -> bool:
        """Whether it is the cluster's: by state, by the group that launched it, or by its tag."""
        if found.id in self.known or found.launched_by in self.known or found.id in self.also:
            return True
        return found.owner == (self.owner or "")


def new_owner() -> str:
    """An owner that no other cluster has."""
    return secrets.token_hex(8)


def planned_owner(terraform: Terraform) -> str | None:
    """The owner that a plan before the first `create` has chosen; None where there was none."""
    found = terraform.told().get("owner")
    return found if isinstance(found, str) and _OWNER.fullmatch(found) else None


def kept_in(terraform: Terraform) -> SharedState | None:
    """Where the folder's rendered files share the state; None for on this machine."""
    there = terraform.backend()
    if not there:
        return None
    return SharedState(there["bucket"], there["region"], there["key"].rpartition("/")[0])


def stored(
    target: Target, terraform: Terraform, name: str, state: SharedState | None
) -> dict[str, Any]:
    """A cluster's state as it is kept in the bucket or, where that has none, on this machine.

    `{}` where there is none. It costs no process of Terraform's. Raises AwsError.
    """
    shared = aws.shared_state(target, state, name) if state else {}
    return shared if shared.get("resources") else _local(terraform)


def _local(terraform: Terraform) -> dict[str, Any]:
    path = terraform.folder / "terraform.tfstate"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # Terraform says what is wrong with it
        return {}
    return found if isinstance(found, dict) else {}


def ids(state: Mapping[str, Any]) -> frozenset[str]:
    """The ids of what a state manages; a group's is its name."""
    return frozenset(
        found for _, each in _managed(state) if isinstance(found := each.get("id"), str) and found
    )


def account_in(state: Mapping[str, Any]) -> str | None:
    """The account that a state's resources are in; None where none tells, or several do."""
    arns = [str(each.get("arn")) for _, each in _managed(state)]
    found = {match[1] for arn in arns if (match := _ARN.match(arn))}
    return found.pop() if len(found) == 1 else None


def owner_in(state: Mapping[str, Any]) -> str | None:
    """The owner that a state tells, or where it was cut off before, its resources' tags.

    None for a cluster from before there were owners.
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
    """`(name, attributes)` of every resource that a state manages, whoever wrote it."""
    for resource in _list(state.get("resources")):
        if isinstance(resource, Mapping) and resource.get("mode") == "managed":
            for instance in _list(resource.get("instances")):
                attributes = instance.get("attributes") if isinstance(instance, Mapping) else None
                if isinstance(attributes, Mapping):
                    yield str(resource.get("name")), attributes


def _list(value: Any) -> Collection[Any]:
    return value if isinstance(value, list) else ()


def same_account(record: Record, work: Work) -> str | None:
    """The account that AWS says the credentials are of, None where it does not tell.

    Raises RecordError where the cluster lives in another: AWS would show nothing of it, and
    whoever asked would believe that nothing is left.
    """
    _lives_in(record.account or _account_of_before(record, work), record.name, work)
    return work.account


def _lives_in(there: str | None, name: str, work: Work) -> None:
    here = work.account
    if there and here and there != here:
        raise RecordError(
            f"cluster {name!r} lives in the AWS account {there}, and these credentials are of "
            f"{here}",
            hint="Use that account's credentials (AWS_PROFILE), or choose another name with -n.",
        )


def _account_of_before(record: Record, work: Work) -> str | None:
    """What the state of a record tells that was written before records told the account."""
    terraform = work.terraform(record.name)
    return account_in(stored(work.target, terraform, record.name, kept_in(terraform)))


def right_account(spec: ClusterSpec, before: Record | None, work: Work) -> str | None:
    """The account that the cluster lives, or will live in; None where nobody tells.

    Raises RecordError where it lives in another than the credentials are of, AwsError where the
    profile means another.
    """
    here = same_account(before, work) if before else work.account
    if spec.account and here and spec.account != here:
        raise AwsError(
            f"the profile is for the AWS account {spec.account}, and these credentials are of "
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
    """The specification with the account and the owner filled in.

    The owner of a cluster that there is, in its `state` or as the record `before` has it, never
    changes: one from before there were owners goes on without, for a tag more in a launch template
    would replace every worker. A new one gets that of the reviewed plan (`planned`), or of one that
    was planned here. Raises what `right_account` does, for the account that the state tells too.
    """
    _lives_in(account_in(state), spec.name, work)
    owner = owner_in(state) or (before.owner if before else None)
    if owner is None and before is None and not state.get("resources"):
        owner = planned or planned_owner(work.terraform(spec.name)) or new_owner()
    return replace(spec, account=right_account(spec, before, work), owner=owner)


def own_of(record: Record, work: Work, also: Collection[str] = ()) -> Own:
    """What is the cluster's own at present: by its state, by its owner, and by what a person names
    in `also`. Raises AwsError."""
    terraform = work.terraform(record.name)
    state = stored(work.target, terraform, record.name, kept_in(terraform))
    return Own(owner_in(state) or record.owner, ids(state), frozenset(also))
