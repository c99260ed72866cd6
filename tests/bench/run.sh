#!/usr/bin/env bash
# Measures dkv against what a user would otherwise run: tests/bench/run.sh [start|record|network|updates]
# Figures are ratios within one run; nothing here fails because of a time.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup.sh
. tests/setup.sh
what=${1:-all}
setup_all build compose registry tests
trap setup_stop EXIT

manifest() { # the number of services
    awk -v count="$1" 'BEGIN {
        print "schema_version: \x271.1\x27\ndeployment_id: bench\nservices:"
        for (i = 0; i < count; i++)
            printf "  service_%d:\n    image: registry.example/bench/service_%d\n    current_tag: \x271.5\x27\n    image_digest: sha256:%064d\n    deployed_at: \x272026-01-12T12:29:08Z\x27\n    deployed_by: alice\n", i, i, i * 10 + 5
        print "history:"
        for (i = 0; i < count; i++) {
            printf "  service_%d:\n", i
            for (r = 5; r > 0; r--)
                printf "  - {tag: \x271.%d\x27, digest: \x27sha256:%064d\x27, deployed_at: \x272026-01-12T12:29:08Z\x27, deployed_by: alice, status: %s}\n", r, i * 10 + r, r == 5 ? "current" : "archived"
        }
    }'
}

start() {
    cargo build --release
    local dkv scratch size
    dkv=$(realpath "$setup_target")/release/dkv
    scratch=$(mktemp -d)
    for size in 9 500 1000; do
        mkdir "$scratch/$size"
        manifest $size >"$scratch/$size/version-manifest.yaml"
        "$dkv" -q -C "$scratch/$size" generate-env
    done
    echo "binary: $(stat -c %s "$dkv") bytes"
    hyperfine -N --warmup 20 --runs 200 --export-json "$scratch/start.json" /bin/true \
        "$dkv -C $scratch/9 version" "$dkv -C $scratch/9 generate-env"
    hyperfine -N --warmup 5 --export-json "$scratch/size.json" "$dkv -C $scratch/500 version" \
        "$dkv -C $scratch/1000 version" "$dkv -C $scratch/1000 generate-env"
    python3 - "$scratch/start.json" "$scratch/size.json" <<'PYTHON'
import json, sys
start, size = ([one["median"] * 1000 for one in json.load(open(path))["results"]] for path in sys.argv[1:])
print(f"9 services: version {start[1] / start[0]:.1f}, generate-env {start[2] / start[0]:.1f} times /bin/true")
print(f"1,000 services: version {size[1]:.1f} ms, {size[1] / size[0]:.2f} times 500 services; generate-env {size[2]:.1f} ms")
PYTHON
    rm -r "$scratch"
}

case $what in
    start) start ;;
    record | network | updates) cargo bench --features fuzzing --bench bench -- "$what" ;;
    all) start && cargo bench --features fuzzing --bench bench ;;
    *) echo "usage: tests/bench/run.sh [start|record|network|updates]" >&2 && exit 2 ;;
esac
