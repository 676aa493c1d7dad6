"""What hosts and the local Python have installed, and which of it is incompatible."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from bilbo.cluster.work import Work
from bilbo.engines import ENGINES
from bilbo.errors import BilboError
from bilbo.model import HostResult, Node
from bilbo.present.report import numbers
from bilbo.record import Record
from bilbo.versions import Software, VersionDifference, differences, software

LOCAL = "local"
_LOOK_SECONDS = 60
_LOOK = """
import json, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
python = "{}.{}.{}".format(*sys.version_info[:3])
print(json.dumps({"python": python, "versions": {n: version(n) for n in sys.argv[1:]}}))
"""


@dataclass(frozen=True)
class Checked:
    """What each place has, and how it differs from the `reference`: the head, or the notebook.

    `hosts` are ordered by number, `failures` are the hosts that did not answer, and `python` is the
    path of the local Python.
    """

    reference: Software
    hosts: tuple[tuple[Node, Software], ...]
    local: Software
    python: str
    differences: tuple[VersionDifference, ...]
    failures: tuple[tuple[Node, BilboError], ...] = ()

    @property
    def local_differences(self) -> tuple[VersionDifference, ...]:
        """How the local Python differs."""
        return tuple(each for each in self.differences if each.where == LOCAL)

    @property
    def broken_hosts(self) -> tuple[VersionDifference, ...]:
        """The differences that keep hosts from working together."""
        return tuple(each for each in self.differences if each.breaks and each.where != LOCAL)


def compared(
    record: Record,
    engine: str,
    facts: Mapping[str, Mapping[str, Any]],
    python: str | None = None,
    failures: tuple[tuple[Node, BilboError], ...] = (),
) -> Checked:
    """Compares the `facts` of hosts, by instance id, with the local Python.

    `facts` must not be empty.
    """
    names, breaking = ENGINES[engine].packages, ENGINES[engine].breaking
    numbered = dict(numbers(record.inventory))
    hosts = tuple(
        (node, _only(software(place(node, numbered), facts[node.instance_id]), names))
        for node in record.inventory.nodes()
        if node.instance_id in facts
    )
    heads = [found for node, found in hosts if node == record.inventory.head]
    reference = heads[0] if heads else hosts[0][1]
    local = local_software(python, names)
    found = [
        each
        for other in (*(found for _, found in hosts), local)
        for each in differences(reference, other, breaking)
    ]
    return Checked(reference, hosts, local, python or sys.executable, tuple(found), failures)


def place(node: Node, numbered: Mapping[str, int]) -> str:
    """Returns a host's name for people: `[2] scheduler`."""
    return f"[{numbered[node.instance_id]}] {node.role}"


def _only(found: Software, names: Sequence[str]) -> Software:
    return Software(found.where, found.python, {name: found.packages.get(name) for name in names})


def local_software(python: str | None, names: Sequence[str]) -> Software:
    """Returns what the Python at the path `python` has; None means the one that runs bilbo.

    Raises BilboError if that is not a Python.
    """
    if python is None:
        versions = {name: _version(name) for name in names}
        return Software(LOCAL, ".".join(map(str, sys.version_info[:3])), versions)
    try:
        answer = subprocess.run(
            [python, "-I", "-c", _LOOK, *names],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LOOK_SECONDS,
            check=True,
        )
        return software(LOCAL, json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise BilboError(
            "not a working Python 3.8 or later",
            where=python,
            details=(str(error)[:200],),
            hint="Give the Python of your environment, such as ~/venv/bin/python.",
        ) from error


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def warn(record: Record, work: Work, results: Sequence[HostResult]) -> None:
    """Warns, after hosts have started, if the Python that runs bilbo differs from theirs.

    A Python without the engine, such as that of a separately installed bilbo, is not a client:
    nothing is said about it.
    """
    from bilbo.present.report import local_warning

    facts = {each.node.instance_id: each.facts for each in results if "versions" in each.facts}
    if record.type is None or not facts:
        return
    found = compared(record, record.type, facts)
    if found.local.packages.get(ENGINES[record.type].packages[0]) is None:
        return
    text = local_warning(found.reference.where, found.local_differences)
    if text:
        work.progress.say(text)
