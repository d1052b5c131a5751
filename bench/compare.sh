#!/usr/bin/env bash
# Benchmarks beside their peers: prepare, train, or both. Results go to bench/results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
(( $# )) || set -- prepare train
for name in "$@"; do
    [[ -e bench/$name.py ]] || { echo "bench: there are prepare and train, not \"$name\"" >&2; exit 2; }
    .venv/bin/python "bench/$name.py"
done
