"""Records, plans and results as text. Pure: returns strings, no I/O.

Wording and layout follow bilbo's specification; tests check them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from bilbo import versions
from bilbo.engines import ENGINES
from bilbo.errors import QUOTE
from bilbo.model import (
    WORKER,
    ClusterSpec,
    HostResult,
    Inventory,
    Node,
    NodeGroup,
)
from bilbo.present.ending import end_cell, end_of
from bilbo.present.times import local_time
from bilbo.record import ENDED, RESTING, Record
from bilbo.status import ANOTHERS, InstanceDifference
from bilbo.versions import VersionDifference

if TYPE_CHECKING:
    from bilbo.terraform import Outcome, PlannedChange

NOTHING_TO_DO = "Nothing to do."
_SYMBOLS = {
    "create": "  + ",
    "update": "  ~ ",
    "replace": "-/+ ",
    "delete": "  - ",
    "import": "  = ",
    "move": "  > ",
}
_TITLES = {"notebook": "Notebook", "scheduler": "Scheduler", "head": "Head", "worker": "Worker"}


def summary(record: Record) -> str:
    """Returns a cluster as `create` and `desc` print it; node numbers start at the notebook."""
    lines = [f"Name: {record.name}"]
    if record.status != "ready":
        lines.append(f"Status: {record.status}{_rest(record)}")
    if record.ready_time:
        lines.append(f"Ready Time: {local_time(record.ready_time)}")
    if end := end_of(record):
        lines.append(f"Ends: {end}")
    numbered = dict(numbers(record.inventory))
    if record.inventory.notebook:
        lines += ["", "Notebook:", _node_line(numbered, record.inventory.notebook)]
    if record.type:
        lines.append(f"Type: {record.type}")
    if record.inventory.head:
        lines += [
            "",
            f"{_TITLES[record.inventory.head.role]}:",
            _node_line(numbered, record.inventory.head),
        ]
    for group in dict.fromkeys(node.group for node in record.inventory.workers):
        workers = [node for node in record.inventory.workers if node.group == group]
        lines += ["", "Workers:" if group == WORKER else f"Workers ({group}):"]
        lines += [_node_line(numbered, worker) for worker in workers]
    if record.paused_workers and record.status in RESTING:
        groups = [
            f"{count}" if group == WORKER else f"{count} in {group}"
            for group, count in record.paused_workers.items()
        ]
        lines += ["", f"Workers: none; after `bilbo resume {record.name}`: {', '.join(groups)}"]
    engine = ENGINES.get(record.type or "")
    if engine and engine.desc_connects and (connect := engine.how_to_connect(record.addresses)):
        lines += ["", f"Connect: {connect}"]
    if record.stays_down:
        count, why = len(record.stays_down), next(iter(record.stays_down.values()))
        machines = "1 machine" if count == 1 else f"{count} machines"
        lines += [
            "",
            f"After a reboot, services on {machines} do not come back by themselves: {why}",
        ]
        lines += ["Then run `bilbo create` again, or allow its user `sudo` without a password."]
    return "\n".join(lines)


def numbers(inventory: Inventory) -> Iterator[tuple[str, int]]:
    """Yields `(instance id, number)` as `desc` prints them, from 1."""
    for number, node in enumerate(inventory.nodes(), start=1):
        yield node.instance_id, number


def _node_line(numbered: Mapping[str, int], node: Node) -> str:
    number = numbered[node.instance_id]
    where = f"public_ip: {node.public_ip}" if node.public_ip else "no public address"
    return f"[{number}] instance_id: {node.instance_id}, {where}"


def _rest(record: Record) -> str:
    """Returns since when a cluster is at rest, and why; empty if it is not."""
    if record.status not in RESTING:
        return ""
    when = [
        f"{word} {local_time(record.rest[word])}"
        for word in ("since", "before")
        if record.rest.get(word)
    ]
    return "".join(f", {word}" for word in [*when, *filter(None, [record.rest.get("why")])])


def resting(record: Record) -> list[str]:
    """Returns a line on a cluster at rest; none if it is not."""
    if record.status not in RESTING:
        return []
    back = "bring it back with its profile: bilbo create" if record.status == ENDED else (
        f"to use it: bilbo resume {record.name}"
    )  # fmt: skip
    return [f"It is {record.status}{_rest(record)}; {back}."]


def what_stays(record: Record, sizes: Sequence[int]) -> str:
    """Returns what of a paused cluster stays billed, and what to do next; `sizes` are those of its
    volumes in GiB, empty if they are not known."""
    disks = ", ".join(f"{size} GiB" for size in sizes)
    volumes = f" ({disks})" if disks else ""
    lines = [
        f"Stays billed:         the volumes of its machines{volumes}",
        f"Use it again:         bilbo resume {record.name}",
        f"Remove it all:        bilbo destroy {record.name}",
    ]
    return "\n".join(lines)


def next_steps(record: Record) -> str:
    """Returns what a person can do with the cluster now."""
    lines = []
    if record.notebook_url:
        lines.append(f"Open JupyterLab:      bilbo notebook {record.name}")
    if record.dashboard_url:
        lines.append(f"Open the dashboard:   bilbo dashboard {record.name}")
    engine = ENGINES.get(record.type or "")
    if engine and (connect := engine.how_to_connect(record.addresses)):
        lines.append(f"From your own Python: {connect}")
    if end := end_of(record):
        lines.append(f"Ends by itself:       {end}")
    lines.append(f"Remove it all:        bilbo destroy {record.name}")
    return "\n".join(lines)


def age(iso: str) -> str:
    """Returns how long ago a time was, in its largest unit: `42s`, `5m`, `3h`, `12d`."""
    return age_of((datetime.now(timezone.utc) - datetime.fromisoformat(iso)).total_seconds())


def age_of(found: float) -> str:
    """Returns a number of seconds in its largest unit, as `age` does."""
    seconds = int(found)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


_SAID = {
    "gone": "is gone",
    "moved": "has another address, {public_ip}",
    "unknown": "runs and is billed, but no service was started on it",
    ANOTHERS: "carries this cluster's tag but has another owner: left alone",
}


def reality_lines(found: Sequence[InstanceDifference]) -> list[str]:
    """Returns a line for each difference."""
    return [
        f"{each.role} {each.instance_id} "
        + _SAID.get(each.state, f"is {each.state}").format(public_ip=each.public_ip)
        for each in found
    ]


# -- plans ---------------------------------------------------------------------------------


def plan_text(
    spec: ClusterSpec,
    sizes: Mapping[str, str],
    outcome: Outcome | None,
    *,
    beside: Sequence[str] = (),
    has_changes: bool = False,
) -> str:
    """Returns what the profile asks for, followed by what Terraform would do.

    `beside` is shown between the two: what Terraform does not know. If `has_changes`, there is
    something to do even if Terraform has no changes.
    """
    has_changes = has_changes or bool(outcome and outcome.changes)
    does = changes(outcome) if outcome and has_changes else NOTHING_TO_DO
    return "\n\n".join(filter(None, (plan_blocks(spec, sizes), *beside, does)))


def plan_blocks(spec: ClusterSpec, estimates: Mapping[str, str]) -> str:
    """Returns what the profile asks for, one block per group. `estimates` maps groups to
    sizes."""
    return "\n\n".join("\n".join(_block(spec, group, estimates)) for group in spec.groups())


def _block(spec: ClusterSpec, group: NodeGroup, estimates: Mapping[str, str]) -> Iterator[str]:
    machine = group.machine
    admits = ", ".join(spec.cidrs)
    named = "" if group.name == group.role else f" ({group.name})"
    yield f"  {_TITLES.get(group.role, group.role.capitalize())}{named}:"
    yield f"    AMI: {machine.ami}" + (f" (image {machine.image})" if machine.image else "")
    yield f"    Instance Type: {machine.ec2type}"
    yield f"    Security Group: {machine.security_group or f'generated, admits {admits}'}"
    yield f"    Key Name: {machine.keyname}"
    if group.role == "worker":
        yield f"    Count: {group.count}"
        if group.resources:
            yield f"    Resources: {group.offers}"
    if group.name in estimates:
        yield f"    {estimates[group.name]}"


def changes(outcome: Outcome) -> str:
    """Returns Terraform's resource changes as a short list with their counts."""
    lines = [_change_line(change) for change in outcome.changes]
    return "\n".join([*lines, *[""][: len(lines)], counts(each.action for each in outcome.changes)])


def counts(actions: Iterable[str]) -> str:
    """Returns Terraform's closing line: a replacement counts as one to add and one to destroy."""
    counted = Counter(actions)
    replaced = counted["replace"]
    return (
        f"{counted['create'] + replaced} to add, {counted['update']} to change, "
        f"{counted['delete'] + counted['forget'] + replaced} to destroy"
    )


def _change_line(change: PlannedChange) -> str:
    reason = f"  ({change.reason.replace('_', ' ')})" if change.reason else ""
    return f"{_SYMBOLS.get(change.action, '  ? ')}{change.address}{reason}"


# -- hosts ---------------------------------------------------------------------------------


def failures(results: Sequence[HostResult], numbered: Mapping[str, int]) -> list[str]:
    """Returns every failed host: number and id, stage, cause, log and what to do."""
    lines: list[str] = []
    for result in results:
        if result.ok:
            continue
        node = result.node
        number = numbered.get(node.instance_id)
        place = f"[{number}] " if number else ""
        lines.append(
            f"{place}{node.role} {node.instance_id} ({node.public_ip}) "
            f"failed at {result.stage}: {result.cause}"
        )
        lines += [f"{QUOTE}{line}" for line in result.log]
        if result.hint:
            lines.append(f"    {result.hint}")
    return lines


# -- versions ------------------------------------------------------------------------------


def versions_text(reference: str, found: Sequence[VersionDifference]) -> str:
    """Returns what differs from the `reference` host as a table, or says that nothing does."""
    if not found:
        return f"All versions match {reference}."
    return table(versions.rows(found, reference))


def local_warning(reference: str, found: Sequence[VersionDifference]) -> str:
    """Returns how the local Python differs, according to `found`, and how to fix it; empty if it
    does not differ."""
    if not found:
        return ""
    breaks = any(each.breaks for each in found)
    effect = "cannot work with" if breaks else "differs from, but works with,"
    lines = [f"Your local Python {effect} the cluster:", versions_text(reference, found)]
    return "\n".join([*lines, *mending(found)])


def mending(found: Sequence[VersionDifference]) -> list[str]:
    """Returns what to type to give the local Python the cluster's versions."""
    python = [each for each in found if each.package == versions.PYTHON and each.breaks]
    lines = [
        f"First create an environment with Python {versions.minor(each.expected or '')}."
        for each in python
    ]
    wanted = " ".join(versions.mend(found))
    return lines + ([f"To match it: pip install {wanted}"] if wanted else [])


# -- lists ---------------------------------------------------------------------------------


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns left-aligned columns; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def clusters(records: Iterable[Record], damaged: Iterable[str] = ()) -> list[tuple[str, ...]]:
    """The rows of a table: name, status, type, nodes and age; `damaged` ones have only a name."""
    rows: list[tuple[str, ...]] = [("NAME", "STATUS", "TYPE", "NODES", "AGE", "ENDS")]
    for record in records:
        nodes = sum(1 for _ in record.inventory.nodes())
        rows.append(
            (
                *(record.name, record.status, _kind(record) or "-", str(nodes)),
                *(age(record.created_time), end_cell(record)),
            )
        )
    rows += [(name, "damaged", "-", "-", "-", "-") for name in damaged]
    return rows


def clusters_document(
    records: Iterable[Record], damaged: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """As `clusters`, as a JSON document for programs."""
    documents: list[dict[str, Any]] = [
        {
            "name": record.name,
            "status": record.status,
            "type": _kind(record),
            "nodes": sum(1 for _ in record.inventory.nodes()),
            "region": record.region,
            "created_time": record.created_time,
            "ready_time": record.ready_time,
            "ends": record.ends,
        }
        for record in records
    ]
    return documents + [{"name": name, "status": "damaged"} for name in damaged]


def _kind(record: Record) -> str | None:
    return record.type or ("notebook" if record.inventory.notebook else None)
