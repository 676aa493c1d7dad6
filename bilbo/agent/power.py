"""Where a machine of a cluster with a lifetime is told to power itself off.

A unit of root's, from user data, looks into the folder `/var/lib/bilbo`, which belongs to the user
who runs the services: so nothing here needs sudo. `reached` says that bilbo has been here,
`poweroff` asks for the end, and why. The unit is in `bilbo.lifetime`.
"""

import contextlib
from pathlib import Path

from bilbo.agent.boot import said, unit_folder
from bilbo.agent.channel import Client, Request
from bilbo.agent.service import Failure, write_private

_UNITS = "/etc/systemd/system"
REACHED = "reached"
POWEROFF = "poweroff"


def power_folder() -> Path:
    """The folder. Raises Failure if nothing on this machine would look into it."""
    units = str(unit_folder(["systemctl"]))
    folder = Path(units[: -len(_UNITS)] + "/var/lib/bilbo")
    if not units.endswith(_UNITS) or not folder.is_dir():
        raise Failure(f"{folder} is missing: the machine cannot power itself off")
    return folder


def mark_reached() -> None:
    """Keep the machine from powering off because nobody came. Raises Failure, OSError."""
    write_private(power_folder() / REACHED, "")


def reach(script: str, seconds: float) -> None:
    """Leave the mark. Where user data have not made the folder, as on a machine that is older than
    its cluster's lifetime, `script` does so through sudo; without sudo, wait for user data, which
    come late in the first boot, `seconds` at most. Raises Failure."""
    with contextlib.suppress(Failure, OSError):
        mark_reached()
        return
    try:
        said(["sudo", "-n", "sh", "-c", script])
    except Failure:
        with contextlib.suppress(Failure):  # a first boot that failed is over, too
            said(["cloud-init", "status", "--wait"], seconds=seconds)
    try:
        mark_reached()
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from None


def on_reach(client: Client, request: Request) -> None:
    """bilbo is here: `reach` with `script` and `seconds` -> `reached`; `why` it cannot be, and the
    machine would never power itself off."""
    why = ""
    try:
        reach(request["script"], request["seconds"])
    except Failure as error:
        why = str(error)
    client.emit("reached", why=why)


def ask_poweroff(why: str) -> None:
    """Have the machine power off within half a minute. Raises Failure, OSError."""
    write_private(power_folder() / POWEROFF, why + "\n")
