#!/usr/bin/env bash
# What takes too long for every test run: each fuzz target for minutes, the damage sweep over all files there are, and a file of
# more than 2 GB. One line for each with what was done and found; the exit status is 1 when something was found.
# Usage: soak.sh [TARGET…]   (fuzz targets, `damage`, `large`, `kill`, `support`, `standalone`; all when none is named)
# SOAK_SECONDS: of CPU time for each fuzz target (600), SOAK_PLACES: seeded places of damage in each file (2000), SOAK_SEED.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${SOAK_SECONDS:-600} places=${SOAK_PLACES:-2000} seed=${SOAK_SEED:-$(date +%s)}
data=${SAPWOOD_DATA:-../shared/data}
corpus=tests/fuzz/corpus found_folder=build/soak/findings
targets=$(sed -n 's/^set(targets \(.*\))$/\1/p' tests/fuzz/CMakeLists.txt)
findings=0
mkdir -p build/soak "$found_folder"

build() {
    [[ -e build/$1/build.ninja ]] || cmake --preset "$1" >/dev/null
    cmake --build --preset "$1" ${2:+--target "$2"} -- --quiet | { grep -v "no work to do" || true; } >&2
}

# report NAME STATUS FIGURES
report() {
    if (( $2 == 0 )); then
        printf '%-10s ok     %s\n' "$1" "$3"
    else
        printf '%-10s FOUND  %s\n' "$1" "$3"
        findings=1
    fi
}

# stop_after PROCESS: lets it go on until it has had its CPU time (so other work on the machine takes nothing from it), then asks
# libFuzzer to end in good order.
stop_after() {
    local ticks fields
    ticks=$(getconf CLK_TCK)
    while read -r -a fields 2>/dev/null <"/proc/$1/stat" && [[ ${fields[2]} != Z ]]; do
        if (( (fields[13] + fields[14]) / ticks >= seconds )); then
            kill -USR1 "$1" 2>/dev/null
            return
        fi
        sleep 2
    done
}

fuzz() {
    local seeds=$corpus/$1 grown=build/soak/corpus/$1 log=build/soak/$1.log status=0
    [[ $1 == file ]] && seeds=$corpus/columns # the same inputs
    mkdir -p "$grown"
    build fuzz "fuzz_$1"
    [[ $1 == keras ]] && build fuzz sapwood-keras
    ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
        "build/fuzz/fuzz/fuzz_$1" -timeout=60 -rss_limit_mb=3000 -max_len=65536 -seed="$seed" \
        -print_final_stats=1 -artifact_prefix="$found_folder/$1-" "$grown" "$seeds" >"$log" 2>&1 &
    local fuzzer=$!
    stop_after "$fuzzer"
    wait "$fuzzer" || status=$?
    local runs
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    local coverage
    coverage=$(sed -n 's/.*cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
    local what="${runs:-0} inputs in $seconds s of CPU time, ${coverage:-0} edges, seed $seed"
    (( status == 0 )) || what+="; $(grep -m1 -E '^SUMMARY|allocated,' "$log" || echo "status $status"), see $log"
    report "$1" "$status" "$what"
}

damage() {
    build asan root_test_damage
    local status=0 files=() log=build/soak/damage.log
    mapfile -t files < <(find $corpus/columns "$data/corpus" -name '*.root' -size -200k 2>/dev/null | sort)
    ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 build/asan/tests/root_test_damage "$places" "${files[@]}" \
        >"$log" 2>&1 || status=$?
    report damage "$status" "${#files[@]} files, each cut at up to 4096 lengths and damaged at $places places; log $log"
}

large() {
    build release product
    local status=0 log=build/soak/large.log
    PYTHONPATH=build/release/python SAPWOOD_COMMAND=$PWD/build/release/bin/sapwood SAPWOOD_BUILD=$PWD/build/release SAPWOOD_SOAK=1 \
        .venv/bin/python -m pytest -q -p no:cacheprovider tests/root/test_large.py >"$log" 2>&1 || status=$?
    report large "$status" "$(tail -1 "$log")"
}

# A standalone master of Spark with two workers, as docs/cluster.md has it.
standalone() {
    build release all
    local status=0 log=build/soak/standalone.log
    PYTHONPATH=build/release/python SAPWOOD_COMMAND=$PWD/build/release/bin/sapwood SAPWOOD_BUILD=$PWD/build/release SAPWOOD_SOAK=1 \
        .venv/bin/python -m pytest -q -p no:cacheprovider tests/spark/test_standalone.py >"$log" 2>&1 || status=$?
    report standalone "$status" "$(tail -1 "$log")"
}

# A training that is killed at random moments, ten times over, gives the same weights as one that was left alone.
kills() {
    build release nn_test_training
    local status=0 done=0 log=build/soak/kill.log
    : >"$log"
    while (( done < 10 )) && build/release/tests/nn_test_training test_kill >>"$log" 2>&1; do
        done=$((done + 1))
    done
    (( done == 10 )) || status=1
    report kill "$status" "$done of 10 trainings, each killed three times; log $log"
}

# The table of what is read by whom, in docs/support.md, measured anew.
support() {
    build release product
    [[ -e build/peers/node_modules/jsroot ]] || ! command -v npm >/dev/null ||
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/peers jsroot >&2
    local status=0
    PYTHONPATH=build/release/python .venv/bin/python tests/support_table.py write >build/soak/support.log 2>&1 || status=$?
    report support "$status" "docs/support.md; log build/soak/support.log"
}

for target in ${*:-$targets damage large kill support standalone}; do
    case $target in
    damage | large | support | standalone) "$target" ;;
    kill) kills ;;
    *)
        [[ " $targets " == *" $target "* ]] || { echo "soak: no target $target; there are: $targets damage large kill support standalone" >&2; exit 2; }
        fuzz "$target"
        ;;
    esac
done
exit "$findings"
