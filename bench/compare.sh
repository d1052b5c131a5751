#!/usr/bin/env bash
# Benchmarks beside their peers: read, prepare, train, remote; all of them when none is named. Results go to bench/results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
(( $# )) || set -- read prepare train remote
for name in "$@"; do
    [[ -e bench/$name.py ]] || { echo "bench: there are read, prepare, train and remote, not \"$name\"" >&2; exit 2; }
    .venv/bin/python "bench/$name.py"
done
