"""What bilbo must know of a way to compute, and what engines have in common.

docs/engines.md shows how to add one.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
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

HERE = 'here=$(cd -- "$(dirname "$0")" && pwd)'  # the folder that a script lies in


@dataclass(frozen=True)
class Engine:
    """A way to compute: what to start where, what ready means, and how people reach it.

    `name` is its key in a profile and in the names of machines, `title` what people call it.
    `head_role` is the role of the one machine that coordinates (`model.HEADS`), its key beside
    `worker` in the profile. `ports` are the head's that people reach, and what listens there.

    `head` and `worker` make what is started: the head first, the workers once its page answers.
    `roll` is where the head tells who has joined. `notebook` is the environment by which a
    notebook finds the cluster without being told. `addresses` are for people and for the
    record; each key begins with `name` and _, and `dashboard` and `client` are two of them: a
    page, and what `connect`, a Python expression with {}, takes. `desc` shows it where
    `desc_connects`.

    `packages` ought to agree between hosts and clients, the first is the engine itself; where one
    of `breaking` does not, they cannot work together. `leave` is the agent's program that, run on
    the head's host in the notebook's environment, lets workers leave. `patient` workers wait for a
    head that does not answer yet, and so can be started with it. `estimate` is a line for
    `plan`: what a worker is expected to get on a machine that has been described, not yet measured.
    """

    name: str
    title: str
    head_role: str
    ports: Mapping[int, str]
    head: Callable[[ClusterSpec, Node], HostPlan]
    worker: Callable[[ClusterSpec, Node, Node], HostPlan]
    roll: Callable[[Node], MembersPage]
    notebook: Callable[[Node], Mapping[str, str]]
    addresses: Callable[[Node], Mapping[str, str]]
    dashboard: str
    client: str
    connect: str
    packages: tuple[str, ...]
    breaking: tuple[str, ...]
    leave: str
    estimate: Callable[[NodeGroup, Measurement], str]
    desc_connects: bool = True
    patient: bool = False

    def how_to_connect(self, addresses: Mapping[str, str]) -> str | None:
        """The Python expression that connects from a person's own machine, once it is known."""
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
    """What a host of an engine must have, and the service `name` that it gets.

    `executable` is the program whose Python is the engine's. `replace`: see `HostPlan`.
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
    )


def address(node: Node) -> str:
    """Where people reach a node: its public address, if it has one."""
    return node.public_ip or node.private_ip


def group_of(spec: ClusterSpec, node: Node) -> NodeGroup:
    """The group that a node belongs to. Raises KeyError where the two are of different clusters."""
    return {group.name: group for group in spec.groups()}[node.group]


def bash(what: str, lines: list[str], command: list[str]) -> str:
    """A script for people to read: `lines`, then `command` in place of the shell.

    `command` has one option a line, each already quoted for the shell.
    """
    start = ["#!/bin/bash", f"# Written by bilbo: {what}."]
    end = ['cd "$HOME" || exit', "exec " + " \\\n    ".join(command)]
    return "\n".join([*start, *lines, *end]) + "\n"


def options(values: Mapping[str, object]) -> list[str]:
    """`--name value` for each, quoted."""
    return [f"--{name} {shlex.quote(str(value))}" for name, value in values.items()]
