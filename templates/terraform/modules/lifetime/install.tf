# From bilbo/lifetime.py: BILBO_WRITE_DOCS=1 pytest tests/test_power.py writes it.

locals {
  install = <<EOT
set -eu
umask 022
for units in $(systemctl show -p UnitPath); do
    units=$${units#UnitPath=}
    case $units in */etc/systemd/system) break ;; esac
    units=''
done
[ -n "$units" ] || {
    echo 'bilbo: systemd names no folder for units' >&2
    exit 1
}
folder=$${units%/*/*/*}/var/lib/bilbo
cat >"$units/bilbo_lifetime.$$" <<'END'
# Written by bilbo. Powers this machine off when that is asked for, or when bilbo has not come in
# time since the first boot. What asked goes first, so that a machine that is started again stays.
units=$${0%/*} folder=$1 unreached=$2
since=$units/bilbo_lifetime.since
[ -s "$since" ] || date +%s >"$since"
off() {
    echo "bilbo: powering off: $1"
    rm -f "$folder/poweroff" "$since"
    until systemctl poweroff; do sleep 10; done
    exec sleep 3600
}
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
cat >"$units/bilbo_lifetime.service.$$" <<END
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
mv -f "$units/bilbo_lifetime.service.$$" "$units/bilbo_lifetime.service"
for mark in "$folder/reached" "$folder/poweroff" "$units/bilbo_lifetime.since"; do
    [ ! "$0" -nt "$mark" ] || rm -f "$mark"
done
systemctl daemon-reload
systemctl enable bilbo_lifetime.service
systemctl restart --no-block bilbo_lifetime.service
mkdir -p "$folder"
chmod 700 "$folder"
chown "$user" "$folder"
EOT
}
