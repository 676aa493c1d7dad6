"""Has the next boot of this host start a cluster's services: `service.py` in the cluster's folder.

A systemd unit if sudo asks no password; else a unit of the user's own systemd, with lingering; else
an @reboot line in the user's crontab.
"""

# ruff: noqa: UP006, UP035 - hosts may have Python 3.6, which knows no newer spelling

import os
import pwd
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from bilbo.agent.service import Failure, read_text, write_private

SECONDS = 20.0  # for each program
PATIENCE = 45.0  # for all of them, once the service is ready: bilbo waits a minute
# OOMPolicy: one process that the kernel ends for its memory must not end the others.
UNIT = """\
# Written by bilbo: the services of cluster {cluster}.
[Unit]
Description=bilbo: the services of cluster {cluster}
Wants=network-online.target
After=network-online.target
{condition}
[Service]
Type=oneshot
RemainAfterExit=yes
{user}ExecStart={command}
OOMPolicy=continue
TasksMax=infinity
TimeoutStopSec=20

[Install]
WantedBy={target}
"""
# `enable` has systemd read its units again.
PUT = 'umask 022; cat >"$1.new" && mv "$1.new" "$1" && exec systemctl enable "$2"'


class Installation(threading.Thread):
    """Installs the best boot entry that the host allows, while its services come up."""

    def __init__(self, cluster: str, folder: Path) -> None:
        super().__init__(daemon=True)
        self._place = (cluster, folder)
        self._found = ("", f"it was not installed within {PATIENCE:.0f} s")
        self.start()

    def run(self) -> None:
        """Try one way after the other."""
        causes = []
        for name, attempt in (("systemd", system_unit), ("user", user_unit), ("crontab", crontab)):
            try:
                attempt(*self._place)
                self._found = (name, "")
                return
            except (Failure, OSError) as error:
                causes.append(str(error))
        self._found = ("", "; ".join(causes))

    def result(self) -> Tuple[str, str]:
        """Wait for it: what it is and "", or "" and why there is none."""
        self.join(timeout=PATIENCE)
        return self._found


def system_unit(cluster: str, folder: Path) -> None:
    """Install a unit of the host's systemd, unless it is there. Raises Failure."""
    place = unit_folder(["systemctl"])
    name = unit_name(cluster)
    text = unit(cluster, folder, "multi-user.target", user=f"User={user_name()}\n")
    if read_text(place / name) == text and (place / "multi-user.target.wants" / name).exists():
        return
    said(["sudo", "-n", "sh", "-c", PUT, "sh", str(place / name), name], text)


def user_unit(cluster: str, folder: Path) -> None:
    """Install a unit of the user's own systemd, which runs without a login. Raises Failure.

    Machines may share one home, and so the folder of these units: each has its own, for it alone.
    """
    systemctl = ["systemctl", "--user"]
    name = unit_name(f"{cluster}-{folder.name}")
    here = machine_id()
    text = unit(
        cluster, folder, "default.target", condition=f"ConditionHost={here}\n" if here else ""
    )
    unit_folder(systemctl)
    said(["loginctl", "enable-linger"])
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    place = Path(base) / "systemd" / "user"
    place.mkdir(parents=True, exist_ok=True)
    write_private(place / name, text)
    said([*systemctl, "enable", name])


def crontab(cluster: str, folder: Path) -> None:
    """Put an @reboot line into the user's crontab, in place of an earlier one. Raises Failure."""
    mark = f" # bilbo: {cluster}"
    command = " ".join(map(shlex.quote, starter(folder)))
    line = "@reboot " + command.replace("%", "\\%") + mark
    try:
        lines = said(["crontab", "-l"]).splitlines()
    except Failure as error:
        if "no crontab" not in str(error):
            raise
        lines = []
    wanted = [each for each in lines if not each.endswith(mark)] + [line]
    if wanted != lines:
        said(["crontab", "-"], "\n".join(wanted) + "\n")


def unit_name(cluster: str) -> str:
    """The unit's name: one unit a cluster."""
    return f"bilbo-{cluster}.service"


def unit(cluster: str, folder: Path, target: str, *, user: str = "", condition: str = "") -> str:
    """The unit's text. `user` and `condition` are whole lines, or empty."""
    command = " ".join(map(quoted, starter(folder)))
    return UNIT.format(
        cluster=cluster, command=command, target=target, user=user, condition=condition
    )


def machine_id() -> str:
    """What systemd calls this machine; empty if it calls it nothing. Source: machine-id(5)."""
    found = read_text(Path("/etc/machine-id")).strip()
    return found if len(found) == 32 else ""


def starter(folder: Path) -> List[str]:
    """The command that starts the cluster's services."""
    return [sys.executable, "-I", "-S", str(folder / "service.py")]


def quoted(word: str) -> str:
    """A word of ExecStart."""
    for each in ("\\", '"'):
        word = word.replace(each, "\\" + each)
    return '"' + word.replace("%", "%%").replace("$", "$$") + '"'


def user_name() -> str:
    """The user whose services they are."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def unit_folder(systemctl: Sequence[str]) -> Path:
    """Where this systemd's units of one's own are. Raises Failure if it does not run."""
    shown = said([*systemctl, "show", "--property=UnitPath"])
    for each in shown.partition("=")[2].split():
        if each.endswith(("/etc/systemd/system", "/systemd/user")):
            return Path(each)
    raise Failure(f"{' '.join(systemctl)} names no folder for units")


def said(argv: Sequence[str], text: str = "", seconds: float = SECONDS) -> str:
    """What a program says. Raises Failure, with its last words, if it cannot do it."""
    environment = dict(os.environ, LC_ALL="C")
    runtime = f"/run/user/{os.getuid()}"
    if "--user" in argv and os.path.isdir(runtime):  # noqa: PTH112
        environment.setdefault("XDG_RUNTIME_DIR", runtime)
    return _run(argv, text, environment, seconds)


def _run(argv: Sequence[str], text: str, environment: Dict[str, str], seconds: float) -> str:
    name = " ".join(argv[:2])
    try:
        done = subprocess.run(  # noqa: UP022 - Python 3.6 has no capture_output
            list(argv),
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=seconds,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"{name} did not end within {seconds:.0f} s") from None
    except OSError as error:
        raise Failure(f"{argv[0]}: {error.strerror}") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise Failure(f"{name}: {words[-1] if words else f'exit code {done.returncode}'}")
    return done.stdout.decode(errors="replace")
