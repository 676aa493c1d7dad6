"""Starts a cluster's services with a bare script: the floor of `time_to_ready`.

`python benchmarks/bare_services.py KEY PORT < SERVICES` connects to all hosts at once, starts
everything at once, and ends when everything answers. It checks, records, measures and reports
nothing. SERVICES is JSON: `hosts`, each with `host`, `name`, `files` (name to text; NAME.sh is run)
and `after` (host and port that must be open before, or null); `pages` to wait for (`url`,
`headers`, `contains`, all of it in one answer).
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tarfile
import urllib.request
from collections.abc import Mapping
from typing import Any

import asyncssh

POLL_SECONDS = 0.1


def packed(files: Mapping[str, str]) -> bytes:
    """The files as a tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return archive.getvalue()


async def start(what: Mapping[str, Any], key: asyncssh.SSHKey, port: int) -> None:
    """Starts a service that outlives the connection."""
    wait = ""
    if what["after"]:
        wait = "until (exec 3<>/dev/tcp/{}/{}) 2>/dev/null; do sleep 0.1; done; ".format(
            *what["after"]
        )
    command = f"{wait}exec bash .bare/{what['name']}.sh"
    async with asyncssh.connect(
        what["host"], port, username="ubuntu", client_keys=[key], known_hosts=None, config=None
    ) as connection:
        await connection.run(
            "mkdir -p .bare && tar -xf - -C .bare && "
            f"{{ setsid nohup bash -lc {json.dumps(command)} </dev/null >.bare/log 2>&1 & }}",
            input=packed(what["files"]),
            encoding=None,
            check=True,
        )


def answers(page: Mapping[str, Any]) -> bool:
    """Whether a page answers with everything that it must contain."""
    request = urllib.request.Request(page["url"], headers=page["headers"])
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            text = answer.read().decode()
            return answer.status == 200 and all(each in text for each in page["contains"])
    except OSError:
        return False


async def main(key_path: str, port: int) -> None:
    """Starts everything at once, then waits."""
    asked = json.load(sys.stdin)
    key = asyncssh.read_private_key(key_path)
    await asyncio.gather(*(start(each, key, port) for each in asked["hosts"]))
    for page in asked["pages"]:
        while not answers(page):
            await asyncio.sleep(POLL_SECONDS)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
