#!/usr/bin/env bash
# All tests: C tests (release, then with sanitizers), then Python tests against the built library, two at a time. Any argument is
# handed to pytest, and then only the Python tests run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }

build() {
    [[ -e build/$1/build.ninja ]] || cmake --preset "$1" >/dev/null
    cmake --build --preset "$1" -- --quiet
}

python_tests() {
    step "Python tests"
    PYTHONPATH=build/release/python SAPWOOD_COMMAND=$PWD/build/release/bin/sapwood SAPWOOD_BUILD=$PWD/build/release \
        .venv/bin/python -m pytest -q -ra -p no:cacheprovider "$@"
}

step "build release"
build release
if (( $# )); then
    python_tests "$@"
    exit
fi
step "C tests"
ctest --preset release -j 2 --output-on-failure
step "build asan"
build asan
step "C tests with address and undefined-behaviour sanitizers"
ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 ctest --preset asan -j 2 --output-on-failure
step "build tsan"
build tsan
step "threaded C tests with the thread sanitizer"
ctest --preset tsan -j 2 --output-on-failure -L threads
python_tests -n 2 --dist loadscope --no-loadscope-reorder tests
