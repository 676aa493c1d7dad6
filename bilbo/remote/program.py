"""Runs one of bilbo's own programs on a host, with the Python of its services."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from bilbo.model import Node
from bilbo.remote.agent_session import Session, agent_source
from bilbo.remote.answers import is_texts
from bilbo.remote.commands import with_agent
from bilbo.remote.terms import HostFailure, Remote


def answer(text: str, program: str) -> dict[str, list[str]]:
    """What a program printed: lists of strings by name. Raises HostFailure for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(map(is_texts, found.values())):
        raise HostFailure(f"the output of {program} cannot be read", log=text.splitlines()[-5:])
    return found


async def run_program(
    node: Node,
    cluster: str,
    remote: Remote,
    program: str,
    asked: Mapping[str, Any],
    *,
    executables: Collection[str],
    environment: Mapping[str, str],
) -> dict[str, list[str]]:
    """The answer of the agent's module `program` to `asked`, both JSON.

    Runs it with the Python of the first of `executables`. Raises HostFailure, also after
    `remote.deadlines.init`.
    """
    answers: list[dict[str, list[str]]] = []

    async def ask(_node: Node, session: Session) -> None:
        seconds = remote.deadlines.init
        event = await session.ask(
            "program",
            seconds + 10,  # the host keeps the deadline; this is for dead hosts
            source=agent_source(program),
            input=json.dumps(asked),
            executables=list(executables),
            environment=dict(environment),
            seconds=seconds,
        )
        if event["code"]:
            raise HostFailure(f"{program} ended with exit code {event['code']}", log=event["log"])
        answers.append(answer(event["output"], program))

    (failure,) = await with_agent([node], cluster, remote, ask)
    if failure:
        raise failure
    return answers[0]
