"""Rows of a DataFrame on their way to the ranks: where each belongs, and the dataset folder that a rank reads them from.

An event belongs to one of 64 virtual shards of the training or the test part, by the library's hash of its identity (docs/datasets.md). Tasks
of the first stage cut their rows into pieces, one a shard, as Arrow IPC; Spark carries the pieces to the ranks' tasks; each of these joins
the pieces of a shard, puts the rows into the shard's order and writes them as an Arrow file, a part of a dataset. So the files are the
same, byte for byte, however the DataFrame was partitioned. What a task holds at a time is one shard, and Spark spills pieces that wait.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import _core
from .._core import SHARDS  # of each part
from .tasks import base_name

_PIECE_BYTES = 32 << 20  # of rows that are cut into pieces at once
_BATCH_ROWS = 1024  # of a part file

PIECE_SCHEMA = "bucket int, data binary"


@dataclass
class Feature:
    """A column as a dataset describes it (docs/datasets.md). The name is that of the network's input."""

    name: str
    width: int
    sequence: bool
    pad_rows: int = 0
    scaling: str = "none"
    fit: str = "train"
    order: str = "none"
    eta_index: int = 0
    phi_index: int = 0
    pad_before_order: bool = False
    values: list[str] = field(default_factory=list)
    constants: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.values = self.values or [str(i) for i in range(self.width)]

    @property
    def needs_fit(self) -> bool:
        return self.scaling in ("minmax", "standard") and not self.constants


@dataclass
class Rows:
    """What rows are: their features, and how they are sharded. Travels with the tasks."""

    features: list[Feature]
    labels: list[str]
    seed: int
    test_fraction: float
    weight: bool = False  # there is a column "weight"
    ordered: bool = True  # sequences come in the order of the training, not as a recipe computes them
    validation: bool = False  # a column "validation" says who is in the test part, instead of a hash

    def schema(self) -> pa.Schema:
        numbers = pa.large_list(pa.field("item", pa.float32(), nullable=False))
        names = [f.name for f in self.features] + ["weight"] * self.weight
        fields = [pa.field(name, numbers, nullable=False) for name in names]
        fields += [pa.field(name, kind, nullable=False) for name, kind in (
            ("label", pa.int32()), ("sample", pa.large_string()), ("file", pa.large_string()), ("entry", pa.int64()))]
        return pa.schema(fields)


# ---- Cutting: rows into pieces ----------------------------------------------------------------------------------------


def _no_nulls(column: pa.Array, name: str) -> None:
    if column.null_count:
        raise ValueError(f"column {name!r} has nulls")


def _trim(offsets: np.ndarray, values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences without the zero rows at their ends, which are padding."""
    rows = offsets // width
    real = np.flatnonzero(values.reshape(-1, width).any(axis=1))
    # the last real row of each sequence is the one before the first that is not below the sequence's end
    last = np.searchsorted(real, rows[1:]) - 1
    ends = np.maximum(np.where(last >= 0, real[last] + 1, 0), rows[:-1]) if len(real) else rows[:-1]
    lengths = ends - rows[:-1]
    if lengths.sum() == rows[-1] - rows[0]:
        return offsets, values
    keep = np.repeat(rows[:-1], lengths) + np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.concatenate([[0], np.cumsum(lengths)]) * width, values.reshape(-1, width)[keep].reshape(-1)


def _numbers(column: pa.Array, feature: Feature) -> pa.Array:
    """A column of lists of float32, checked, as large lists."""
    _no_nulls(column, feature.name)
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values
    _no_nulls(values.slice(offsets[0], offsets[-1] - offsets[0]), feature.name)
    values = values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    offsets -= offsets[0]
    lengths = np.diff(offsets)
    wrong = lengths % feature.width if feature.sequence else lengths != feature.width
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"column of input {feature.name!r}: {lengths[at]} numbers in a row, not "
                         f"{'rows of ' if feature.sequence else ''}{feature.width}")  # fmt: skip
    if not np.isfinite(values).all():
        raise ValueError(f"column of input {feature.name!r} has values that are not finite")
    if feature.sequence and feature.scaling != "standard_event":
        offsets, values = _trim(offsets, values, feature.width)
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values, pa.float32()))


def _classes(column: pa.Array, count: int) -> np.ndarray:
    """Class numbers from numbers, or from one-hot lists."""
    _no_nulls(column, "label")
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = np.diff(column.offsets.to_numpy())
        if (lengths != count).any():
            raise ValueError(f"labels are lists of {lengths.max()} numbers, the network has {count} classes")
        return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, count).argmax(axis=1).astype(np.int32)
    values = column.to_numpy(zero_copy_only=False)
    classes = values.astype(np.int32)
    wrong = (classes != values) | (classes < 0) | (classes >= count)
    if wrong.any():
        raise ValueError(f"label {values[wrong][0]}: the network has {count} classes, from 0 on")
    return classes


def _places(names: Mapping[str, pa.Array], rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Order hashes (uint64), and who is in the test part (bool)."""
    count = len(names["entry"])
    order, test = np.empty(count, np.uint64), np.empty(count, np.bool_)
    texts = [pc.cast(names[name], pa.large_string()).combine_chunks() if isinstance(names[name], pa.ChunkedArray)
             else pc.cast(names[name], pa.large_string()) for name in ("sample", "file")]  # fmt: skip
    where = []
    for text in texts:
        _, offsets, data = text.buffers()
        where += [offsets.address + 8 * text.offset, data.address if data else 0]
    entry = names["entry"].to_numpy(zero_copy_only=False).astype(np.int64)
    _core.event_places(count, *where, entry.ctypes.data, rows.seed, rows.test_fraction, order.ctypes.data, test.ctypes.data)
    return order, test


def _base_names(column: pa.Array) -> pa.Array:
    """Files by their base names, as datasets have them. A column names the same files again and again."""
    coded = pc.dictionary_encode(column)
    return pa.array([base_name(name) for name in coded.dictionary.to_pylist()], pa.large_string()).take(coded.indices)


def _normal(batch: pa.RecordBatch, rows: Rows) -> tuple[pa.Table, np.ndarray]:
    """A batch of Spark's as stored events, and for each its key: (test part, order hash) as one number of 65 bits in two columns."""
    columns = {feature.name: _numbers(batch.column(feature.name), feature) for feature in rows.features}
    if rows.weight:
        columns["weight"] = _numbers(batch.column("weight"), Feature("weight", 1, False))
    columns["label"] = pa.array(_classes(batch.column("label"), len(rows.labels)))
    for name in ("sample", "file", "entry"):
        _no_nulls(batch.column(name), name)
    columns["sample"] = pc.cast(batch.column("sample"), pa.large_string())
    columns["file"] = _base_names(batch.column("file"))
    columns["entry"] = batch.column("entry")
    order, test = _places(columns, rows)
    if rows.validation:
        test = batch.column("validation").to_numpy(zero_copy_only=False).astype(np.bool_)
    table = pa.table(columns).cast(rows.schema()).append_column("order", pa.array(order))
    return table, (order >> np.uint64(58)).astype(np.int32) + SHARDS * test


def _encode(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _cut(tables: list[pa.Table], buckets: list[np.ndarray]) -> pa.RecordBatch:
    """Pieces of all rows, by bucket."""
    table, bucket = pa.concat_tables(tables).combine_chunks(), np.concatenate(buckets)
    by_bucket = np.argsort(bucket, kind="stable")
    table = table.take(pa.array(by_bucket))
    present, first = np.unique(bucket[by_bucket], return_index=True)
    ends = [*first[1:], len(bucket)]
    pieces = [_encode(table.slice(begin, end - begin)) for begin, end in zip(first, ends, strict=True)]
    return pa.RecordBatch.from_arrays([pa.array(present, pa.int32()), pa.array(pieces, pa.binary())], ["bucket", "data"])


def cut(batches: Iterator[pa.RecordBatch], rows: Rows) -> Iterator[pa.RecordBatch]:
    """Batches with a column for each feature, and label, sample, file, entry, into rows of PIECE_SCHEMA."""
    tables: list[pa.Table] = []
    buckets: list[np.ndarray] = []
    waiting = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        table, bucket = _normal(batch, rows)
        tables.append(table)
        buckets.append(bucket)
        waiting += table.nbytes
        if waiting >= _PIECE_BYTES:
            yield _cut(tables, buckets)
            tables, buckets, waiting = [], [], 0
    if tables:
        yield _cut(tables, buckets)


# ---- Joining: pieces into part files ------------------------------------------------------------------------------------


def _moments(table: pa.Table, feature: Feature) -> dict[str, Any]:
    """What a shard adds to the constants of a feature."""
    lists = table.column(feature.name).combine_chunks()
    values = np.ascontiguousarray(lists.flatten().to_numpy(zero_copy_only=False))
    out = np.empty((4, feature.width))
    count = len(values) // feature.width
    _core.event_moments(values.ctypes.data, count, feature.width, out.ctypes.data)
    return {"rows": count, "moments": out.tolist() if count else None}


def _write_part(path: Path, table: pa.Table) -> None:
    """In batches of a fixed number of rows, so that equal rows make equal files."""
    with pa.ipc.new_file(path, table.schema) as writer:
        for batch in table.combine_chunks().to_batches(max_chunksize=_BATCH_ROWS):
            writer.write_batch(batch)


def _by_bucket(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, list[pa.Table]]]:
    """Pieces, which come sorted by bucket, bucket by bucket."""
    at, tables = -1, []
    for batch in batches:
        for bucket, data in zip(batch.column("bucket").to_pylist(), batch.column("data"), strict=True):
            if bucket != at and tables:
                yield at, tables
                tables = []
            at = bucket
            tables.append(pa.ipc.open_stream(data.as_buffer()).read_all())
    if tables:
        yield at, tables


def join(batches: Iterator[pa.RecordBatch], rows: Rows, folder: Path) -> dict[str, Any]:
    """Writes the part files of what comes into `folder`; returns what the other ranks must know of them."""
    parts, moments = [], []
    for bucket, tables in _by_bucket(batches):
        split, shard = ("train", "test")[bucket // SHARDS], bucket % SHARDS
        table = pa.concat_tables(tables)
        del tables
        table = table.take(pc.sort_indices(table, [("order", "ascending")])).drop_columns("order")
        for index, feature in enumerate(rows.features):
            if feature.needs_fit and (split == "train" or feature.fit == "selected"):
                moments.append({"feature": index, "bucket": bucket, **_moments(table, feature)})
        file = f"{split}/part-{shard:05d}.arrow"
        (folder / split).mkdir(parents=True, exist_ok=True)
        _write_part(folder / file, table)
        parts.append({"file": file, "split": split, "shard": shard, "rows": table.num_rows, "bytes": (folder / file).stat().st_size})
    return {"parts": parts, "moments": moments}


def _fit(feature: Feature, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = sorted((item for item in found if item["rows"]), key=lambda item: item["bucket"])
    rows = np.array([item["rows"] for item in found], np.int64)
    moments = np.array([item["moments"] for item in found], np.float64)
    shift, factor = np.zeros(feature.width), np.ones(feature.width)
    _core.event_constants(feature.scaling, rows.ctypes.data, moments.ctypes.data, len(rows), feature.width,
                          shift.ctypes.data, factor.ctypes.data)  # fmt: skip
    return {"rows": int(rows.sum()), "shift": shift.tolist(), "factor": factor.tolist()}


def describe(rows: Rows, joined: Sequence[Mapping[str, Any]]) -> str:
    """dataset.json from what all ranks joined: the same on each of them."""
    from .. import __version__

    features = []
    for index, feature in enumerate(rows.features):
        found = [item for one in joined for item in one["moments"] if item["feature"] == index]
        described = asdict(feature)
        if feature.needs_fit:
            described["constants"] = _fit(feature, found)
        features.append(described)
    if rows.weight:
        features.append(asdict(Feature("weight", 1, False)))
    parts = sorted((part for one in joined for part in one["parts"]), key=lambda part: (part["split"] == "test", part["shard"]))
    if not any(part["split"] == "train" for part in parts):
        raise ValueError("the DataFrame has no rows for training")
    about = {"format_version": 1, "sapwood_version": __version__, "layout": "sapwood", "format": "arrow", "ordered": rows.ordered,
             "recipe": "", "recipe_version": "", "convention": None, "seed": rows.seed, "test_fraction": rows.test_fraction,
             "balance": False, "labels": rows.labels, "features": features, "selection": [], "inputs": [], "parts": parts}  # fmt: skip
    return json.dumps(about, indent=1)
