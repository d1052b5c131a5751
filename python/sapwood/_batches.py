"""Examples for a network, from what people have them in: arrays, ragged sequences, tables, dataset folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def is_dataset(x: Any) -> bool:
    """Whether x names a folder; one without dataset.json is an error then."""
    if not isinstance(x, (str, os.PathLike)):
        return False
    if not Path(x, "dataset.json").is_file():
        raise FileNotFoundError(f"{os.fspath(x)}: no dataset.json there")
    return True


def _floats(values: Any) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)


class Input:
    """The numbers of one input: (rows, …), or ragged: (steps of all rows, …) and the first step of each row."""

    def __init__(self, values: np.ndarray, offsets: np.ndarray | None = None) -> None:
        self.values, self.offsets = values, offsets

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    def part(self, begin: int, end: int) -> Input:
        if self.offsets is None:
            return Input(self.values[begin:end])
        first, last = self.offsets[begin], self.offsets[end]
        return Input(self.values[first:last], self.offsets[begin : end + 1] - first)

    def longest(self) -> int:
        if self.offsets is None:
            return self.values.shape[1]
        return int(np.diff(self.offsets).max(initial=0))

    def describe(self) -> tuple[int, int, int]:
        width = int(np.prod(self.values.shape[1:], dtype=np.int64))
        return self.values.ctypes.data, width, 0 if self.offsets is None else self.offsets.ctypes.data


# ---- Reading inputs -------------------------------------------------------------------------------------------------


def _ragged(values: np.ndarray, offsets: np.ndarray, name: str, shape: tuple[int, ...]) -> Input:
    values = _floats(values)
    offsets = np.ascontiguousarray(offsets, dtype=np.int64)
    step = shape[1:]
    if values.ndim == 1 and len(shape) > 1:
        values = values.reshape(-1, *step)
    if len(offsets) < 1 or offsets[0] < 0 or np.any(np.diff(offsets) < 0) or offsets[-1] > len(values):
        raise ValueError(f"input {name!r}: offsets do not rise from 0 to the {len(values)} steps")
    if values.shape[1:] != step:
        raise ValueError(f"input {name!r} takes steps of shape {step}, not {values.shape[1:]}")
    return Input(values[offsets[0] : offsets[-1]], offsets - offsets[0])


def _is_offsets(value: Any) -> bool:
    array = value if isinstance(value, np.ndarray) else None
    return array is not None and array.ndim == 1 and array.dtype.kind in "iu"


def _one_input(value: Any, name: str, shape: tuple[int, ...]) -> Input:
    sequence = len(shape) > 1
    if sequence and isinstance(value, tuple) and len(value) == 2 and _is_offsets(value[1]):
        return _ragged(value[0], value[1], name, shape)
    if type(value).__module__.startswith("awkward"):
        return _awkward(value, name, shape)
    if sequence and (isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object)):
        rows = [np.asarray(row, np.float32).reshape(-1, *shape[1:]) for row in value]
        lengths = [len(row) for row in rows]
        values = np.concatenate(rows) if rows else np.empty((0, *shape[1:]), np.float32)
        return _ragged(values, np.cumsum([0, *lengths]), name, shape)
    array = _floats(value)
    flat = int(np.prod(shape, dtype=np.int64)) if all(d >= 0 for d in shape) else -1
    if array.ndim == 1 and flat == 1:
        array = array[:, None]
    fits = len(array.shape) == len(shape) + 1 and all(b < 0 or a == b for a, b in zip(array.shape[1:], shape))
    if not fits and array.ndim == 2 and array.shape[1] == flat:  # a table's column of flat lists
        array, fits = array.reshape(len(array), *shape), True
    if not fits:
        raise ValueError(f"input {name!r} takes arrays of shape (rows, {', '.join('any' if d < 0 else str(d) for d in shape)}), "
                         f"not {array.shape}")
    return Input(array)


def _awkward(value: Any, name: str, shape: tuple[int, ...]) -> Input:
    import awkward as ak

    if len(shape) == 1:
        return _one_input(ak.to_numpy(value), name, shape)
    counts = np.asarray(ak.num(value, axis=1))
    flat = ak.flatten(value, axis=1)
    if flat.fields:  # a record a step: its fields are the values
        flat = np.stack([ak.to_numpy(flat[field]) for field in flat.fields], axis=-1)
    else:
        flat = ak.to_numpy(ak.flatten(flat, axis=None)).reshape(len(flat), *shape[1:])
    return _ragged(flat, np.concatenate([[0], np.cumsum(counts)]), name, shape)


def _arrow_column(column: Any, name: str, shape: tuple[int, ...]) -> Input:
    """A column of a pyarrow table: numbers, fixed lists, or lists, flat or nested, of a sequence."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if column.null_count:
        raise ValueError(f"column {name!r} has nulls")
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        rows = len(column)
        while pa.types.is_fixed_size_list(column.type):
            column = column.flatten()
        return _one_input(column.to_numpy(zero_copy_only=False).reshape(rows, -1), name, shape)
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values
    nested = False
    while pa.types.is_fixed_size_list(values.type) or pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values, nested = values.flatten() if not pa.types.is_fixed_size_list(values.type) else values.values, True
    flat = _floats(values.to_numpy(zero_copy_only=False))
    if len(shape) == 1:  # a plain feature that came as a list
        begin, end = int(offsets[0]), int(offsets[-1])
        return _one_input(flat[begin:end].reshape(len(offsets) - 1, -1), name, shape)
    width = int(np.prod(shape[1:], dtype=np.int64))
    if not nested:
        if np.any(offsets % width):
            raise ValueError(f"column {name!r}: lists that are not rows of {width} numbers")
        offsets = offsets // width
    return _ragged(flat.reshape(-1, *shape[1:]), offsets, name, shape)


def _from_table(table: Any, inputs: list[tuple[str, tuple[int, ...]]]) -> list[Input]:
    import pyarrow as pa

    if isinstance(table, (pa.Table, pa.RecordBatch)):
        return [_arrow_column(table.column(name), name, shape) for name, shape in inputs]
    read = []
    for name, shape in inputs:
        column = table[name].to_numpy()
        if column.dtype == object and len(shape) == 1:
            column = np.stack([np.asarray(row, np.float32) for row in column])
        read.append(_one_input(column, name, shape))
    return read


def _is_table(x: Any) -> bool:
    return type(x).__module__.split(".")[0] in ("pyarrow", "pandas") and type(x).__name__ in (
        "Table", "RecordBatch", "DataFrame")


def _columns(table: Any) -> list[str]:
    return list(table.column_names if hasattr(table, "column_names") else table.columns)


class _Table:
    """Columns of a table by name, for labels."""

    def __init__(self, table: Any) -> None:
        self.table, self.names = table, _columns(table)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> np.ndarray:
        column = self.table[name] if not hasattr(self.table, "column_names") else self.table.column(name)
        return np.asarray(column)


def read_inputs(x: Any, inputs: list[tuple[str, tuple[int, ...]]]) -> tuple[list[Input], int, _Table | None]:
    """Arrays for each input (name, shape), how many rows they have, and the table they come from."""
    table = None
    names = [name for name, _ in inputs]
    if type(x).__module__.split(".")[0] in ("tensorflow", "torch") and hasattr(x, "__iter__") and not hasattr(x, "shape"):
        raise NotImplementedError(f"sapwood.keras does not support {type(x).__name__}: give it arrays or a folder")
    if _is_table(x):
        table = _Table(x)
        missing = [name for name in names if name not in table]
        if not missing:
            read = _from_table(x, inputs)
        elif len(inputs) == 1 and type(x).__module__.startswith("pandas"):  # as Keras: its columns are the values
            read = [_one_input(x.to_numpy(), *inputs[0])]
        else:
            raise ValueError(f"the table has no column {', '.join(map(repr, missing))}; it has "
                             f"{', '.join(map(repr, table.names))}")
    elif isinstance(x, Mapping):
        missing = [name for name in names if name not in x]
        if missing or len(x) != len(names):
            raise ValueError(f"the inputs are {', '.join(map(repr, names))}, not {', '.join(map(repr, x))}")
        read = [_one_input(x[name], name, shape) for name, shape in inputs]
    elif len(inputs) > 1 or (isinstance(x, list) and len(x) == 1 and hasattr(x[0], "shape")
                             and len(np.shape(x[0])) == len(inputs[0][1]) + 1):
        if not isinstance(x, (list, tuple)) or len(x) != len(inputs):
            raise ValueError(f"the model has the inputs {', '.join(map(repr, names))}: a list or a dictionary of them")
        read = [_one_input(value, name, shape) for value, (name, shape) in zip(x, inputs, strict=True)]
    elif callable(getattr(x, "__next__", None)) or type(x).__name__ in ("PyDataset", "Sequence"):
        raise NotImplementedError(f"sapwood.keras does not support {type(x).__name__}: give it arrays or a folder")
    else:
        read = [_one_input(x, *inputs[0])]
    rows = {len(value) for value in read}
    if len(rows) != 1:
        raise ValueError(f"inputs of different numbers of rows: {sorted(rows)}")
    return read, rows.pop(), table


def read_targets(y: Any, names: list[str], rows: int) -> list[np.ndarray]:
    """An array (rows, values) for each output."""
    if isinstance(y, Mapping):
        if set(y) != set(names):
            raise ValueError(f"the outputs are {', '.join(map(repr, names))}, not {', '.join(map(repr, y))}")
        y = [y[name] for name in names]
    elif len(names) == 1:
        y = [y[0] if isinstance(y, (list, tuple)) and len(y) == 1 and np.ndim(y[0]) > 0 else y]
    elif not isinstance(y, (list, tuple)) or len(y) != len(names):
        raise ValueError(f"the model has the outputs {', '.join(map(repr, names))}: a list or a dictionary of targets")
    arrays = [_floats(value) for value in y]
    for name, array in zip(names, arrays, strict=True):
        if len(array) != rows:
            raise ValueError(f"targets of output {name!r}: {len(array)} rows, the inputs have {rows}")
    return arrays


def read_weights(weight: Any, rows: int) -> np.ndarray | None:
    if weight is None:
        return None
    if isinstance(weight, Mapping) or (isinstance(weight, (list, tuple)) and len(weight) != rows):
        raise NotImplementedError("sapwood.keras does not support sample weights for each output")
    array = _floats(weight)
    if array.shape != (rows,):
        raise ValueError(f"sample_weight has the shape {array.shape}, not ({rows},)")
    return array


# ---- Batches --------------------------------------------------------------------------------------------------------


class Batches:
    """Examples that can be fed to a network."""

    def __init__(self, rows: int, inputs: list[Input], targets: list[np.ndarray], weight: np.ndarray | None) -> None:
        self.rows, self.inputs, self.targets, self.weight = rows, inputs, targets, weight
        self.dataset: tuple[str, str] | None = None

    @classmethod
    def of_dataset(cls, folder: Any, split: str) -> Batches:
        made = cls(0, [], [], None)
        made.dataset = (os.fspath(folder), split)
        return made

    def part(self, begin: int, end: int) -> Batches:
        if self.dataset:
            raise NotImplementedError("sapwood.keras does not support a part of a dataset folder")
        if end <= begin:
            raise ValueError("a part without rows")
        return Batches(end - begin, [i.part(begin, end) for i in self.inputs], [t[begin:end] for t in self.targets],
                       None if self.weight is None else self.weight[begin:end])

    def feed(self, core: Any) -> Any:
        if self.dataset:
            return core.feed_dataset(*self.dataset, None)
        inputs = [value.describe() for value in self.inputs]
        targets = [(t.ctypes.data, int(np.prod(t.shape[1:], dtype=np.int64))) for t in self.targets]
        weight = 0 if self.weight is None else self.weight.ctypes.data
        return core.feed_arrays(self.rows, inputs, targets, weight, (self.inputs, self.targets, self.weight))

    def longest(self, inputs: list[tuple[str, tuple[int, ...]]]) -> int:
        """Steps of the longest row of inputs whose length is open."""
        if self.dataset:
            return 0
        return max((value.longest() for value, (_, shape) in zip(self.inputs, inputs, strict=True)
                    if len(shape) > 1 and shape[0] < 0), default=0)

    def read_targets(self, engine: Any) -> list[np.ndarray]:
        """Targets as Keras' losses take them; labels of a dataset as the model's loss wants them."""
        if not self.dataset:
            return self.targets
        feed = self.feed(engine.core)
        labels = np.empty(feed.rows(), np.int32)
        feed.labels(labels.ctypes.data)
        loss = engine.live.get_compile_config().get("loss")
        name = loss if isinstance(loss, str) else (loss or {}).get("class_name", "")
        if "sparse" in name.lower() or engine.outputs[0][1][-1] == 1:
            return [labels]
        return [np.eye(engine.outputs[0][1][-1], dtype=np.float32)[labels]]
