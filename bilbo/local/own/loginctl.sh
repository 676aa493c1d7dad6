#!/bin/sh
# A stand-in host's loginctl: it keeps in the host's folder whose units run without a login.
host=${0%/*/*}
linger=$host/var/lib/systemd/linger
verb='' who=''
for word in "$@"; do
    case $word in
        -*) ;;
        *) if [ -z "$verb" ]; then verb=$word; else who=$word; fi ;;
    esac
done
who=${who:-${USER:-root}}
case $verb in
    enable-linger)
        if grep -qx loginctl "$host/etc/refuses" 2>/dev/null; then
            echo "Could not enable linger: Access denied" >&2
            exit 1
        fi
        mkdir -p "$linger" && : >"$linger/$who"
        ;;
    disable-linger) rm -f "$linger/$who" ;;
    *)
        echo "loginctl: a stand-in host does not know '$verb'" >&2
        exit 1
        ;;
esac
