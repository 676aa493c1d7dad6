"""`sweep`: finds what carries bilbo's tags in AWS but belongs to no cluster that is known here.

A deleted home, a laptop that is gone, a Terraform that was killed by itself: each leaves resources
that are billed and that no record names. They are removed as a cluster is: a record for them comes
first, so that a sweep that is killed can be run again.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from typing import Any

from bilbo import aws, images
from bilbo import record as states
from bilbo.cluster.planning import write_rendered
from bilbo.cluster.work import Work
from bilbo.errors import BilboError, RecordError
from bilbo.held import Built, Leftover, Swept
from bilbo.model import ClusterSpec
from bilbo.profile.naming import check_cluster_name
from bilbo.record import Record, Store, now

# Regions that are asked at once.
_AT_ONCE = 8


def regions(
    store: Store, default: str, profiles: Iterable[Mapping[str, Any]], asked: Collection[str]
) -> list[str]:
    """Returns where to look, sorted: in the regions `asked` for, or else in those that records and
    `profiles` name, and the `default` one."""
    if asked:
        return sorted({*asked})
    named = [document.get("region") for document in profiles]
    known = [record.region for record in _records(store)]
    return sorted({each for each in (*named, *known, default) if isinstance(each, str) and each})


def leftovers(work: Work, looked: list[str]) -> Swept:
    """Asks each region for everything with a cluster's tag, and with an image's. Changes nothing.

    Five paged calls a region, and four. A region that refuses or does not answer is in `unseen`.
    """
    kept = {(each.region, each.name, each.owner or "") for each in _records(work.store)}
    owners = work.store.owners()

    def look(region: str) -> tuple[list[Leftover], list[Built], str]:
        there = replace(work.target, region=region)
        try:
            found, built = aws.tagged_by_any(there), _foreign(aws.built(there), work)
        except BilboError as error:
            return [], [], "; ".join([error.what, *error.details])
        by_cluster = sorted(found, key=lambda each: (each.cluster, each.owner))
        grouped = groupby(by_cluster, key=lambda each: (each.cluster, each.owner))
        unknown = [
            Leftover(region, cluster, owner, owner in owners, tuple(resources))
            for (cluster, owner), resources in grouped
            if (region, cluster, owner) not in kept
        ]
        return unknown, built, ""

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = dict(zip(looked, pool.map(look, looked), strict=True))
    return Swept(
        tuple(looked),
        tuple(each for found, _, _ in answers.values() for each in found),
        {region: why for region, (_, _, why) in answers.items() if why},
        tuple(each for _, built, _ in answers.values() for each in built),
    )


def _foreign(found: Iterable[Built], work: Work) -> list[Built]:
    """Those that no image of this home, and no build that began here, can have made."""
    mine = {each.ami for each in images.all_images(work.store.home)}
    building = {(each.name, each.region) for each in images.unconcluded(work.store.home)}
    return [
        each
        for each in found
        if each.resource.id not in mine and (each.image, each.region) not in building
    ]


def _records(store: Store) -> list[Record]:
    """The records of clusters that are in use, without those that a killed sweep left behind."""
    found = []
    for name in store.names():
        try:
            known = store.known(name)
        except RecordError:
            continue  # what it is about is listed, and `take_up` refuses it
        if known and not _swept(known):
            found.append(known)
    return found


def _swept(record: Record) -> bool:
    return record.status == states.DESTROYING and not record.profile


def take_up(leftover: Leftover, work: Work) -> Record:
    """Writes a record and a Terraform folder for a leftover, so that `destroy` can remove it.

    Raises RecordError if its cluster's name is taken here, UsageError if no cluster of bilbo's can
    have such a name.
    """
    check_cluster_name(leftover.cluster)
    with work.store.lock(leftover.cluster, "sweep"):
        known = work.store.known(leftover.cluster)
        if known and not _swept(known):
            # Whoever can make a group in the account chooses its name.
            ids = " ".join(f"--also {shlex.quote(each.id)}" for each in leftover.resources)
            raise RecordError(
                f"another cluster {leftover.cluster!r} is known here",
                hint=f"To destroy this one's resources with it: bilbo destroy {leftover.cluster} "
                f"{ids}",
            )
        owner = leftover.owner or None
        spec = ClusterSpec(leftover.cluster, leftover.region, account=work.account, owner=owner)
        terraform = work.terraform(leftover.cluster)
        # The files come first: with a record and without them, `destroy` could import nothing.
        write_rendered(spec, terraform)
        return work.store.save(
            Record(
                name=leftover.cluster,
                status=states.DESTROYING,
                region=leftover.region,
                type=None,
                created_time=now(),
                profile={},
                terraform_dir=str(terraform.folder),
                endpoint_url=work.target.endpoint_url,
                account=work.account,
                owner=owner,
            )
        )
