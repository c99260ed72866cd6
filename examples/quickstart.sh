#!/usr/bin/env bash
# Shows dkv at work from nothing: a throwaway registry on loopback, a vendor who publishes a product of three
# services, and an operator who updates it and takes the update back. Needs Debian with Rust and git, and root
# (or sudo) where Docker is not installed yet. Removes everything that it made, also when interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/setup.sh
. tests/setup.sh

name=dkvquickstart$$
work=$(mktemp -d)
registry_pid=

cleanup() {
    local status=$? left
    trap - EXIT INT TERM
    cd /
    if docker version >/dev/null 2>&1; then
        left=$(docker ps -aq --filter "label=com.docker.compose.project=$name")
        [ -z "$left" ] || xargs docker rm -f -v <<<"$left" >/dev/null || true
        left=$(docker network ls -q --filter "label=com.docker.compose.project=$name")
        [ -z "$left" ] || xargs docker network rm <<<"$left" >/dev/null || true
        left=$(docker images -aq --filter "label=dkv.quickstart=$name" | sort -u)
        [ -z "$left" ] || xargs docker rmi -f <<<"$left" >/dev/null || true
    fi
    [ -z "$registry_pid" ] || kill "$registry_pid" 2>/dev/null || true
    rm -rf "$work"
    setup_stop
    if [ "$status" -eq 0 ]; then
        printf '\nAll of it is gone again: containers, images, network, registry and files.\n'
    else
        printf '\nquickstart: failed with status %s; everything it made has been removed.\n' "$status" >&2
    fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    printf 'quickstart: %s\n' "$*" >&2
    exit 1
}

chapter() { printf '\n== %s ==\n' "$*"; }

# Shows a command of the operator's and runs it as it is.
operator() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# Starts the registry on a loopback port that is free.
start_registry() {
    local try
    for try in $(seq 20); do
        registry=127.0.0.1:$((20000 + RANDOM % 12000))
        printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "%s"}\n' "$work/registry" "$registry" >"$work/registry.yml"
        "$setup_tools/docker-registry" serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
        registry_pid=$!
        while kill -0 "$registry_pid" 2>/dev/null; do
            ! grep -q "listening on $registry" "$work/registry.log" || return 0
            sleep 0.05
        done
        wait "$registry_pid" || true
        registry_pid=
    done
    fail "the registry does not start ($try ports tried): $(tail -n1 "$work/registry.log")"
}

# What a vendor's build does: an image of one static binary and a file that says the version, pushed under
# that version and as the moving tag `latest`. The daemon keeps nothing of it.
publish() {
    local service=$1 version=$2 root=$work/image
    local repository=$registry/$name/$service
    mkdir -p "$root/bin"
    cp "$setup_tools/busybox" "$root/bin/busybox"
    ln -sf busybox "$root/bin/sh"
    ln -sf busybox "$root/bin/cat"
    echo "$version" >"$root/version"
    tar -C "$root" -c . | docker import \
        --change "LABEL dkv.quickstart=$name" \
        --change 'ENV PATH=/bin' \
        --change 'HEALTHCHECK --interval=1s --retries=5 CMD ["/bin/busybox", "test", "-f", "/version"]' \
        --change 'CMD ["/bin/sh", "-c", "trap \"exit 0\" TERM; while :; do /bin/busybox sleep 60 & wait $!; done"]' \
        - "$repository:$version" >/dev/null
    docker tag "$repository:$version" "$repository:latest"
    docker push --quiet "$repository:$version" >/dev/null
    docker push --quiet "$repository:latest" >/dev/null
    docker rmi "$repository:$version" "$repository:latest" >/dev/null
    printf 'published %s:%s, which is latest now\n' "$repository" "$version"
}

# Looks into the running container of a service and compares.
expect() {
    local service=$1 version=$2 container found
    container=$(docker ps -q --filter "label=com.docker.compose.project=$name" --filter "label=com.docker.compose.service=$service")
    [ -n "$container" ] || fail "$service does not run"
    found=$(docker exec "$container" cat /version)
    [ "$found" = "$version" ] || fail "$service runs $found, expected $version"
    printf '   checked inside the container: %s runs %s\n' "$service" "$version"
}

chapter "Building dkv"
setup_all build docker registry
if ! docker compose version >/dev/null 2>&1; then
    setup_compose_v2
    export DOCKER_CONFIG=$setup_tools
fi
cargo build --release
PATH=$(realpath "$setup_target")/release:$PATH
export PATH

chapter "The vendor publishes release 1.0 of a product: web, api and db"
start_registry
for service in web api db; do publish "$service" 1.0; done

deployment=$work/$name
mkdir "$deployment"
cd "$deployment"
cat >docker-compose.yml <<EOF
services:
  web:
    image: \${DK_WEB_IMAGE:-$registry/$name/web}:\${DK_WEB_TAG:-latest}
  api:
    image: \${DK_API_IMAGE:-$registry/$name/api}:\${DK_API_TAG:-latest}
EOF
cat >db-docker-compose.yml <<EOF
services:
  db:
    image: \${DK_DB_IMAGE:-$registry/$name/db}:\${DK_DB_TAG:-latest}
EOF
cat >version-manifest.yaml <<EOF
schema_version: '1.1'
deployment_id: quickstart
services:
  web:
    image: $registry/$name/web
    current_tag: latest
    image_digest: ''
  api:
    image: $registry/$name/api
    current_tag: latest
    image_digest: ''
  db:
    image: $registry/$name/db
    current_tag: latest
    image_digest: ''
EOF

chapter "The operator installs it"
operator dkv pull-latest
operator dkv restart
for service in web api db; do expect "$service" 1.0; done
operator dkv version

chapter "The vendor publishes release 1.1 of web and api"
for service in web api; do publish "$service" 1.1; done

chapter "The operator updates"
operator dkv pull-latest
operator dkv restart
expect web 1.1
expect api 1.1
expect db 1.0

chapter "That was a mistake: back to 1.0, although latest is 1.1 now"
operator dkv rollback -y
operator dkv restart
for service in web api db; do expect "$service" 1.0; done

operator dkv version
operator dkv version-history
