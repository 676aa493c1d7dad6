"""A cluster as it is, as text and for JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bilbo.errors import QUOTE
from bilbo.model import HEADS, WORKER
from bilbo.present.keeping_awake import awake_document, awake_lines
from bilbo.present.report import age_of, numbers, reality_lines
from bilbo.reality import RENEW, START, WAIT, MachineReality, Reality
from bilbo.record import Record


def condition(record: Record, seen: Reality) -> str:
    """Returns what runs, and what is not as recorded."""
    blocks = ["\n".join(["Services:", *_services(seen)])] if seen.machines else []
    blocks += ["\n".join(lines)] if (lines := awake_lines(seen)) else []
    return "\n\n".join([*blocks, "\n".join(amiss(record, seen))])


def amiss(record: Record, seen: Reality) -> list[str]:
    """Returns what is not as recorded, a line each with the logs that say why, and what to do."""
    lines = [*_wrong(record, seen)]
    if not lines:
        return ["AWS and the hosts match the record."]
    if [each for each in seen.to_mend() if each.mend != WAIT] or seen.unknown:
        lines.append(f"To repair it, run `bilbo create` with its profile and -n {record.name}.")
    elif seen.to_mend():
        lines.append(
            "It may mend itself. If it is so in a minute: `bilbo create` with its profile and "
            f"-n {record.name}."
        )
    return ["Not as recorded:", *lines]


def _wrong(record: Record, seen: Reality) -> Iterator[str]:
    numbered = dict(numbers(record.inventory))
    for line in seen.trouble.splitlines():
        yield f"  {line}"
    for each in seen.machines:
        node = each.node
        if _follows(each, seen):
            continue
        for wrong in each.wrong:
            yield f"  [{numbered[node.instance_id]}] {node.role} {node.instance_id} {wrong}"
        if each.wrong and each.there and not each.there.running:
            yield from (f"  {QUOTE}{line}" for line in each.there.log)
    count = sum(_follows(each, seen) for each in seen.machines)
    if count and seen.head:
        yield f"  {count} worker(s) must start anew with the {seen.head.node.role}"
    yield from (f"  {line}" for line in reality_lines(seen.others))


def _follows(each: MachineReality, seen: Reality) -> bool:
    """Whether a worker is lost only because the engine's head is."""
    return seen.head_is_dead and each.node.role == WORKER and each.mend in (START, RENEW)


def _services(seen: Reality) -> Iterator[str]:
    """A line for each service: how often it runs, since when, and how much of it has joined."""
    for service in dict.fromkeys(each.service for each in seen.machines):
        machines = [each for each in seen.machines if each.service == service]
        running = [each.there for each in machines if each.there and each.there.running]
        line = f"  {service} runs on {len(running)} of {len(machines)} machine(s)"
        ages = [each.age for each in running if each.age is not None]
        if ages:
            line += f", for {age_of(min(ages))}"
        deaths = sum(each.restarts for each in running)
        if deaths:
            line += f"; started again {deaths} time(s)"
        told = [each for each in machines if each.joined is not None]
        if told:
            members = sum(each.members for each in machines)
            line += f"; {sum(each.joined or 0 for each in told)} of {members} process(es) joined"
        yield line


def condition_document(seen: Reality) -> dict[str, Any]:
    """Returns the same for programs: whether all is well, and each machine with its services."""
    return {
        "well": seen.well,
        "aws": seen.trouble or None,
        "differences": [asdict(each) for each in seen.differences()],
        "awake": awake_document(seen),
        "machines": [_machine(each) for each in seen.machines],
    }


def _machine(each: MachineReality) -> dict[str, Any]:
    services = each.status.services if each.status else ()
    return {
        "instance_id": each.node.instance_id,
        "role": each.node.role,
        "state": each.state or None,
        "public_ip": each.public_ip,
        "recorded_public_ip": each.node.public_ip,
        "service": each.service,
        "services": [
            {
                "name": service.name,
                "running": service.running,
                "supervised": service.running and not service.unsupervised,
                "age": service.age,
                "exit_code": service.code,
                "cause": None if service.running else service.ending,
                "restarts": service.restarts,
                "log": list(service.log),
            }
            for service in services
        ],
        "joined": each.joined,
        "members": each.members or None,
        "answers": None
        if each.node.role not in HEADS or not each.status
        else (each.status.members is not None),
        "trouble": each.trouble or None,
        "wrong": list(each.wrong),
        "mend": each.mend or None,
    }
