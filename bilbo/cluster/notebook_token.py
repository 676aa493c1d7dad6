"""The token of a JupyterLab that runs already, read on its host."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from bilbo.cluster.reach import reach
from bilbo.cluster.work import Work
from bilbo.model import Inventory
from bilbo.record import Record

if TYPE_CHECKING:
    from bilbo.model import Node, Served


# How long a host that runs is waited for, to tell its notebook's token.
_PATIENCE_SECONDS = 30.0


# A token is printed, and stands in a URL.
_TOKEN = re.compile("[!-~]{1,512}")


def with_token(record: Record, before: Record | None, found: Inventory, work: Work) -> Record:
    """The record with JupyterLab's own token, where a JupyterLab may run that it does not know.

    So a lost record, or one made elsewhere, costs nobody the page that is open.
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
    """The token in the file that JupyterLab reads it from, empty where it cannot be had; and how
    JupyterLab is reached."""
    from bilbo import remote, services

    said: list[bytes] = []

    def take(_node: Node, data: bytes, is_stderr: bool) -> None:
        if not is_stderr:
            said.append(data)

    command = (
        f"cd ~/.bilbo/{cluster} && cat {services.TOKEN_FILE} || exit 1; echo; "
        f"for each in {services.SERVERS}; do pid=${{each##*-}}; "
        'if [ -d "/proc/${pid%.json}" ]; then cat "$each"; fi; done 2>/dev/null; exit 0'
    )
    patient = replace(work, timeout=work.timeout or _PATIENCE_SECONDS)
    (result,) = asyncio.run(
        remote.run_command([node], command, reach(patient, cluster), on_output=take)
    )
    told = b"".join(said).decode(errors="replace") if result.exit_code == 0 else ""
    token, _, server = told.partition("\n")
    token = token.strip()
    return token if _TOKEN.fullmatch(token) else "", services.described(server)
