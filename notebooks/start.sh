#!/usr/bin/env bash
# Opens the notebooks of this folder in JupyterLab, with the built library, the Spark connector and the sample data at hand. The
# sources are plain Python (jupytext); what is opened, and may be changed freely, are copies in build/notebooks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p build/notebooks
for source in notebooks/[0-9]*.py; do
    copy=build/notebooks/$(basename "${source%.py}").ipynb
    [[ -e $copy && ! $source -nt $copy ]] || .venv/bin/jupytext --quiet --to ipynb --output "$copy" "$source"
done
export PYTHONPATH=$PWD/build/release/python SAPWOOD_COMMAND=$PWD/build/release/bin/sapwood SAPWOOD_ROOT=$PWD
export PYSPARK_PYTHON=$PWD/.venv/bin/python
exec .venv/bin/jupyter lab --notebook-dir build/notebooks "$@"
