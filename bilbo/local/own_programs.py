"""The programs that a machine of the stand-in has of its own, first on its PATH.

A machine is processes of this computer. What would stop, power off or install something would do it
to the computer, so each machine has programs of these names that act on the machine's folder alone:
`etc`, `var`, `dev` and `home` in it. `own/*.sh` are these programs.
"""

from __future__ import annotations

from pathlib import Path

_SOURCES = Path(__file__).with_name("own")
_POWER = ("shutdown", "reboot", "poweroff", "halt", "init", "telinit")
_DISK = ("findmnt", "lsblk", "growpart", "resize2fs", "xfs_growfs")
# What people call by name to change the computer, and the machine has nothing of.
REFUSED = (
    *("apt", "apt-get", "aptitude", "dpkg-reconfigure", "dnf", "yum", "zypper", "snap", "rpm"),
    *("service", "systemd-run", "update-rc.d", "invoke-rc.d", "chkconfig", "rc-service"),
    *("su", "pkexec", "doas", "runuser", "at", "batch", "kexec"),
)
# Name to source.
PROGRAMS = {
    "bash": "bash",
    "sudo": "sudo",
    "systemctl": "systemctl",
    "loginctl": "loginctl",
    "crontab": "crontab",
    "wall": "wall",
    "chown": "chown",
    **dict.fromkeys(_POWER, "power"),
    **dict.fromkeys(_DISK, "disk"),
    **dict.fromkeys(REFUSED, "refused"),
}


def lay_out(folder: Path) -> None:
    """Write the programs into a folder of the stand-in; machines link to it.

    They find their machine by the path that they are called by.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, source in PROGRAMS.items():
        program = folder / name
        program.write_bytes((_SOURCES / f"{source}.sh").read_bytes())
        program.chmod(0o700)
