#!/usr/bin/env bash
# Fuzzes the parsers that read what others write, each for a while: tests/fuzz/run.sh [SECONDS-PER-TARGET] [TARGET…]
# What is found interesting is kept in the target directory and taken up again by the next run; a crash, a hang
# or too much memory ends the run with exit 1 and leaves the input there, ready for tests/fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup.sh
. tests/setup.sh
seconds=${1:-60}
shift || true
setup_build
setup_packages g++=g++

# What cargo-fuzz passes, without the sanitizers, which need another compiler: safe Rust has little use for
# them, and the memory is counted by the allocator.
coverage='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4'
coverage+=' -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table'
coverage+=' -Cllvm-args=-sanitizer-coverage-trace-compares'
# The crate has no lock file of its own to keep: its dependencies are those that dkv is built with.
cp Cargo.lock tests/fuzz/libfuzzer/Cargo.lock
work=$setup_target/fuzz
mkdir -p "$work"
work=$(realpath "$work")
RUSTFLAGS=$coverage cargo build --release --manifest-path tests/fuzz/libfuzzer/Cargo.toml --target-dir "$work/build" \
    --target "$(rustc -vV | sed -n 's/^host: //p')"
fuzz=$(echo "$work"/build/*/release/dkv-fuzz)

status=0
for corpus in tests/fuzz/corpus/*/; do
    target=$(basename "$corpus")
    [ $# -eq 0 ] || [[ " $* " == *" $target "* ]] || continue
    mkdir -p "$work/$target" "$work/found"
    echo "$target: $seconds s"
    DKV_FUZZ_TARGET=$target "$fuzz" -max_total_time="$seconds" -max_len=65536 -len_control=20 -timeout=2 -rss_limit_mb=2048 \
        -dict=tests/fuzz/words.txt -artifact_prefix="$work/found/$target-" -print_final_stats=1 \
        "$work/$target" "$corpus" >"$work/$target.log" 2>&1 || {
        status=1
        tail -n 40 "$work/$target.log"
    }
    grep -E '^stat::(number_of_executed_units|peak_rss_mb|slowest_unit_time_sec)' "$work/$target.log" || true
done
exit "$status"
