#!/bin/sh
# A stand-in host's reboot, shutdown and the like: they ask the stand-in for it, for this host alone.
host=${0%/*/*}
name=${0##*/}
what=poweroff
case $name in
    reboot) what=reboot ;;
    init | telinit)
        case ${1-} in
            0) ;;
            6) what=reboot ;;
            *)
                echo "$name: a stand-in host knows 0 and 6" >&2
                exit 1
                ;;
        esac
        ;;
esac
for word in "$@"; do
    case $word in
        -r | --reboot) what=reboot ;;
        -c | -k | --show | --help) exit 0 ;;
    esac
done
if [ -z "${SUDO_USER-}" ] && [ "${USER-}" != root ]; then
    echo "$name: Interactive authentication required." >&2
    exit 1
fi
asked=${host%/*/*}/power
mkdir -p "$asked"
printf '%s\n' "$what" >"$asked/.${host##*/}" && mv "$asked/.${host##*/}" "$asked/${host##*/}"
