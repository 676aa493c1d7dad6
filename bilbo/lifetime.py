"""When a cluster ends by itself: the profile's `lifetime`, how people write durations, and what
keeps it on each machine. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAUSE = "pause"
DESTROY = "destroy"
# As people write them: "90m", "1h30m", "2d". The schema has the same pattern.
DURATION = re.compile(
    r"(?=.)(?:([0-9]{1,4})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,7})s)?"
)
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


@dataclass(frozen=True)
class Lifetime:
    """What ends a cluster, in seconds. None for `ttl` and `idle`: that does not end it.

    `ttl` counts from the first time that the cluster was ready. `then` is PAUSE or DESTROY. A
    machine that nobody `unreached` through SSH since its first boot powers off; workers and
    notebook `follow` a head that they cannot reach for so long.
    """

    ttl: int | None = None
    idle: int | None = None
    then: str = PAUSE
    unreached: int = 3600
    follow: int = 600


def seconds(text: str) -> int:
    """A duration such as "1h30m" in seconds. Raises ValueError for anything else, and for none."""
    found = DURATION.fullmatch(text)
    total = 0
    if found:
        total = sum(
            int(each or 0) * unit for each, (unit, _) in zip(found.groups(), _UNITS, strict=True)
        )
    if not total:
        raise ValueError(f"{text!r} is not a duration such as 90m, 1h30m or 2d")
    return total


def words(total: float) -> str:
    """A duration in the two largest units that it has: `1h30m`, `2d`, `45s`."""
    left, shown = max(0, round(total)), []
    for unit, name in _UNITS:
        count, left = divmod(left, unit)
        if count:
            shown.append(f"{count}{name}")
    return "".join(shown[:2]) or "0s"


def lifetime(part: Mapping[str, Any] | None) -> Lifetime | None:
    """The `lifetime` of a checked profile; None without one."""
    if part is None:
        return None
    durations = {key: seconds(text) for key, text in part.items() if key != "then"}
    return Lifetime(then=part.get("then", PAUSE), **durations)


# -- on a machine --------------------------------------------------------------------------

# Not `bilbo-…`: so are the units called that start a cluster's services.
UNIT = "bilbo_lifetime.service"
# Puts the unit there and starts it, as root: user data at a machine's first boot, or the SSH stage
# through sudo. It may run twice, and twice at once. `user` and `unreached` are set before it.
#
# The folder comes last: who finds it may rely on the unit. It is the user's, so nothing of root's
# is in it: a link there could lead root anywhere. A mark that is older than this script is that of
# the machine whose disk this one's image was made of: cloud-init writes user data before anybody
# can log in. A service with a loop, not a timer: the journal would tell of each of its runs.
INSTALL = f"""\
set -eu
umask 022
for units in $(systemctl show -p UnitPath); do
    units=${{units#UnitPath=}}
    case $units in */etc/systemd/system) break ;; esac
    units=''
done
[ -n "$units" ] || {{
    echo 'bilbo: systemd names no folder for units' >&2
    exit 1
}}
folder=${{units%/*/*/*}}/var/lib/bilbo
cat >"$units/bilbo_lifetime.$$" <<'END'
# Written by bilbo. Powers this machine off when that is asked for, or when bilbo has not come in
# time since the first boot. What asked goes first, so that a machine that is started again stays.
units=${{0%/*}} folder=$1 unreached=$2
since=$units/bilbo_lifetime.since
[ -s "$since" ] || date +%s >"$since"
off() {{
    echo "bilbo: powering off: $1"
    rm -f "$folder/poweroff" "$since"
    until systemctl poweroff; do sleep 10; done
    exec sleep 3600
}}
while :; do
    [ ! -e "$folder/poweroff" ] || off 'it was asked for'
    if [ ! -e "$folder/reached" ]; then
        begun=$(cat "$since" || date +%s)
        [ $(($(date +%s) - begun)) -lt "$unreached" ] || off 'bilbo has not come'
    fi
    sleep 5
done
END
mv -f "$units/bilbo_lifetime.$$" "$units/bilbo_lifetime.sh"
cat >"$units/{UNIT}.$$" <<END
# Written by bilbo.
[Unit]
Description=bilbo: powers this machine off when its time is over

[Service]
ExecStart=/bin/sh "$units/bilbo_lifetime.sh" "$folder" $unreached
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
END
mv -f "$units/{UNIT}.$$" "$units/{UNIT}"
for mark in "$folder/reached" "$folder/poweroff" "$units/bilbo_lifetime.since"; do
    [ ! "$0" -nt "$mark" ] || rm -f "$mark"
done
systemctl daemon-reload
systemctl enable {UNIT}
systemctl restart --no-block {UNIT}
mkdir -p "$folder"
chmod 700 "$folder"
chown "$user" "$folder"
"""


def install_script(user: str, unreached: int) -> str:
    """The script, a whole file, that has a machine power itself off: see `INSTALL`. `user` is whom
    bilbo logs in as. It fails where systemd does not run."""
    return f"#!/bin/sh\nuser={shlex.quote(user)} unreached={unreached}\n{INSTALL}"
