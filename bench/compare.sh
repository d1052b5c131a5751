#!/usr/bin/env bash
# Benchmarks beside their peers; all but gpu, which needs one, when none is named. Results go to bench/results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
all="read prepare train classifiers compiled remote mpi tune tensorflow_workers spark_source spark_recipe spark_estimator"
for name in ${*:-$all}; do
    [[ " $all gpu " == *" $name "* ]] || { echo "bench: there are $all and gpu, not \"$name\"" >&2; exit 2; }
    .venv/bin/python "bench/$name.py"
done
