#!/bin/sh
# A stand-in host's crontab: it keeps tables in the host's folder. The next boot runs their @reboot
# lines; nothing runs the others.
host=${0%/*/*}
tables=$host/var/spool/cron
who=${USER:-root} what=''
if grep -qx crontab "$host/etc/refuses" 2>/dev/null; then
    echo "You ($who) are not allowed to use this program (crontab)" >&2
    exit 1
fi
while [ $# -gt 0 ]; do
    case $1 in
        -u)
            who=$2
            shift
            ;;
        *) what=$1 ;;
    esac
    shift
done
table=$tables/$who
mkdir -p "$tables"
case $what in
    -l)
        [ -f "$table" ] || {
            echo "no crontab for $who" >&2
            exit 1
        }
        cat "$table"
        ;;
    -r) rm -f "$table" ;;
    '' | -) cat >"$table.new" && mv "$table.new" "$table" ;;
    -*)
        echo "crontab: a stand-in host does not know '$what'" >&2
        exit 1
        ;;
    *) cat -- "$what" >"$table.new" && mv "$table.new" "$table" ;;
esac
