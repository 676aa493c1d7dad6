#!/bin/bash
# Installs what bilbo's clusters run, on Ubuntu or Debian. Packer runs it on the machine that becomes
# an image; running it again changes nothing that is already so. It takes from the environment:
#
#   BILBO_REQUIREMENTS  the pip requirements file          [bilbo-requirements.txt]
#   BILBO_EXTRA         further requirements, one a line; they may not contradict the file
#   BILBO_PACKAGES      further packages of the system, with spaces between
#   BILBO_PYTHON        Python's minor version             [3.12]
#   BILBO_ROOT          the folder to install into         [/]
#                       Another than / gets no packages of the system: apt knows the running one only.
set -euo pipefail

requirements=$(realpath "${BILBO_REQUIREMENTS:-bilbo-requirements.txt}")
extra=${BILBO_EXTRA:-}
python=python${BILBO_PYTHON:-3.12}
mkdir -p "${BILBO_ROOT:-/}"
root=$(realpath "${BILBO_ROOT:-/}")
root=${root%/}
read -ra packages <<<"${BILBO_PACKAGES:-}"

if [ "$(id -u)" != 0 ] && [ ! -w "${root:-/}" ]; then
    kept=BILBO_REQUIREMENTS,BILBO_EXTRA,BILBO_PACKAGES,BILBO_PYTHON,BILBO_ROOT
    exec sudo --preserve-env="$kept" bash "$0"
fi

export DEBIAN_FRONTEND=noninteractive
# Where pip installs is decided here, and by nobody's settings.
unset PIP_TARGET PIP_PREFIX PIP_USER PYTHONPATH PYTHONHOME

venv=$root/opt/bilbo/venv

say() {
    printf 'bilbo: %s\n' "$*"
}

wait_for_boot() {
    command -v cloud-init >/dev/null || return 0
    say "waiting for cloud-init"
    local code=0
    cloud-init status --wait >/dev/null || code=$?
    # 2 means that it is done and has warned of something.
    if [ "$code" != 0 ] && [ "$code" != 2 ]; then
        cloud-init status --long
        return 1
    fi
}

# apt waits for its installation lock by itself, for that of its lists it does not.
update_lists() {
    local deadline=$((SECONDS + 600))
    until apt-get -o DPkg::Lock::Timeout=600 -qq update; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            say "apt-get update did not succeed in 10 minutes"
            return 1
        fi
        sleep 5
    done
}

install_system_packages() {
    if [ -n "$root" ]; then
        say "no packages of the system: apt cannot install into $root"
        return
    fi
    say "installing packages of the system"
    update_lists
    apt-get -o DPkg::Lock::Timeout=600 -qq install --yes --no-install-recommends \
        ca-certificates git graphviz nodejs "$python-venv" "${packages[@]}"
    apt-get clean
}

install_python_packages() {
    command -v "$python" >/dev/null || {
        say "there is no $python here; the variable python must name the base's own, or" \
            "extra_packages bring it"
        return 1
    }
    say "installing Python packages into $venv"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    local pip=("$venv/bin/python" -m pip install --no-cache-dir --progress-bar=off)
    "${pip[@]}" --requirement "$requirements"
    if [ -n "$extra" ]; then
        "${pip[@]}" --constraint "$requirements" --requirement /dev/stdin <<<"$extra"
    fi
    "$venv/bin/python" -m pip check
    "$venv/bin/python" -m pip freeze >"$root/opt/bilbo/versions.txt"
    # So that the user whom clusters log in as can add to it: init_cmd and packages of a profile do.
    chown -R "${SUDO_UID:-$(id -u)}:${SUDO_GID:-$(id -g)}" "$venv"
}

# PAM reads /etc/environment for every session, also for `ssh HOST COMMAND`, where no shell reads a
# profile. Login shells may set PATH anew in /etc/profile; profile.d comes after that.
put_on_path() {
    local environment=$root/etc/environment profile=$root/etc/profile.d/bilbo.sh path
    mkdir -p "$root/etc/profile.d"
    touch "$environment"
    path=$(sed -n 's/^PATH="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$environment" | tail -n 1)
    path=${path:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
    case ":$path:" in
        *":$venv/bin:"*) ;;
        *) path=$venv/bin:$path ;;
    esac
    sed -i '/^PATH=/d' "$environment"
    printf 'PATH="%s"\n' "$path" >>"$environment"
    cat >"$profile" <<END
case ":\$PATH:" in
    *":$venv/bin:"*) ;;
    *) PATH=$venv/bin:\$PATH ;;
esac
END
}

wait_for_boot
install_system_packages
install_python_packages
put_on_path
say "$("$venv/bin/python" --version) and $(wc -l <"$root/opt/bilbo/versions.txt") packages are in $venv"
