"""The account and the owner of a cluster, compared with the credentials at hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from bilbo.cluster.ownership import (
    Own,
    account_in,
    ids,
    kept_in,
    new_owner,
    owner_in,
    planned_owner,
    stored,
)
from bilbo.cluster.work import Work
from bilbo.errors import AwsError, RecordError
from bilbo.model import ClusterSpec
from bilbo.record import Record


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
