#!/usr/bin/env bash
# Engines that people install today (Debian sid's), beside the machine's own: run it, or source it.
#
#   tests/engines.sh setup               provides them; minutes the first time, nothing afterwards
#   tests/engines.sh with KIND CMD…      runs CMD with a new engine in the place of the machine's
#
# KIND: classic | containerd (Engine 28 with either image store) | podman. DKV_TEST_MIN_API=1.44 lets the engine
# refuse older clients. Sid and its packages are kept in $DKV_TEST_ENGINES (/var/cache/dkv-engines); an engine has a
# mount and process namespace of its own, in which sid is the root and /tmp, /dev, /sys and the certificates of
# registries are the machine's. The engine's data go when CMD ends. CMD finds the engine at /var/run/docker.sock,
# and the machine's at $DKV_TEST_OTHER_ENGINE.

engines_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tests/setup.sh
[ -n "${setup_root:-}" ] || . "$engines_root/tests/setup.sh"
engines_cache=${DKV_TEST_ENGINES:-/var/cache/dkv-engines}
engines_sid=$engines_cache/sid
engines_packages="docker.io docker-cli docker-buildx containerd runc iptables busybox-static tini podman crun netavark conmon ca-certificates iproute2"

# Why the engines cannot be had here, if they cannot.
engines_missing() {
    [ "$(id -u)" -eq 0 ] || { echo "this is not root"; return; }
    unshare --mount --pid --fork true 2>/dev/null || { echo "this machine gives no namespaces"; return; }
    [ -z "${DOCKER_HOST:-}" ] || { echo "DOCKER_HOST is set"; return; }
}

# Provides sid with its engines; says in one line why not and fails where that is impossible.
engines_setup() {
    local why
    why=$(engines_missing)
    [ -z "$why" ] || setup_fail "no other engines: $why" || return
    [ ! -x "$engines_sid/usr/sbin/dockerd" ] || [ ! -x "$engines_sid/usr/bin/podman" ] || return 0
    setup_packages debootstrap=debootstrap || setup_fail "no other engines: no debootstrap" || return
    mkdir -p "$engines_cache" || return
    (
        flock 9
        [ ! -x "$engines_sid/usr/bin/podman" ] || exit 0
        setup_say "making Debian sid in $engines_sid, which takes some minutes"
        rm -rf --one-file-system "$engines_sid"
        debootstrap --variant=minbase sid "$engines_sid" >"$engines_cache/log" 2>&1 || exit
        # No package may start its service.
        printf '#!/bin/sh\nexit 101\n' >"$engines_sid/usr/sbin/policy-rc.d"
        chmod +x "$engines_sid/usr/sbin/policy-rc.d"
        cp /etc/resolv.conf "$engines_sid/etc/resolv.conf"
        # A mirror that stands still is older than its own limit. What needs /proc gets it in a namespace.
        # shellcheck disable=SC2016 # the inner shell expands them
        unshare --mount --pid --fork sh -c 'mount -t proc proc "$1/proc" && shift && exec "$@"' sh "$engines_sid" \
            chroot "$engines_sid" env DEBIAN_FRONTEND=noninteractive sh -c \
            "apt-get -o Acquire::Check-Valid-Until=false update -q && apt-get install -y -q --no-install-recommends $engines_packages" \
            >>"$engines_cache/log" 2>&1
    ) 9>"$engines_cache/lock" || setup_fail "no other engines: see $engines_cache/log"
}

engines_docker0() { ip link show docker0 >/dev/null 2>&1; }

# A new engine of this kind in $engines_home, listening at $engines_home/docker.sock.
engines_start() {
    local kind=$1 number command snapshotter=false variables=
    # Not in $TMPDIR: the engine sees the machine's /tmp, and the path of a socket must be short.
    engines_home=$(mktemp -d "/tmp/${DKV_TEST_RUN:-dkvt$$}-engine.XXXXXX") || return
    # A bridge of its own: an engine without one deletes the machine's.
    number=$((RANDOM % 16000))
    engines_bridge=dkvte$number
    [ "$kind" != containerd ] || snapshotter=true
    [ -z "${DKV_TEST_MIN_API:-}" ] || variables=DOCKER_MIN_API_VERSION=$DKV_TEST_MIN_API
    case $kind in
        classic | containerd)
            ip link add "$engines_bridge" type bridge
            ip address add "198.$((18 + number % 2)).$((number / 2 % 256)).1/24" dev "$engines_bridge"
            ip link set "$engines_bridge" up
            cat >"$engines_home/daemon.json" <<JSON
{"data-root": "$engines_home/data", "exec-root": "$engines_home/exec", "pidfile": "$engines_home/docker.pid",
 "hosts": ["unix://$engines_home/docker.sock"], "bridge": "$engines_bridge", "iptables": false, "ip6tables": false,
 "ip-forward": false, "ip-masq": false, "features": {"containerd-snapshotter": $snapshotter}}
JSON
            command="dockerd --config-file $engines_home/daemon.json"
            ;;
        podman)
            # What Docker does by itself for the machine's own addresses.
            printf '[[registry]]\nprefix = "127.0.0.1"\nlocation = "127.0.0.1"\ninsecure = true\n' >"$engines_home/registries.conf"
            variables="CONTAINERS_REGISTRIES_CONF=$engines_home/registries.conf"
            command="podman --runtime /usr/sbin/runc --cgroup-manager cgroupfs --root $engines_home/data --runroot $engines_home/run system service --time 0 unix://$engines_home/docker.sock"
            ;;
        *) setup_fail "no engine is called $kind" || return ;;
    esac
    mkdir -p "$engines_sid/.old" /etc/docker/certs.d "$engines_sid/etc/docker/certs.d"
    cat >"$engines_home/init" <<INIT
set -e
mount --make-rprivate /
mount --bind $engines_sid $engines_sid
cd $engines_sid
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount --rbind /tmp tmp
mount -t tmpfs tmpfs run
touch etc/hosts
mount --bind /etc/hosts etc/hosts
mount --bind /etc/docker/certs.d etc/docker/certs.d
pivot_root . .old
umount -l /.old
cd /
exec /usr/bin/tini-static -s -g -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root $variables $command
INIT
    setsid unshare --mount --pid --fork --kill-child=KILL sh "$engines_home/init" >"$engines_home/log" 2>&1 </dev/null &
    engines_pid=$!
    local try
    for try in $(seq 600); do
        ! curl -sf --max-time 5 --unix-socket "$engines_home/docker.sock" http://d/_ping >/dev/null 2>&1 || return 0
        kill -0 "$engines_pid" 2>/dev/null || break
        sleep 0.1
    done
    tail -5 "$engines_home/log" >&2
    setup_fail "the engine $kind did not start (after $try tries)"
}

# Ends the engine that engines_start started, with its containers, and takes its data away.
engines_stop() {
    [ -n "${engines_pid:-}" ] || return 0
    local first try
    first=$(cut -d' ' -f1 "/proc/$engines_pid/task/$engines_pid/children" 2>/dev/null || true)
    [ -z "$first" ] || kill -TERM "$first" 2>/dev/null || true
    for try in $(seq 150); do
        kill -0 "$engines_pid" 2>/dev/null || break
        sleep 0.1
    done
    [ "$try" -lt 150 ] || kill -KILL "$engines_pid" 2>/dev/null || true
    wait "$engines_pid" 2>/dev/null || true
    ip link delete "$engines_bridge" 2>/dev/null || true
    awk -v made="$engines_home/" 'index($2, made) == 1 {print $2}' /proc/mounts | tac | xargs -r -n1 umount -l || true
    rm -rf --one-file-system "$engines_home"
    engines_pid=
}

# Runs a command with a new engine where the machine's is, in a mount namespace of its own.
engines_with() {
    local kind=$1 had_bridge=no outcome=0
    shift
    engines_setup || return
    ! engines_docker0 || had_bridge=yes
    engines_start "$kind" || { engines_stop; return 1; }
    touch "$engines_home/machine.sock"
    # shellcheck disable=SC2016 # the inner shell expands them
    DKV_TEST_ENGINE=$kind DKV_TEST_OTHER_ENGINE=$engines_home/machine.sock \
        unshare --mount sh -c '
            mount --make-rprivate / && mount --bind /var/run/docker.sock "$1/machine.sock" &&
                mount --bind "$1/docker.sock" /var/run/docker.sock && shift && exec "$@"' \
        sh "$engines_home" "$@" || outcome=$?
    engines_stop
    [ "$had_bridge" = no ] || engines_docker0 || setup_fail "the machine's docker0 is gone" || return
    return "$outcome"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    trap engines_stop EXIT
    trap 'exit 130' INT TERM
    case ${1:-} in
        setup) engines_setup ;;
        with) shift && engines_with "$@" ;;
        *) sed -n '2,5p' "$0" >&2 && exit 2 ;;
    esac
fi
