"""What runs inside Spark's tasks: functions from Arrow batches to Arrow batches over the C library, one thread a task. The driver makes them
with everything that they need, so an executor needs nothing but the installed package."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Batches = Iterator[Any]  # of pyarrow.RecordBatch
IDENTITY = ("sample", "file", "entry", "label")

# ---- Recipes -------------------------------------------------------------------------------------------------------

_loaded: dict[tuple, Any] = {}


@dataclass(frozen=True)
class Recipe:
    """A recipe on its way to the executors: a built-in one by its name, a user's as the shared object that the driver's compiler made of it,
    so that executors need no compiler."""

    name: str
    convention: str | None
    binary: bytes | None = None
    about: dict = field(default_factory=dict, compare=False)  # as sap_recipe_json says

    @staticmethod
    def find(name: str | os.PathLike, convention: str | None) -> Recipe:
        from .. import _core

        name = os.fspath(name)
        about = json.loads(_core.recipe(name, convention).json())
        if name == about["recipe"]:
            return Recipe(name, convention, None, about)
        with tempfile.TemporaryDirectory(prefix="sapwood-") as folder:
            path = os.path.join(folder, "recipe.so")
            _core.recipe_build(name, path)
            with open(path, "rb") as file:
                return Recipe(about["recipe"], convention, file.read(), about)

    def load(self) -> Any:
        """The recipe in this process."""
        from .. import _core

        key = (self.name, self.convention, self.binary and hashlib.sha256(self.binary).digest())
        if key not in _loaded:
            if self.binary is None:
                _loaded[key] = _core.recipe(self.name, self.convention)
            else:
                with tempfile.TemporaryDirectory(prefix="sapwood-") as folder:
                    path = os.path.join(folder, "recipe.so")
                    with open(path, "wb") as file:
                        file.write(self.binary)
                    _loaded[key] = _core.recipe(path, self.convention)
        return _loaded[key]


# ---- Arrow -----------------------------------------------------------------------------------------------------------


class _Pair:
    """Two capsules as an object that pyarrow takes."""

    def __init__(self, pair: tuple) -> None:
        self._pair = pair

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple:
        return self._pair


def record_batch(pair: tuple) -> Any:
    import pyarrow as pa

    return pa.record_batch(_Pair(pair))


def _lists(array: Any) -> Any:
    """Fixed lists as lists, the only ones that Spark knows; no value is copied."""
    import numpy as np
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(array.type):
        return array
    offsets = np.arange(0, (len(array) + 1) * array.type.list_size, array.type.list_size, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), array.flatten())


def _rows(schema: Any, features: Any, sample: str, file: str, entry: Any, label: int) -> Any:
    import pyarrow as pa

    count = features.num_rows
    identity = [pa.repeat(sample, count), pa.repeat(file, count), entry, pa.repeat(label, count)]
    arrays = [*identity, *(_lists(features.column(name)) for name in schema.names[len(IDENTITY) :])]
    return pa.RecordBatch.from_arrays([array.cast(kind) for array, kind in zip(arrays, schema.types, strict=True)], schema=schema)


def groups(batch: Any) -> Iterator[tuple[str, str, Any]]:
    """The events of each sample and file of a batch: (sample, file, their rows)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = pa.table({name: batch.column(name) for name in ("sample", "file")})
    distinct = keys.group_by(["sample", "file"]).aggregate([]).to_pylist()
    for key in distinct:
        if key["sample"] is None or key["file"] is None:
            raise ValueError("an event's sample and file may not be null: its fate hangs on them")
        if len(distinct) == 1:
            yield key["sample"], key["file"], batch
        else:
            chosen = pc.and_(pc.equal(batch.column("sample"), key["sample"]), pc.equal(batch.column("file"), key["file"]))
            yield key["sample"], key["file"], batch.filter(chosen)


# ---- Features ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """A file of a sample. url: as the user named it; path: what tasks open."""

    sample: str
    url: str
    path: str
    file: str  # base name
    label: int


@dataclass(frozen=True)
class Piece:
    """What one task reads: the clusters of part `number` of `count` of an input."""

    input: int
    number: int
    count: int


def _chosen(batches: Batches, pieces: list[Piece]) -> Iterator[Piece]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield pieces[number]


def read_features(recipe: Recipe, tree: str | None, inputs: list[Input], pieces: list[Piece], schema: Any) -> Callable:
    """Features of pieces of files, as rows of Arrow's `schema`; comes in: the pieces' numbers."""

    def run(batches: Batches) -> Batches:
        for piece in _chosen(batches, pieces):
            source = inputs[piece.input]
            features = recipe.load().open(source.path, tree, piece.number, piece.count)
            while (pair := features.next()) is not None:
                batch = record_batch(pair)
                yield _rows(schema, batch, source.sample, source.file, batch.column("entry"), source.label)

    return run


def input_column(number: int) -> str:
    """What the recipe's input of that number is called on its way to a task."""
    return f"input{number}"


def compute(recipe: Recipe, rows: Any, where: str) -> tuple[Any, list[int]]:
    """Features of rows with the recipe's inputs, "entry" being the number of the row; and how many each cut dropped."""
    import pyarrow as pa

    names = [wanted["name"] for wanted in recipe.about["inputs"]]
    inputs = pa.RecordBatch.from_arrays([rows.column(input_column(number)) for number in range(len(names))], names)
    pair, dropped = recipe.load().compute(*inputs.__arrow_c_array__(), where)
    return record_batch(pair), dropped


def compute_features(recipe: Recipe, labels: list[str], schema: Any) -> Callable:
    """Features of events: comes in: sample, file, entry and the recipe's inputs."""

    def run(batches: Batches) -> Batches:
        for events in batches:
            for sample, file, rows in groups(events):
                label = labels.index(sample) if sample in labels else None
                if label is None:
                    raise ValueError(f"sample {sample!r} is none of those named: {', '.join(labels)}")
                batch, _ = compute(recipe, rows, file)
                entry = rows.column("entry").take(batch.column("entry"))
                if batch.num_rows:
                    yield _rows(schema, batch, sample, base_name(file), entry, label)

    return run


def base_name(url: str) -> str:
    from .. import _core

    return os.fsdecode(_core.file_name(url))


# ---- Packing: rows to the process of their shard ---------------------------------------------------------------------------


def _pieces(packer: Any, last: bool) -> Batches:
    import pyarrow as pa

    packed = packer.pieces(last)
    if packed:
        buckets, data = zip(*packed, strict=True)
        yield pa.RecordBatch.from_arrays([pa.array(buckets, pa.int32()), pa.array(data, pa.binary())], ["bucket", "piece"])


def pack_files(plan: str, recipe: Recipe, tree: str | None, inputs: list[Input], pieces: list[Piece]) -> Callable:
    """Reads, computes and packs; comes in: the pieces' numbers."""

    def run(batches: Batches) -> Batches:
        from .. import _core

        packer = _core.packer(plan)
        for piece in _chosen(batches, pieces):
            features = recipe.load().open(inputs[piece.input].path, tree, piece.number, piece.count)
            while packer.take(piece.input, features):
                yield from _pieces(packer, False)
        yield from _pieces(packer, True)

    return run


def pack_events(plan: str, recipe: Recipe, numbers: dict[tuple[str, str], int]) -> Callable:
    """Computes and packs; comes in: sample, file, entry and the recipe's inputs. numbers: of each (sample, file) among the inputs."""

    def run(batches: Batches) -> Batches:
        from .. import _core

        packer = _core.packer(plan)
        for events in batches:
            for sample, file, rows in groups(events):
                index = _number(numbers, sample, file)
                batch, dropped = compute(recipe, rows, file)
                chosen = rows.column("entry").take(batch.column("entry"))
                batch = batch.set_column(batch.schema.get_field_index("entry"), "entry", chosen)
                packer.add(index, *batch.__arrow_c_array__())
                packer.count(index, rows.num_rows, dropped)
            yield from _pieces(packer, False)
        yield from _pieces(packer, True)

    return run


def pack_rows(plan: str, numbers: dict[tuple[str, str], int]) -> Callable:
    """Packs features that are there already; comes in: sample, file, entry and the features."""

    def run(batches: Batches) -> Batches:
        from .. import _core

        packer = _core.packer(plan)
        for batch in batches:
            for sample, file, rows in groups(batch):
                index = _number(numbers, sample, file)
                packer.add(index, *rows.__arrow_c_array__())
                packer.count(index, rows.num_rows, [])
            yield from _pieces(packer, False)
        yield from _pieces(packer, True)

    return run


def _number(numbers: dict[tuple[str, str], int], sample: str, file: str) -> int:
    try:
        return numbers[sample, file]
    except KeyError:
        raise ValueError(f"file {file!r} of sample {sample!r} was not there when the inputs were listed: the events are not the same "
                         "each time that they are computed") from None


# ---- Shards ------------------------------------------------------------------------------------------------------------------


def write_shards(folder: str | None, plan: str, constants: str | None) -> Callable:
    """Writes the part files of the buckets that come in, as (bucket, piece); gives a report for each. folder None: there is nothing to
    write, only to report."""

    def run(batches: Batches) -> Batches:
        import pyarrow as pa

        from .. import _core

        if folder and not os.path.isdir(f"{folder}.partial/whole"):
            raise FileNotFoundError(f"{folder}.partial: the driver made this folder, but this executor does not see it: a dataset has to be "
                                    "written to a file system that all machines share")
        shards: dict[int, Any] = {}
        for batch in batches:
            pieces = batch.column("piece")
            _, ends, data = pieces.buffers()
            offsets = memoryview(ends).cast("i")[pieces.offset : pieces.offset + len(pieces) + 1]
            for i, bucket in enumerate(batch.column("bucket").to_pylist()):
                if bucket not in shards:
                    shards[bucket] = _core.shard(folder, plan, bucket)
                shards[bucket].add(data.address + offsets[i], offsets[i + 1] - offsets[i])
        for bucket in sorted(shards):
            report = shards.pop(bucket).write(constants)
            yield pa.RecordBatch.from_arrays([pa.array([report], pa.string())], ["report"])

    return run
