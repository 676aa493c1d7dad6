"""Checks the structure of Terraform's state: anyone who can write its bucket can change it. Pure.

Source: Terraform's internal/states/statefile/version4.go.
"""

from __future__ import annotations

from typing import Any

from bilbo.shape import anything, either, having, listed, mapped, maybe, shallow, string, whole

_INSTANCE = having(
    {"attributes": having({}, id=maybe(string))}, status=string, index_key=either(string, whole)
)
_RESOURCE = having(
    {"mode": string, "type": string, "name": string, "instances": listed(_INSTANCE)},
    module=string,
    provider=string,
)
_STATE = having(
    {},
    lineage=string,
    serial=whole,
    terraform_version=string,
    outputs=mapped(having({"value": anything}, sensitive=anything)),
    resources=listed(_RESOURCE),
)


def misfit(document: Any) -> str:
    """Why this is not a state that bilbo can read; empty if it is. `{}` means no state."""
    return shallow(document) or _STATE(document)
