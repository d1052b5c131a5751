#!/usr/bin/env bash
# Benchmarks beside their peers: prepare, train, or both. Results go to bench/results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for name in "${@:-prepare train}"; do
    for one in $name; do
        [[ -e bench/$one.py ]] || { echo "bench: there are prepare and train, not \"$one\"" >&2; exit 2; }
        .venv/bin/python "bench/$one.py"
    done
done
