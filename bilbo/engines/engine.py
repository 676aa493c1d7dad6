"""What bilbo must know about an engine, and what engines have in common.

docs/engines.md shows how to add one.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bilbo.model import (
    ClusterSpec,
    HostPlan,
    Measurement,
    MembersPage,
    Node,
    NodeGroup,
    Service,
)

HERE = 'here=$(cd -- "$(dirname "$0")" && pwd)'  # the folder of the script
# A file there that only the user can read: variables for the services, and for `bilbo rcmd`.
ENVIRONMENT = "environment"
READ_ENVIRONMENT = f'. "$here/{ENVIRONMENT}" || exit'


@dataclass(frozen=True)
class Engine:
    """An engine: what to start where, when it is ready, and how people reach it.

    `name` is its key in a profile and part of instance names, `title` its name for people.
    `head_role` is the role of the head (one of `model.HEADS`), and its key beside `worker` in the
    profile. `ports` are the head's ports that people reach, with what listens there.

    `head` and `worker` plan what to start: the head first, the workers once its page answers.
    `roll` is the page that lists the head's members. `notebook` is the environment through which a
    notebook finds the cluster, `member` the one for programs on the engine's own machines.
    `configure` is what a group's settings put beside every service's script, text by name, and the
    lines of sh that have programs use it. `addresses` are for people and for the record; each key
    begins with `name` and _. Two of the keys are `dashboard`, a web page, and `client`, the
    argument of `connect`, a Python expression with {}. `desc` shows that expression if
    `desc_connects`.

    `packages` should have the same versions on hosts and clients; the first is the engine itself.
    If one of `breaking` differs, they cannot work together. `leave` is the agent's program that
    removes workers; it runs on the head's host in the notebook's environment. `patient` workers
    wait for a head that does not answer yet, so they can start with it. `estimate` is a line for
    `plan`: what a worker is expected to get on an instance type, before it is measured, and what of
    it cannot be; empty for a head that is well.
    """

    name: str
    title: str
    head_role: str
    ports: Mapping[int, str]
    head: Callable[[ClusterSpec, Node], HostPlan]
    worker: Callable[[ClusterSpec, Node, Node], HostPlan]
    roll: Callable[[Node], MembersPage]
    notebook: Callable[[Node], Mapping[str, str]]
    member: Callable[[Node], Mapping[str, str]]
    addresses: Callable[[Node], Mapping[str, str]]
    dashboard: str
    client: str
    connect: str
    packages: tuple[str, ...]
    breaking: tuple[str, ...]
    leave: str
    estimate: Callable[[NodeGroup, Measurement], str]
    configure: Callable[[NodeGroup], tuple[Mapping[str, str], Sequence[str]]] = lambda _: ({}, ())
    desc_connects: bool = True
    patient: bool = False

    def how_to_connect(self, addresses: Mapping[str, str]) -> str | None:
        """The Python expression that connects from a person's machine; None until it is known."""
        address = addresses.get(self.client)
        return self.connect.format(repr(address)) if address else None


def host_plan(
    spec: ClusterSpec,
    node: Node,
    name: str,
    service: Callable[[Measurement], Service],
    *,
    executable: str,
    packages: tuple[str, ...],
    oldest: Mapping[str, str],
    why_oldest: Mapping[str, str] | None = None,
    replace: bool = False,
) -> HostPlan:
    """The plan for a host of an engine, which runs the service `name`.

    `executable` is a program that runs on the engine's Python. For `replace` see `HostPlan`.
    """
    machine = group_of(spec, node).machine
    return HostPlan(
        node=node,
        service_name=name,
        service=service,
        executables=(executable,),
        packages=packages,
        oldest=oldest,
        why_oldest=why_oldest or {},
        init_cmd=machine.init_cmd,
        requirements=machine.packages,
        replace=replace,
        disk=machine.vol_size or 0,
    )


def address(node: Node) -> str:
    """The address for people to reach a node: public, if it has one."""
    return node.public_ip or node.private_ip


def group_of(spec: ClusterSpec, node: Node) -> NodeGroup:
    """The group of a node. Raises KeyError if the two belong to different clusters."""
    return {group.name: group for group in spec.groups()}[node.group]


def bash(what: str, lines: list[str], command: list[str]) -> str:
    """A readable script: `lines`, then `command`, which replaces the shell.

    `command` has one option per line, each already quoted for the shell.
    """
    start = ["#!/bin/bash", f"# Written by bilbo: {what}."]
    end = ['cd "$HOME" || exit', "exec " + " \\\n    ".join(command)]
    return "\n".join([*start, *lines, *end]) + "\n"


def waits_again(head: Node, port: int) -> list[str]:
    """Lines by which a worker that its host starts again waits for the head, as long as that takes:
    a head's machine may be stopped for a day, and a worker is given up after a few deaths."""
    where = f"/dev/tcp/{shlex.quote(head.private_ip)}/{port}"
    return [
        "# Started again by its host, it waits until the head is back. A first start does not.",
        'if [ -n "${BILBO_AGAIN:-}" ]; then',
        f"    until (exec 3<>{where}) 2>/dev/null; do sleep 1; done",
        "fi",
    ]


def options(values: Mapping[str, object]) -> list[str]:
    """`--name value` for each pair, quoted."""
    return [f"--{name} {shlex.quote(str(value))}" for name, value in values.items()]
