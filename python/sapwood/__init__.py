"""From ROOT files to trained networks.

    import sapwood

    tree = sapwood.open("events.root")["Delphes"]
    table = tree.arrow(["Jet.PT", "Jet.Eta"])          # a pyarrow.Table
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from . import _core
from ._core import Error

__all__ = ["Error", "File", "Selection", "Tree", "evaluate", "open", "predict", "prepare", "report", "run", "train"]
__version__ = _core.version()


# ---- Reading ------------------------------------------------------------------------------------------------------


class File:
    """A ROOT file: a mapping from the paths of its objects to trees. Other objects are listed but not read."""

    def __init__(self, url: str | os.PathLike):
        self._file = _core.open(os.fspath(url))

    def keys(self) -> list[str]:
        """Paths of all objects with their cycles, sub-directories walked: ["Delphes;1", "plots/h;2"]."""
        return [f"{key['path']};{key['cycle']}" for key in self._file.keys()]

    def objects(self) -> list[dict[str, Any]]:
        """All objects: path, cycle, class_name, title, is_tree, stored_bytes, bytes."""
        return self._file.keys()

    def trees(self) -> list[str]:
        """Paths of the trees, each once."""
        return list(dict.fromkeys(key["path"] for key in self._file.keys() if key["is_tree"]))

    def __getitem__(self, path: str) -> Tree:
        return Tree(self._file.tree(path))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, path: str) -> bool:
        name, _, cycle = path.partition(";")
        return any(key["path"] == name and cycle in ("", str(key["cycle"])) for key in self._file.keys())

    def __repr__(self) -> str:
        info = self._file.info()
        return f"<sapwood.File {info['name']!r}: {len(self.keys())} objects, {info['bytes']} bytes>"


class Selection:
    """Some columns and entries of a tree, read when something takes them: an object with `__arrow_c_stream__`."""

    def __init__(self, tree: Any, columns: Sequence[str] | None, begin: int, end: int | None, batch_entries: int, threads: int):
        self._arguments = (None if columns is None else list(columns), begin, end or 0, batch_entries, 0, threads)
        self._tree = tree

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._tree.stream(*self._arguments)


class Tree:
    """A TTree: columns over its entries."""

    def __init__(self, tree: Any):
        self._tree = tree

    @property
    def path(self) -> str:
        return self._tree.info()["path"]

    @property
    def entries(self) -> int:
        return self._tree.info()["entries"]

    def __len__(self) -> int:
        return self.entries

    def keys(self) -> list[str]:
        """Names of the columns that can be read."""
        return [branch["name"] for branch in self._tree.branches() if branch["type"]]

    def branches(self) -> list[dict[str, Any]]:
        """All branches: name, path, type_name (C++), type (of the column, None when it cannot be read: then reason), sizes."""
        return self._tree.branches()

    def select(
        self,
        columns: Sequence[str] | str | None = None,
        begin: int = 0,
        end: int | None = None,
        *,
        batch_entries: int = 0,
        threads: int = 0,
    ) -> Selection:
        """Columns (names or patterns with * and ?; None: all) of entries [begin, end), as a stream of Arrow batches.
        threads: 0 for one each core."""
        if isinstance(columns, str):
            columns = [columns]
        if columns is not None and len(columns) == 0:
            raise ValueError("columns: an empty list; None means all")
        if begin < 0 or (end is not None and end <= begin):
            raise ValueError(f"entries [{begin}, {end}) are none")
        return Selection(self._tree, columns, begin, end, batch_entries, threads)

    def arrow(self, columns: Sequence[str] | str | None = None, begin: int = 0, end: int | None = None, *, threads: int = 0):
        """Columns of entries [begin, end) as a pyarrow.Table."""
        import pyarrow

        return pyarrow.table(self.select(columns, begin, end, threads=threads))

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.select().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"<sapwood.Tree {self.path!r}: {self.entries} entries, {len(self.keys())} columns>"


def open(url: str | os.PathLike) -> File:
    """Opens a ROOT file."""
    return File(url)


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


@_document("train")
def train(*, threads: int = 0, progress: Progress | None = _show, **options: Any) -> dict[str, Any]:
    """Trains a network defined with Keras. Returns {"out", "parameters", "events", "history"}."""
    return _stage("train", options, threads, progress)


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
    if stage != "report":
        raise ValueError(f"no stage is called {stage!r}")
    given = dict(zip((name.removeprefix("--") for name in arguments[::2]), arguments[1::2], strict=True))
    report(**given)


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
