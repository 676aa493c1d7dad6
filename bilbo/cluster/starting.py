"""The SSH stage of `create`, `scale` and `restart`: start services, judge and save the results."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bilbo import aws
from bilbo import record as states
from bilbo.cluster.compatibility import warn
from bilbo.cluster.reach import reach
from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.errors import AwsError, BilboError, PartlyDone, RecordError, RemoteError
from bilbo.inventory import missing
from bilbo.model import HEADS, NOTEBOOK, ClusterSpec, HostResult, Inventory, Node, Served
from bilbo.present.ending import ending
from bilbo.present.report import failures, numbers
from bilbo.record import Record, ends_after, now

if TYPE_CHECKING:
    from bilbo.model import Node, Served


@dataclass(frozen=True)
class Created:
    """The cluster as it is now; `record` is None if the profile has no instances.

    `changed` is False if there was nothing to do.
    """

    record: Record | None
    changed: bool = True


def tell(spec: ClusterSpec, work: Work, verb: str) -> None:
    """Reports what begins, in the wording of bilbo's own specification."""
    if verb == "Create":
        work.progress.say(ending(spec))
        if spec.engine:
            work.progress.say(f"Create {spec.engine} cluster '{spec.name}'.")
    if spec.notebook:
        work.progress.say(f"{verb} notebook.")
    if verb == "Start" and spec.engine:
        work.progress.say(f"Start {spec.engine} {ENGINES[spec.engine].head_role} & workers.")


def with_nodes(record: Record, spec: ClusterSpec, found: Inventory) -> Record:
    """Returns the record of a cluster whose instances run and whose services are starting."""
    from bilbo import services

    url = None
    if found.notebook:
        # As last served, until the host is asked.
        served = services.served(record.notebook_url) if record.notebook_url else Served()
        url = services.notebook_url(found.notebook, record.token, served)
    return record.changed(
        status=states.STARTING,
        inventory=found,
        notebook_url=url,
        addresses=ENGINES[spec.engine].addresses(found.head) if spec.engine and found.head else {},
        paused_workers={},
        rest={},
    )


def start(
    spec: ClusterSpec,
    work: Work,
    record: Record,
    *,
    fresh: Collection[str] = (),
    only: Collection[str] | None = None,
) -> Sequence[HostResult]:
    """Starts what does not run, restarts the roles and instances in `fresh`, and returns one result
    per host.

    `only` are the instances to start anything on. The others count as ready and are not connected
    to, except the head, which knows which workers have joined. If the head turns out to be new,
    none of its workers can have joined it, and all start anew.
    """
    nodes = list(record.inventory.nodes())
    settled = [node for node in nodes if only is not None and node.instance_id not in only]
    if len(settled) == len(nodes):
        return [HostResult(node, "ready", True) for node in nodes]
    _knows_env(spec)
    import asyncio

    from bilbo import remote, services

    plan = services.stage_plan(spec, _without(record.inventory, settled), record.token)
    plan = replace(plan, addresses=tuple(node.private_ip for node in nodes))
    work.progress.hosts(sum(1 for _ in plan.hosts()))
    results = asyncio.run(remote.bring_up(plan, reach(work, spec.name, spec.engine), fresh=fresh))
    if settled and any(_is_new_head(result) for result in results):
        return start(spec, work, record)
    warn(record, work, results)
    _as_before(spec.name, work, results)
    asked = {result.node for result in results}
    return [*results, *(HostResult(node, "ready", True) for node in settled if node not in asked)]


def _is_new_head(result: HostResult) -> bool:
    return result.node.role in HEADS and result.facts.get("already") is False


def _knows_env(spec: ClusterSpec) -> None:
    """Raises RecordError if this machine has only the hashes of `env`: hosts need the values."""
    for group in spec.groups():
        lost = [name for name, value in group.machine.env.items() if states.is_hidden(value)]
        if lost:
            raise RecordError(
                f"this machine has lost the values of env ({', '.join(lost)})",
                hint=f"Run `bilbo create` with the cluster's profile and -n {spec.name}.",
            )


def _as_before(name: str, work: Work, results: Sequence[HostResult]) -> None:
    """Reports which services keep running although their settings have changed."""
    for result in results:
        if result.node.role in HEADS and result.facts.get("kept"):
            work.progress.say(
                f"{result.facts['service']} was not restarted, and still runs with earlier "
                f"settings.\nTo restart it and lose what is being computed: bilbo restart {name}"
            )
        if result.node.role == NOTEBOOK and result.facts.get("kept"):
            work.progress.say(
                "JupyterLab was not restarted, and its notebooks do not have the latest settings, "
                "such as the cluster's address.\nTo restart it and end its kernels: "
                f"bilbo restart {name} --notebook"
            )
    _prepared_too_late(name, work, results)
    _disks(work, results)


def _disks(work: Work, results: Sequence[HostResult]) -> None:
    """Reports which file systems were grown, and which do not fill their disks."""
    for result in results:
        who = f"{result.node.role} {result.node.instance_id}"
        if result.facts.get("grown"):
            work.progress.say(f"The file system of {who} was grown to fill its disk.")
        if why := result.facts.get("disk"):
            work.progress.say(
                f"The file system of {who} may not fill its disk: {why[:300]}\nTo grow it by hand: "
                "https://docs.aws.amazon.com/ebs/latest/userguide/"
                "recognize-expanded-volume-linux.html"
            )


def _prepared_too_late(name: str, work: Work, results: Sequence[HostResult]) -> None:
    """Reports what was done on hosts whose services already ran, and so do not see it."""
    for fact, key in (("initialised", "init_cmd"), ("installed", "packages")):
        late = [each for each in results if each.facts.get(fact) and each.facts.get("already")]
        if late:
            roles = dict.fromkeys(each.node.role for each in late)
            whole = " --notebook" if NOTEBOOK in roles else ""
            work.progress.say(
                f"The new {key} take effect in what runs ({', '.join(roles)}) only at a restart: "
                f"bilbo restart {name}{whole}"
            )


def _without(found: Inventory, settled: Collection[Node]) -> Inventory:
    return Inventory(
        notebook=None if found.notebook in settled else found.notebook,
        head=found.head,
        workers=tuple(node for node in found.workers if node not in settled),
    )


def conclude(
    spec: ClusterSpec,
    work: Work,
    record: Record,
    results: Sequence[HostResult],
    error: BilboError | None = None,
    again: str = "bilbo create",
) -> Record:
    """Saves the results, and raises if anything is missing.

    `error` is why instances are missing, if any are; `again` is the command that continues. Raises
    PartlyDone if part of the cluster works, RemoteError if none does.
    """
    record = _after_boot(_with_members(_as_served(record, results), results), results)
    if record.ready_time is None and spec.lifetime:
        record = record.changed(ends=ends_after(spec.lifetime.ttl))
    short = missing(spec, record.inventory)
    failed = [result for result in results if not result.ok]
    if not failed and not short and error is None:
        return work.store.save(record.changed(status=states.READY, ready_time=now(), problems={}))
    head_lost = spec.head is not None and not any(
        result.ok and result.node.role == spec.head.role for result in results
    )
    useless = head_lost or not any(result.ok for result in results)
    problems = {result.node.instance_id: f"{result.stage}: {result.cause}" for result in failed}
    status = states.FAILED if useless else states.PARTIAL
    work.store.save(record.changed(status=status, ready_time=now(), problems=problems))
    lines = failures(results, dict(numbers(record.inventory)))
    lines += _moved(work, record, failed)
    lines += [f"{group.name}: {count} of {group.count} missing" for group, count in short]
    if error:
        lines += str(error).splitlines()
    kind = RemoteError if useless else PartlyDone
    what = "does not work" if useless else "works in part"
    raise kind(
        f"cluster {spec.name!r} {what}",
        details=tuple(lines),
        hint=f"{_what_next(failed, error, again)}; to remove it: bilbo destroy {spec.name}",
    )


def _what_next(failed: Sequence[HostResult], error: BilboError | None, again: str) -> str:
    """Returns whether the same command completes the cluster."""
    only_lasting = error is None and bool(failed) and all(result.lasts for result in failed)
    if (error and error.lasts) or only_lasting:
        return f"The same `{again}` fails the same way until you change that"
    return f"To complete it, run the same `{again}`"


def _as_served(record: Record, results: Sequence[HostResult]) -> Record:
    """Returns the record with the URL that JupyterLab reports."""
    from bilbo import services

    for result in results:
        if served := result.facts.get("served"):
            url = services.notebook_url(result.node, record.token, served)
            return record.changed(notebook_url=url)
    return record


def _after_boot(record: Record, results: Sequence[HostResult]) -> Record:
    """Returns the record with the instances on which nothing starts again at a boot."""
    there = {node.instance_id for node in record.inventory.nodes()}
    down = {name: why for name, why in record.stays_down.items() if name in there}
    for result in results:
        name = result.node.instance_id
        if result.facts.get("boot"):
            down.pop(name, None)
        elif "boot" in result.facts:
            down[name] = result.facts["no_boot"][:500]
    return record.changed(stays_down=down)


def _with_members(record: Record, results: Sequence[HostResult]) -> Record:
    """Returns the record with how many processes each worker has in the engine's head."""
    now = {each.node.instance_id: int(each.facts.get("members", 0)) for each in results}
    workers = [node.instance_id for node in record.inventory.workers]
    told = {name: now.get(name) or record.members.get(name, 0) for name in workers}
    return record.changed(members={name: count for name, count in told.items() if count})


def _moved(work: Work, record: Record, failed: Sequence[HostResult]) -> list[str]:
    """Returns a line if hosts are unreachable because the caller's own address has changed."""
    asked = not work.target.caller_cidrs and not record.profile.get("access", {}).get("cidrs")
    if not (asked and record.cidrs and any(result.stage == "connect" for result in failed)):
        return []
    try:
        present = aws.caller_cidr(work.target.check_ip_url)
    except AwsError:
        return []
    if present in record.cidrs:
        return []
    return [
        f"Your address is now {present}, but the security group admits "
        f"{', '.join(record.cidrs)}: run `bilbo create` with --my-ip"
    ]


# How long to wait for a running host to return its notebook's token.
_PATIENCE_SECONDS = 30.0
# A token is printed, and is part of a URL.
_TOKEN = re.compile("[!-~]{1,512}")


def with_token(record: Record, before: Record | None, found: Inventory, work: Work) -> Record:
    """Returns the record with JupyterLab's own token, if a JupyterLab may run without being in the
    record.

    So after a record is lost or created on another machine, open pages keep working.
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
    """Returns the token from the file that JupyterLab reads, empty if it is unavailable; and how to
    connect to JupyterLab."""
    from bilbo import remote, services

    said: list[bytes] = []

    def take(_node: Node, data: bytes, is_stderr: bool) -> None:
        if not is_stderr:
            said.append(data)

    command = (  # an earlier bilbo did not keep it by instance
        f"cd ~/.bilbo/{cluster} || exit; cd {node.instance_id} 2>/dev/null; "
        f"[ -f {services.TOKEN_FILE} ] || cd ~/.bilbo/{cluster}; "
        f"cat {services.TOKEN_FILE} || exit 1; echo; "
        f"for each in {services.SERVERS}; do pid=${{each##*-}}; "
        'if [ -d "/proc/${pid%.json}" ]; then cat "$each"; fi; done 2>/dev/null; exit 0'
    )
    patient = replace(work, timeout=work.timeout or _PATIENCE_SECONDS)
    (result,) = asyncio.run(
        remote.run_command([node], remote.in_sh(command), reach(patient, cluster), on_output=take)
    )
    told = b"".join(said).decode(errors="replace") if result.exit_code == 0 else ""
    token, _, server = told.partition("\n")
    token = token.strip()
    return token if _TOKEN.fullmatch(token) else "", services.described(server)
