#!/usr/bin/env bash
# Benchmarks beside their peers: read, prepare, train, classifiers, compiled, remote, tune, and gpu where one is; all but the last when none is named. Results go to bench/results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
(( $# )) || set -- read prepare train classifiers compiled remote tune
for name in "$@"; do
    [[ -e bench/$name.py ]] || { echo "bench: there are read, prepare, train, classifiers, compiled, remote, tune and gpu, not \"$name\"" >&2; exit 2; }
    .venv/bin/python "bench/$name.py"
done
