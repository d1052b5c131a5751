"""ROOT files in a Spark session to which no jar can be added: a data source of Python's, over the same part of the C library."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

from .source_options import Options, parse_size

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.datasource import Filter
    from pyspark.sql.types import StructType

_LOG = logging.getLogger(__name__)
_PUSHDOWN = "spark.sql.python.filterPushdown.enabled"
_THREADS = 16  # opening is waiting, where files are remote
# What badFiles=skip passes over: kinds of failure that are a file's, not the query's.
_BAD_FILE = {"bad format", "input/output", "not found", "unsupported", "unusable data", "wrong type"}


def register(spark: SparkSession, name: str = "root") -> None:
    """Makes `spark.read.format("root")` work in this session without a jar. Driver and executors need this package.

    Where the jar is, its connector keeps the name: it has the same options and results, and reads only the columns that a query needs.
    Another `name` has this source beside it. Unless it is set already, this switches on spark.sql.python.filterPushdown.enabled, so that
    comparisons leave out entries while they are read.
    """
    remote = not hasattr(spark, "_jvm")  # Spark Connect
    if name == "root" and not remote and _has_connector(spark):
        return
    if spark.conf.get(_PUSHDOWN, None) is None:
        spark.conf.set(_PUSHDOWN, "true")
    known = {
        "format_name": name,
        "reader_class": _FilteringReader if spark.conf.get(_PUSHDOWN) == "true" else _Reader,
        "part_size": parse_size("spark.sql.files.maxPartitionBytes", spark.conf.get("spark.sql.files.maxPartitionBytes", "128m")),
        "slots": 1 if remote else spark.sparkContext.defaultParallelism,
    }
    spark.dataSource.register(type("RootDataSource", (_RootDataSource,), known))


def _has_connector(spark: SparkSession) -> bool:
    from py4j.java_gateway import JavaClass

    return isinstance(spark._jvm.sapwood.spark.RootDataSource, JavaClass)


class _RootDataSource(DataSource):
    """Made in a worker of the driver's for each load(); `register` derives the class that knows the session."""

    format_name: str
    reader_class: type[_Reader]
    part_size: int
    slots: int
    _inferred = False

    @classmethod
    def name(cls) -> str:
        return cls.format_name

    def schema(self) -> StructType:
        import pyarrow as pa
        from pyspark.sql.pandas.types import from_arrow_schema

        from .. import _core

        self._inferred = True  # and not the user's or a catalog's, of which a file may lack columns
        o = Options.of(self.options)
        capsule = _core.table_schema(_names(o), o.tree, o.merge_schema, o.skip_bad_files, o.identity, list(o.columns), _THREADS)
        return from_arrow_schema(pa.schema(_Schema(capsule)))

    def reader(self, schema: StructType) -> DataSourceReader:
        return self.reader_class(Options.of(self.options), schema, not self._inferred, self.part_size, self.slots)


class _Schema:
    """A capsule as an object that pyarrow takes."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __arrow_c_schema__(self) -> Any:
        return self._capsule


def _names(options: Options) -> list[bytes]:
    return [os.fsencode(path) for path in options.paths]


@dataclass
class _Part(InputPartition):
    """What one task reads: entries [begin, end) of some files, as (url, begin, end)."""

    slices: list[tuple[bytes, int, int]]


@dataclass
class _Reader(DataSourceReader):
    """Plans in the driver's worker, and goes from there to the executors'."""

    options: Options
    schema: StructType
    given: bool  # the schema is the user's or a catalog's
    part_size: int
    slots: int
    hints: list[str] = field(default_factory=list)

    def partitions(self) -> list[InputPartition]:
        """Parts of targetSize, or as many as there are slots, and no larger than Spark makes those of its own files."""
        from .. import _core

        o, wanted = self.options, self._arrow().__arrow_c_schema__()
        table = _core.table(_names(o), o.tree, o.merge_schema, o.skip_bad_files, o.identity, wanted if self.given else None, _THREADS)
        files = table.files()
        for _, problem, _, _ in files:
            if problem is not None:
                _LOG.warning("left out: %s", problem)
        size, least = (o.target_size, 1) if o.target_size else (self.part_size, self.slots)
        parts: list[InputPartition] = []
        for file, begin, end, part in table.plan(wanted, size, least):
            if part == len(parts):
                parts.append(_Part([]))
            parts[part].slices.append((files[file][0], begin, end))
        return parts

    def read(self, partition: InputPartition) -> Iterator[Any]:
        slices = getattr(partition, "slices", [])  # of a table without entries Spark makes a part of its own
        for url, begin, end in slices:
            try:
                yield from self._read_slice(url, begin, end)
            except Exception as failure:
                if not self.options.skip_bad_files or getattr(failure, "status", None) not in _BAD_FILE:
                    raise
                _LOG.warning("the rest of entries [%d, %d) is left out: %s", begin, end, failure)

    def _read_slice(self, url: bytes, begin: int, end: int) -> Iterator[Any]:
        from .. import _core
        from .tasks import record_batch

        o, schema = self.options, self._arrow()
        lenient = self.given or o.merge_schema
        wanted = schema.__arrow_c_schema__()
        reader = _core.table_reader(url, o.tree, begin, end, wanted, lenient, o.identity, o.where, self.hints, o.batch_size)
        while (array := reader.next()) is not None:
            batch = record_batch((schema.__arrow_c_schema__(), array))
            if batch.get_total_buffer_size() > o.memory_limit:
                raise MemoryError(f"{os.fsdecode(url)}: a batch takes {batch.get_total_buffer_size()} bytes, option memoryLimit is {o.memory_limit}; a smaller batchSize helps")
            yield batch

    def _arrow(self) -> Any:
        from pyspark.sql.pandas.types import to_arrow_schema

        return to_arrow_schema(self.schema)


class _FilteringReader(_Reader):
    """The same where filters may be pushed down: Spark refuses a reader that defines this method where they may not."""

    def pushFilters(self, filters: list[Filter]) -> Iterable[Filter]:
        """Spark looks at all of them again: nulls and NaN are ordered there in another way than in C. What is taken out here is only never
        wanted."""
        from .filters import translate

        self.hints = [condition for filter in filters if (condition := translate(self.schema, filter)) is not None]
        return filters
