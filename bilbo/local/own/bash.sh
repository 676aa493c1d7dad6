#!/bin/sh
# A stand-in host's bash: a login shell's profile files may set PATH anew, and must not lead to the
# programs of the machine underneath.
own=${0%/*}
export BILBO_OWN_PROGRAMS="$own"
flags='' words=0
for word in "$@"; do
    case $word in
        --login) flags=${flags}l ;;
        '' | - | [!-]* | -*[!lice]*) break ;;
        *) flags=$flags${word#-} ;;
    esac
    words=$((words + 1))
done
case $flags in
    *l*c* | *c*l*) ;;
    *) exec /bin/bash "$@" ;;
esac
shift "$words"
[ $# -gt 0 ] || exec /bin/bash "-$flags"
command="PATH=\$BILBO_OWN_PROGRAMS:\$PATH
$1"
shift
exec /bin/bash "-$flags" "$command" "$@"
