#!/usr/bin/env bash
# Opens the notebooks of this folder in JupyterLab, with the built library, the Spark connector and the sample data at hand. The
# sources are plain Python (jupytext); what is opened, and may be changed freely, are copies in build/notebooks. `start.sh publish`
# runs them all instead, and writes what they give to docs/notebooks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD/build/release/python:$PWD/notebooks SAPWOOD_COMMAND=$PWD/build/release/bin/sapwood SAPWOOD_ROOT=$PWD
export PYSPARK_PYTHON=$PWD/.venv/bin/python
if [[ ${1:-} == publish ]]; then
    exec .venv/bin/python notebooks/publish.py
fi
mkdir -p build/notebooks
for source in notebooks/[0-9]*.py; do
    copy=build/notebooks/$(basename "${source%.py}").ipynb
    [[ -e $copy && ! $source -nt $copy ]] || .venv/bin/jupytext --quiet --to ipynb --output "$copy" "$source"
done
exec .venv/bin/jupyter lab --notebook-dir build/notebooks "$@"
