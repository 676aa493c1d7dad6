"""Where a machine of a cluster with a lifetime is told to power itself off.

A root timer of user data's looks into the folder `/var/lib/bilbo`, which belongs to the user who
runs the services: so nothing here needs sudo. `reached` says that bilbo has been here, `poweroff`
asks for the end, and why.
"""

from pathlib import Path

from bilbo.agent.boot import unit_folder
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


def ask_poweroff(why: str) -> None:
    """Have the machine power off within a minute. Raises Failure, OSError."""
    write_private(power_folder() / POWEROFF, why + "\n")
