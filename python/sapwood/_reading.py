"""Files, trees and columns, and what becomes of them: Arrow, awkward, NumPy and pandas."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from . import _core
from ._core import Error, NotFoundError
from ._histogram import Histogram

Columns = Sequence[str] | str | None
Filter = str | Sequence[str] | Callable[[str], bool] | None
Files = str | os.PathLike | Sequence[str | os.PathLike] | Mapping[str | os.PathLike, str]


# ---- Selections ---------------------------------------------------------------------------------------------------


def _names(columns: Columns) -> list[str] | None:
    if columns is None:
        return None
    names = [columns] if isinstance(columns, str) else list(columns)
    if not names:
        raise ValueError("columns: an empty list; None means all")
    return names


def _range(begin: int, end: int | None) -> tuple[int, int]:
    if begin < 0 or (end is not None and end <= begin):
        raise ValueError(f"entries [{begin}, {end}) are none")
    return begin, end or 0


_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}


def _step(step: int | str) -> tuple[int, int]:
    """(entries, bytes) of a batch: 1000, or "100 MB"."""
    if isinstance(step, int):
        if step < 1:
            raise ValueError(f"step: {step} entries")
        return step, 0
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmg]?i?)b?\s*", step.lower())
    if not match or match[2] not in _UNITS or float(match[1]) * _UNITS[match[2]] < 1:
        raise ValueError(f'step: a number of entries or a size such as "100 MB", but it is {step!r}')
    return 0, int(float(match[1]) * _UNITS[match[2]])


@contextlib.contextmanager
def _errors():
    """What Arrow says of a stream that failed is our own message."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as failure:
        if isinstance(failure, Error):
            raise
        raise Error(str(failure)) from None


class Selection:
    """Some columns and entries of a tree or of files, read when something takes them: an object with `__arrow_c_stream__`."""

    def __init__(self, source: Any, columns: Columns, where: str | None, begin: int, end: int | None, batch_entries: int, batch_bytes: int, threads: int):
        self._arguments = (source, _names(columns), where, *_range(begin, end), batch_entries, batch_bytes, threads)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return _core.stream(*self._arguments)

    def batches(self) -> Iterator[Any]:
        """The batches as pyarrow.RecordBatch."""
        import pyarrow

        with _errors():
            reader = pyarrow.RecordBatchReader.from_stream(self)
        while True:
            with _errors():
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
            yield batch

    def table(self) -> Any:
        """All as a pyarrow.Table."""
        import pyarrow

        with _errors():
            return pyarrow.RecordBatchReader.from_stream(self).read_all()


# ---- Libraries ------------------------------------------------------------------------------------------------------


def _text(array: Any) -> list[str | None]:
    import pyarrow as pa

    values = array.cast(pa.binary()).to_pylist()  # names in old files are not always UTF-8
    return [None if value is None else value.decode("utf-8", "surrogateescape") for value in values]


def _objects(items: Sequence[Any]) -> Any:
    import numpy as np

    out = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        out[i] = item
    return out


def _numpy_array(array: Any) -> Any:
    """A column as NumPy has it: numbers as they are, fixed lists as further dimensions, lists as an object array of arrays,
    records of numbers as a structured array; what is nested deeper as an object array of Python lists and dicts."""
    import numpy as np
    import pyarrow as pa

    kind = array.type
    if pa.types.is_fixed_size_list(kind) and array.null_count == 0:
        inner = _numpy_array(array.flatten())
        return inner.reshape(len(array), kind.list_size, *inner.shape[1:])
    if pa.types.is_list(kind) and pa.types.is_primitive(kind.value_type):
        values, ends = _numpy_array(array.values), array.offsets.to_numpy()
        items = [values[ends[i] : ends[i + 1]] for i in range(len(array))]
        if array.null_count:
            items = [item if valid else None for item, valid in zip(items, array.is_valid().to_pylist(), strict=True)]
        return _objects(items)
    if pa.types.is_struct(kind) and array.null_count == 0 and kind.num_fields > 0:
        fields = {kind.field(i).name: _numpy_array(array.field(i)) for i in range(kind.num_fields)}
        if len(fields) == kind.num_fields and all(field.dtype != object for field in fields.values()):
            out = np.empty(len(array), dtype=[(name, field.dtype, field.shape[1:]) for name, field in fields.items()])
            for name, field in fields.items():
                out[name] = field
            return out
    if pa.types.is_string(kind):
        return _objects(_text(array))
    if pa.types.is_primitive(kind):
        return array.to_numpy(zero_copy_only=False)
    return _objects(array.to_pylist())


def _chunk(column: Any) -> Any:
    """A column of a table in one piece."""
    import pyarrow as pa

    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _numpy(table: Any) -> dict[str, Any]:
    return {name: _numpy_array(_chunk(table[name])) for name in table.column_names}


def _series(name: str, array: Any) -> Iterator[tuple[str, Any]]:
    """Columns of a DataFrame: records become one for each field, lists hold an array or a list an entry."""
    import pyarrow as pa

    if pa.types.is_struct(array.type) and array.null_count == 0 and array.type.num_fields > 0:
        for i in range(array.type.num_fields):
            yield from _series(f"{name}.{array.type.field(i).name}", array.field(i))
        return
    values = _numpy_array(array)
    yield name, values if values.ndim == 1 and values.dtype.names is None else _objects(list(values))


def _pandas(table: Any, begin: int | None) -> Any:
    import pandas

    columns = dict(pair for name in table.column_names for pair in _series(name, _chunk(table[name])))
    index = None if begin is None else pandas.RangeIndex(begin, begin + table.num_rows, name="entry")
    return pandas.DataFrame(columns, index=index)


def _convert(table: Any, library: str, begin: int | None = None) -> Any:
    """begin: number of the first entry, None when some are left out."""
    if library in ("ak", "awkward"):
        import awkward

        return awkward.from_arrow(table.combine_chunks() if table.num_rows else table)
    if library in ("np", "numpy"):
        return _numpy(table)
    if library in ("pd", "pandas"):
        return _pandas(table, begin)
    if library in ("pa", "arrow", "pyarrow"):
        return table
    raise ValueError(f'library: "ak", "np", "pd" or "pa", but it is {library!r}')


# ---- Trees ------------------------------------------------------------------------------------------------------------


def _passes(name: str, wanted: Filter) -> bool:
    if wanted is None:
        return True
    if callable(wanted):
        return bool(wanted(name))
    patterns = [wanted] if isinstance(wanted, str) else list(wanted)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


class Column:
    """One column of a tree: `name`, `typename` (C++), `type` (of its values)."""

    def __init__(self, tree: Tree, info: Mapping[str, Any]):
        self._tree = tree
        self.name: str = info["name"]
        self.typename: str = info["type_name"]
        self.type: str | None = info["type"]

    def array(self, begin: int = 0, end: int | None = None, *, library: str = "ak", threads: int = 0) -> Any:
        """Its values of entries [begin, end): an awkward array, or with library="np" or "pa" a NumPy or Arrow array."""
        if library in ("pa", "arrow", "pyarrow"):
            return self._tree.arrow([self.name], begin, end, threads=threads)[self.name]
        return self._tree.arrays([self.name], begin, end, library=library, threads=threads)[self.name]

    def __repr__(self) -> str:
        return f"<sapwood.Column {self.name!r}: {self.type or 'cannot be read'}>"


class Tree:
    """A TTree or RNTuple: columns over its entries. `columns` are names or patterns with * and ?, one that begins with "!" leaves out;
    None means all. `where` keeps the entries for which a condition holds, such as "nMuon >= 2 && MET_pt > 30". `threads`: 0 for one
    each core."""

    def __init__(self, tree: Any):
        self._tree = tree

    @property
    def path(self) -> str:
        return self._tree.info()["path"]

    @property
    def entries(self) -> int:
        return self._tree.info()["entries"]

    num_entries = entries

    def __len__(self) -> int:
        return self.entries

    def keys(self, filter_name: Filter = None) -> list[str]:
        """Names of the columns that can be read. filter_name: a pattern, several, or a function."""
        return [b["name"] for b in self._tree.branches() if b["type"] and _passes(b["name"], filter_name)]

    def typenames(self, filter_name: Filter = None) -> dict[str, str]:
        """C++ types of the columns by their names."""
        return {b["name"]: b["type_name"] for b in self._tree.branches() if b["type"] and _passes(b["name"], filter_name)}

    def branches(self) -> list[dict[str, Any]]:
        """All branches: name, type_name (C++), type (of the column, None when it cannot be read: then reason), sizes."""
        return self._tree.branches()

    def show(self, filter_name: Filter = None, stream: Any = None) -> None:
        """Prints the columns with their C++ types and the types of their values."""
        rows = [("column", "C++ type", "type")]
        for b in self._tree.branches():
            if _passes(b["name"], filter_name):
                kind = b["type"] or ("" if b["container"] else f"cannot be read: {b['reason']}")
                rows.append(("  " * b["depth"] + b["name"], b["type_name"] or "", kind))
        widths = [min(max(len(row[i]) for row in rows), 50) for i in range(2)]
        for name, cpp, kind in rows:
            print(f"{name:{widths[0]}}  {cpp:{widths[1]}}  {kind}".rstrip(), file=stream or sys.stdout)

    def __getitem__(self, name: str) -> Column:
        return Column(self, self._tree.find(name))

    def __contains__(self, name: str) -> bool:
        try:
            return bool(self._tree.find(name))
        except NotFoundError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def add_friend(self, other: Tree, alias: str | None = None) -> Tree:
        """Reads `other` beside this tree, entry by entry: its columns are found by their names, and as "alias.name" (alias: the last part of
        its path). Returns this tree."""
        self._tree.add_friend(other._tree, alias)
        return self

    def select(
        self,
        columns: Columns = None,
        begin: int = 0,
        end: int | None = None,
        *,
        where: str | None = None,
        batch_entries: int = 0,
        batch_bytes: int = 0,
        threads: int = 0,
    ) -> Selection:
        """Columns of entries [begin, end), as a stream of Arrow batches."""
        return Selection(self._tree, columns, where, begin, end, batch_entries, batch_bytes, threads)

    def arrow(self, columns: Columns = None, begin: int = 0, end: int | None = None, *, where: str | None = None, threads: int = 0):
        """Columns as a pyarrow.Table."""
        return self.select(columns, begin, end, where=where, batch_entries=self._one_batch(columns, begin, end), threads=threads).table()

    def arrays(
        self,
        columns: Columns = None,
        begin: int = 0,
        end: int | None = None,
        *,
        where: str | None = None,
        library: str = "ak",
        threads: int = 0,
    ) -> Any:
        """Columns as library="ak" (an awkward array), "np" (a dict of arrays), "pd" (a DataFrame) or "pa" (a Table)."""
        table = self.arrow(columns, begin, end, where=where, threads=threads)
        return _convert(table, library, None if where else begin)

    def awkward(self, columns: Columns = None, begin: int = 0, end: int | None = None, **options: Any) -> Any:
        """Columns as an awkward array of records; no value is copied."""
        return self.arrays(columns, begin, end, library="ak", **options)

    def numpy(self, columns: Columns = None, begin: int = 0, end: int | None = None, **options: Any) -> dict[str, Any]:
        """Columns as a dict of NumPy arrays: lists as object arrays of arrays, fixed lists as further dimensions."""
        return self.arrays(columns, begin, end, library="np", **options)

    def pandas(self, columns: Columns = None, begin: int = 0, end: int | None = None, **options: Any) -> Any:
        """Columns as a DataFrame, indexed by the numbers of the entries unless `where` leaves some out; records become a column a field,
        lists an object column of arrays."""
        return self.arrays(columns, begin, end, library="pd", **options)

    def iterate(
        self,
        columns: Columns = None,
        step: int | str = "100 MB",
        *,
        library: str = "ak",
        begin: int = 0,
        end: int | None = None,
        where: str | None = None,
        threads: int = 0,
    ) -> Iterator[Any]:
        """Columns batch by batch, as arrays() gives them. step: entries, or about how many bytes a batch takes."""
        entries, size = _step(step)
        selection = self.select(columns, begin, end, where=where, batch_entries=entries, batch_bytes=size, threads=threads)
        return _iterate(selection, library, None if where else begin)

    def export(
        self,
        path: str | os.PathLike,
        columns: Columns = None,
        begin: int = 0,
        end: int | None = None,
        *,
        where: str | None = None,
        format: str | None = None,
        replace: bool = False,
        threads: int = 0,
        progress: Callable | None = None,
    ) -> dict[str, int]:
        """Writes columns as Parquet, Arrow IPC, CSV or npz, by the ending of the path. Returns {"read", "written", "bytes"}."""
        return _export(self._tree, path, columns, begin, end, where, format, replace, threads, progress)

    def _one_batch(self, columns: Columns, begin: int, end: int | None) -> int:
        """So many entries that all is one batch, and nothing is copied to join them; 0 where 32-bit offsets might not do."""
        largest = _core.largest_column(self._tree, _names(columns))
        return max((self.entries if end is None else end) - begin, 1) if 0 < largest < 2**28 else 0

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.select().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"<sapwood.Tree {self.path!r}: {self.entries} entries, {len(self.keys())} columns>"


def _iterate(selection: Selection, library: str, begin: int | None) -> Iterator[Any]:
    import pyarrow

    for batch in selection.batches():
        yield _convert(pyarrow.Table.from_batches([batch]), library, begin)
        begin = None if begin is None else begin + batch.num_rows


# ---- Files --------------------------------------------------------------------------------------------------------------


class File:
    """A ROOT file: a mapping from the paths of its objects to trees and histograms. Others are listed but not read."""

    def __init__(self, url: str | os.PathLike):
        self._file = _core.open(url)

    def keys(self, filter_name: Filter = None, *, cycle: bool = True) -> list[str]:
        """Paths of all objects, with their cycles unless cycle=False, sub-directories walked: ["Delphes;1", "plots/h;2"]."""
        paths = [(key["path"], key["cycle"]) for key in self._file.keys() if _passes(key["path"], filter_name)]
        return [f"{path};{number}" for path, number in paths] if cycle else list(dict.fromkeys(path for path, _ in paths))

    def classnames(self) -> dict[str, str]:
        """Class names of all objects by their paths with cycles."""
        return {f"{key['path']};{key['cycle']}": key["class_name"] for key in self._file.keys()}

    def objects(self) -> list[dict[str, Any]]:
        """All objects: path, cycle, class_name, title, is_tree, is_histogram, stored_bytes, bytes."""
        return self._file.keys()

    def trees(self) -> list[str]:
        """Paths of the trees, each once."""
        return list(dict.fromkeys(key["path"] for key in self._file.keys() if key["is_tree"]))

    def histograms(self) -> list[str]:
        """Paths of the histograms, each once."""
        return list(dict.fromkeys(key["path"] for key in self._file.keys() if key["is_histogram"]))

    @property
    def note(self) -> str | None:
        """What was lost of a file that was not closed properly, or None."""
        return self._file.info()["note"]

    def __getitem__(self, path: str) -> Tree | Histogram:
        name, _, cycle = path.partition(";")
        found = [key for key in self._file.keys() if key["path"] == name and cycle in ("", str(key["cycle"]))]
        if found and max(found, key=lambda key: key["cycle"])["is_histogram"]:
            return Histogram(self._file.histogram(path))
        return Tree(self._file.tree(path))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._file.keys())

    def __contains__(self, path: str) -> bool:
        name, _, cycle = path.partition(";")
        return any(key["path"] == name and cycle in ("", str(key["cycle"])) for key in self._file.keys())

    def __enter__(self) -> File:
        return self

    def __exit__(self, *exception: Any) -> None:
        """The file is closed when neither it nor a tree of it is used any more."""

    def __repr__(self) -> str:
        info = self._file.info()
        return f"<sapwood.File {info['name']!r}: {len(self.keys())} objects, {info['bytes']} bytes>"


def open(url: str | os.PathLike) -> File | Tree | Histogram:
    """Opens a ROOT file, or with "FILE:OBJECT" an object of it. A path object is always a file."""
    if isinstance(url, str):
        name, path = _core.split_input(os.fsencode(url))
        if path is not None:
            return File(os.fsdecode(name))[path]
    return File(url)


def _inputs(files: Files) -> list[bytes]:
    """"FILE[:TREE]" with patterns, a path, several, or {file: tree}."""
    if isinstance(files, Mapping):
        return [os.fsencode(file) + b":" + os.fsencode(tree) for file, tree in files.items()]
    return [os.fsencode(file) for file in ([files] if isinstance(files, (str, bytes, os.PathLike)) else files)]


def iterate(
    files: Files,
    columns: Columns = None,
    step: int | str = "100 MB",
    *,
    library: str = "ak",
    begin: int = 0,
    end: int | None = None,
    where: str | None = None,
    threads: int = 0,
) -> Iterator[Any]:
    """Columns of many files as one table, batch by batch, as Tree.iterate. files: "data/*.root:Events", a list, or {file: tree}; without
    a tree, the only one of each file."""
    entries, size = _step(step)
    return _iterate(Selection(_inputs(files), columns, where, begin, end, entries, size, threads), library, None if where else begin)


def concatenate(
    files: Files,
    columns: Columns = None,
    *,
    library: str = "ak",
    begin: int = 0,
    end: int | None = None,
    where: str | None = None,
    threads: int = 0,
) -> Any:
    """Columns of many files as one table, all at once, as Tree.arrays."""
    table = Selection(_inputs(files), columns, where, begin, end, 0, 0, threads).table()
    return _convert(table, library, None if where else begin)


def _export(source: Any, path: Any, columns: Columns, begin: int, end: int | None, where: str | None, *rest: Any) -> dict[str, int]:
    form, replace, threads, progress = rest
    counts = _core.export(source, _names(columns), where, *_range(begin, end), path, form, replace, threads, progress)
    return dict(zip(("read", "written", "bytes"), counts, strict=True))


def export(
    files: Files,
    path: str | os.PathLike,
    columns: Columns = None,
    begin: int = 0,
    end: int | None = None,
    *,
    where: str | None = None,
    format: str | None = None,
    replace: bool = False,
    threads: int = 0,
    progress: Callable | None = None,
) -> dict[str, int]:
    """Writes columns of files as Parquet, Arrow IPC, CSV or npz, as `sapwood export`. Returns {"read", "written", "bytes"}."""
    return _export(_inputs(files), path, columns, begin, end, where, format, replace, threads, progress)


def compare(
    a: Tree | Files,
    b: Tree | Files,
    columns: Columns = None,
    begin: int = 0,
    end: int | None = None,
    *,
    where: str | None = None,
    tolerance: float = 0.0,
    limit: int = 3,
    threads: int = 0,
    progress: Callable | None = None,
) -> dict[str, Any]:
    """Whether two trees hold the same values, as `sapwood compare`. Returns {"same", "entries", "columns", "different_columns",
    "different_entries", "differences": [(column, entry, place, text)]}."""
    sources = [other._tree if isinstance(other, Tree) else _inputs(other) for other in (a, b)]
    return _core.compare(*sources, _names(columns), where, *_range(begin, end), tolerance, limit, threads, progress)


__all__ = ["Column", "File", "NotFoundError", "Selection", "Tree", "compare", "concatenate", "export", "iterate", "open"]
