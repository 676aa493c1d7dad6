#!/bin/sh
# A stand-in host's sudo: the same user, who may now do what root may on this host.
own=${0%/*}
host=${own%/*}
if [ -f "$host/etc/refuses" ] && grep -qx sudo "$host/etc/refuses"; then
    echo "sudo: a password is required" >&2
    exit 1
fi
shell=''
while [ $# -gt 0 ]; do
    case $1 in
        --)
            shift
            break
            ;;
        -[ugUpCTRDh] | --user | --group | --prompt | --chdir) shift ;;
        -i | -s | --login | --shell) shell=1 ;;
        -l | -v | -k | -K | --list | --validate | --reset-timestamp)
            [ $# -gt 1 ] || exit 0
            ;;
        -*) ;;
        [A-Za-z_]*=*) export "${1?}" ;;
        *) break ;;
    esac
    [ $# -eq 0 ] || shift
done
export SUDO_USER="${USER:-root}" PATH="$own:$PATH"
if [ -n "$shell" ]; then
    [ $# -eq 0 ] && exec "$own/bash" -l
    exec "$own/bash" -lc "$*"
fi
if [ $# -eq 0 ]; then
    echo "usage: sudo [-n] COMMAND" >&2
    exit 1
fi
case $1 in
    /*)
        if [ -e "$own/${1##*/}" ] && [ "$1" != "$own/${1##*/}" ] && [ "${1##*/}" != bash ]; then
            echo "sudo: $1 is the machine's underneath: call it ${1##*/} on a stand-in host" >&2
            exit 1
        fi
        ;;
esac
exec "$@"
