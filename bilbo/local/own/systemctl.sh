#!/bin/sh
# A stand-in host's systemctl: it keeps units in the host's folder. The next boot runs those that are
# enabled, and the stand-in runs what it is asked to start now.
own=${0%/*}
host=${own%/*}
units=$host/etc/systemd/system
scope=system verb='' names='' properties='' value='' now=''
while [ $# -gt 0 ]; do
    case $1 in
        --user) scope=user units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user ;;
        -p | --property)
            properties=$2
            shift
            ;;
        -p* | --property=*) properties=${1#-p} properties=${properties#--property=} ;;
        --value) value=1 ;;
        --now) now=1 ;;
        -*) ;;
        *.*) names="$names $1" ;;
        *) if [ -z "$verb" ]; then verb=$1; else names="$names $1.service"; fi ;;
    esac
    shift
done

fail() {
    echo "$*" >&2
    exit 1
}

refuses() {
    [ -f "$host/etc/refuses" ] && grep -qx "systemctl-$scope" "$host/etc/refuses"
}

may() {
    refuses && fail "Failed to connect to bus: No such file or directory"
    [ "$scope" = user ] || [ -n "${SUDO_USER-}" ] || [ "${USER-}" = root ] ||
        fail "Failed to $verb unit: Interactive authentication required."
}

enable_unit() {
    [ -f "$units/$1" ] || fail "Failed to enable unit: Unit file $1 does not exist."
    sed -n 's/^WantedBy=//p' "$units/$1" | while read -r target; do
        [ -d "$units/$target.wants" ] || mkdir -p "$units/$target.wants"
        ln -sf "$units/$1" "$units/$target.wants/$1"
    done
}

# The stand-in looks there a few times a second; see _start_units in machines.py.
start_unit() {
    [ "$scope" = system ] || fail "systemctl: a stand-in host starts no units of users"
    [ -f "$units/$1" ] || fail "Failed to start $1: Unit $1 not found."
    asked=${host%/*/*}/start
    mkdir -p "$asked" && printf '%s\n' "$1" >"$asked/.${host##*/}:$1" &&
        mv "$asked/.${host##*/}:$1" "$asked/${host##*/}:$1"
}

case $verb in
    show)
        refuses &&
            fail "System has not been booted with systemd as init system (PID 1). Can't operate."
        [ "$properties" = UnitPath ] || fail "systemctl: a stand-in host shows its UnitPath only"
        [ -d "$units" ] || mkdir -p "$units"
        [ -n "$value" ] || printf 'UnitPath='
        echo "$units"
        ;;
    daemon-reload | daemon-reexec) may ;;
    is-system-running) echo running ;;
    enable)
        may
        for name in $names; do
            enable_unit "$name"
            [ -z "$now" ] || start_unit "$name"
        done
        ;;
    start | restart)
        may
        for name in $names; do start_unit "$name"; done
        ;;
    disable)
        may
        for name in $names; do rm -f "$units"/*.wants/"$name"; done
        ;;
    is-enabled)
        for name in $names; do
            if [ -n "$(find "$units" -path "*.wants/$name" 2>/dev/null)" ]; then
                echo enabled
            else
                echo disabled
                exit 1
            fi
        done
        ;;
    reboot | poweroff | halt) exec "$own/$verb" ;;
    *) fail "systemctl: a stand-in host does not know '$verb'" ;;
esac
