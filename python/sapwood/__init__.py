"""From ROOT files to trained networks.

    import sapwood

    tree = sapwood.open("events.root:Delphes")
    events = tree.awkward(["Jet.*"], where="Jet_size >= 2")
    table = tree.arrow(["Jet.PT", "Jet.Eta"])           # a pyarrow.Table
    frame = polars.from_arrow(tree.select(["Jet.PT"]))  # anything that takes __arrow_c_stream__

    sapwood.prepare(sample={"qcd": "qcd.root", "ttbar": "ttbar*.root"}, out="dataset")
    sapwood.train(data="dataset", model="hlf.keras", out="run", epochs=20)
    print(sapwood.evaluate(run="run", data="dataset")["accuracy"])

The stages take the options of the command line, with `_` for `-`, and return what `sapwood STAGE --json` prints.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from . import _core
from ._core import Error, NotFoundError
from ._histogram import Axis, Histogram
from ._reading import Column, File, Selection, Tree, compare, concatenate, export, iterate, open

__all__ = [
    "Axis", "Column", "Error", "File", "Histogram", "NotFoundError", "Selection", "Tree",
    "compare", "concatenate", "evaluate", "export", "iterate", "open", "predict", "prepare", "report", "run", "train",
    "tune",
]  # fmt: skip
__version__ = _core.version()


# ---- Stages ---------------------------------------------------------------------------------------------------------

Progress = Callable[[str, str, int, int, "str | None"], None]


def _show(stage: str, unit: str, done: int, total: int, message: str | None) -> None:
    """The default progress: messages (such as an epoch's losses) as lines."""
    if message:
        print(message, file=sys.stderr, flush=True)


def _settings(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Options as (name, text) pairs: lists repeat, {"qcd": file} and {"qcd": [files]} become NAME=FILE."""
    pairs = []
    for name, value in options.items():
        name = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, Mapping):
            value = [
                f"{key}={os.fspath(file)}"
                for key, files in value.items()
                for file in ([files] if isinstance(files, (str, os.PathLike)) else files)
            ]
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, bool):
                item = ("no", "yes")[item] if name in ("balance", "validation") else ("false", "true")[item]
            pairs.append((name, os.fspath(item) if isinstance(item, os.PathLike) else str(item)))
    return pairs


def _stage(name: str, options: Mapping[str, Any], threads: int, progress: Progress | None) -> dict[str, Any]:
    return json.loads(_core.run_stage(name, _settings(options), threads, progress))


def _document(name: str) -> Callable[[Callable], Callable]:
    """Adds the stage's options to a docstring, from the table that the command line uses."""

    def add(function: Callable) -> Callable:
        lines = [
            f"    {option.replace('-', '_')}: {text}" + (f" (default {standard})" if standard else "")
            for option, text, _, standard in _core.stage_options(name)
        ]
        function.__doc__ = f"{function.__doc__}\n\nOptions:\n" + "\n".join(lines)
        return function

    return add


@_document("prepare")
def prepare(*, threads: int = 0, progress: Progress | None = _show, **options: Any) -> dict[str, Any]:
    """Selects events of ROOT files, computes features, makes a training set. Returns {"out", "dataset"}.

    sample is a mapping of names to files, or a list of "NAME=FILE"."""
    return _stage("prepare", options, threads, progress)


def tune(
    search: str | os.PathLike | Mapping[str, Any],
    *,
    out: str | os.PathLike | None = None,
    spark: Any = None,
    workers: int | None = None,
    progress: Callable[[str], None] | None = print,
    **options: Any,
) -> dict[str, Any]:
    """Searches for the best hyperparameters of a network; see docs/tuning.md. Returns what OUT/search.json holds.

    search: a search file, or a mapping of its keys, whose "model" may be a function that returns a Keras model.
    out: the folder of the results, else the file's name without .yaml. spark: a SparkSession or SparkContext, whose tasks train the
    trials; else processes of this machine do. workers: how many, else one a core. options: what goes before the file's own keys:
    data, model, trials, epochs, folds, fraction, sampler, metric, seed, final (False: the best network is not trained in the end).
    """
    from .tuning.conduct import tune as conduct

    return conduct(search, out=out, spark=spark, workers=workers, progress=progress, **options)


@_document("train")
def train(*, threads: int = 0, progress: Progress | None = _show, **options: Any) -> dict[str, Any]:
    """Trains a network defined with Keras. Returns {"out", "parameters", "events", "history"}."""
    if options.get("engine") == "tensorflow":
        return _train_by_tensorflow(_settings(options), threads, progress)
    return _stage("train", options, threads, progress)


def _train_by_tensorflow(settings: list[tuple[str, str]], threads: int, progress: Progress | None) -> dict[str, Any]:
    from ._tensorflow import train as run_workers

    def tell(rank: int, line: str) -> None:
        if progress and rank == 0:
            progress("train", "lines", 0, 0, line)

    return run_workers(settings, threads, tell)


@_document("evaluate")
def evaluate(*, threads: int = 0, progress: Progress | None = _show, **options: Any) -> dict[str, Any]:
    """Accuracy, ROC curves, AUC and confusion matrix of a trained network."""
    return _stage("evaluate", options, threads, progress)


@_document("predict")
def predict(*, threads: int = 0, progress: Progress | None = _show, **options: Any) -> dict[str, Any]:
    """Scores of a trained network for events of a dataset or of ROOT files. Returns {"out", "events"}."""
    return _stage("predict", options, threads, progress)


def report(run: str | os.PathLike, data: str | os.PathLike, out: str | os.PathLike | None = None) -> str:
    """Draws the HTML page about a trained and evaluated network; returns its path."""
    from ._report import write_report

    return write_report(os.fspath(run), os.fspath(data), None if out is None else os.fspath(out))


def _external(stage: str, arguments: list[str]) -> None:
    given = list(zip((name.removeprefix("--") for name in arguments[::2]), arguments[1::2], strict=True))
    if stage == "train":
        _train_by_tensorflow(given, 0, _show)
    elif stage == "report":
        report(**dict(given))
    elif stage == "tune":
        from ._tune import run as run_search

        run_search(arguments)
    else:
        raise ValueError(f"no stage is called {stage!r}")


def run(
    pipeline: str | os.PathLike,
    *,
    out: str | os.PathLike | None = None,
    force: bool = False,
    threads: int = 0,
    progress: Progress | None = _show,
) -> None:
    """Runs the stages that a pipeline file names; those whose inputs did not change are skipped."""
    folder = None if out is None else os.fspath(out)
    _core.run_pipeline(os.fspath(pipeline), folder, force, threads, progress, _external)
