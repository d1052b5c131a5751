"""Selection and features on Spark: `prepare`, whose result is a DataFrame, and what `write` has to know of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import tasks

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import StructType

Paths = str | os.PathLike | Sequence[str | os.PathLike]
ABOUT = "sapwood"  # key of a feature's definition in its column's metadata


def prepare(
    events: Mapping[str, Paths | DataFrame] | Paths | DataFrame,
    recipe: str | os.PathLike = "topology",
    convention: str | None = None,
    *,
    samples: Sequence[str] | None = None,
    tree: str | None = None,
    file: str | Column = "file",
    entry: str | Column = "entry",
    partition_bytes: int = 32 << 20,
    spark: SparkSession | None = None,
) -> DataFrame:
    """Selects events and computes their features, natively and inside Spark's tasks. Nothing runs before the result is used.

    events: {"qcd": "root://host//data/qcd*.root", "ttbar": […]}, paths as the command line takes them, read by the tasks themselves; or
        {"qcd": DataFrame, …}; or one DataFrame with a column "sample". DataFrames hold an event a row: the recipe's inputs as columns
        ("MissingET_size", "Jet.PT") or in collections (a field PT of an array<struct> Jet), and who the event is: `file` and `entry`, which
        `spark.read.format("root")` gives with option("identity", True). Paths alone, and a DataFrame without a column "sample", are
        one sample, called as `samples` says, else "events".
    recipe: "topology", or the path of a C file, which is compiled here and travels with the job.
    convention: a variant of the recipe; None: its default.
    samples: names of the samples in the order of their labels; None: as in `events`, of one DataFrame in alphabetical order.
    tree: path of the tree in the files; None: the recipe's.
    file, entry: columns of DataFrames with the file's name or path and the number of the entry in its tree.
    partition_bytes: of files that one task reads, about; a task reads whole clusters.

    Returns a DataFrame of the selected events: sample, file (base name), entry, label, and a column for each feature: array<float>, of a
    sequence its rows one after another, as computed. `sapwood.spark.write` makes a training set of it.
    """
    shipped = tasks.Recipe.find(recipe, convention)
    if "sample" not in events.columns if _is_frame(events) else not isinstance(events, Mapping):
        events = {_only(samples): events}
    if not isinstance(events, Mapping):
        return _of_frames(shipped, _identified(events, "sample", file, entry, shipped), samples)
    if not events:
        raise ValueError("prepare: no samples are named")
    names = list(samples) if samples is not None else list(events)
    if sorted(names) != sorted(events):
        raise ValueError(f"samples: {names} are not the samples that are given: {list(events)}")
    if all(_is_frame(value) for value in events.values()):
        from functools import reduce

        from pyspark.sql import DataFrame, functions as F

        frames = [_identified(events[name], F.lit(name), file, entry, shipped) for name in names]
        return _of_frames(shipped, reduce(DataFrame.union, frames), names)
    if any(_is_frame(value) for value in events.values()):
        raise TypeError("prepare: either all samples are given as paths, or all as DataFrames")
    return _of_files(shipped, {name: events[name] for name in names}, tree, partition_bytes, spark)


def _only(samples: Sequence[str] | None) -> str:
    """The name of the one sample that events are which do not say."""
    if samples is not None and len(samples) != 1:
        raise ValueError(f"samples: {list(samples)} are not one, and the events do not say which is which: give {{name: paths}}, or a column \"sample\"")
    return samples[0] if samples else "events"


# ---- Schemas -----------------------------------------------------------------------------------------------------------


def _schema(about: dict) -> StructType:
    """Of the result; a feature's column says in its metadata what `write` and the Spark ML surfaces have to know of it."""
    from pyspark.sql import types as T

    made_by = {key: about[key] for key in ("recipe", "recipe_version", "convention")}
    fields = [
        T.StructField("sample", T.StringType(), False),
        T.StructField("file", T.StringType(), False),
        T.StructField("entry", T.LongType(), False),
        T.StructField("label", T.IntegerType(), False),
    ]
    for feature in about["features"]:
        metadata = {ABOUT: json.dumps({**made_by, "feature": feature})}
        fields.append(T.StructField(feature["name"], T.ArrayType(T.FloatType(), False), False, metadata))
    return T.StructType(fields)


def _arrow(schema: StructType) -> Any:
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(schema)


# ---- Files ---------------------------------------------------------------------------------------------------------------


@dataclass
class Source:
    """Where prepared features come from, so that `write` can take them from there without making rows of them."""

    recipe: tasks.Recipe
    labels: list[str]
    spark: SparkSession
    tree: str | None = None
    inputs: list[tasks.Input] = field(default_factory=list)
    pieces: list[tasks.Piece] = field(default_factory=list)
    bytes: int = 0  # of the inputs
    events: DataFrame | None = None  # sample, file, entry and the recipe's inputs; None: files

    def numbers(self) -> DataFrame:
        """The pieces' numbers, each in a partition of its own."""
        return self.spark.range(0, len(self.pieces), 1, numPartitions=len(self.pieces))


def _list(paths: Paths) -> list[str]:
    return [os.fspath(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]


def _find_inputs(samples: Mapping[str, Paths]) -> list[tasks.Input]:
    from .. import _core

    inputs = []
    for label, (sample, paths) in enumerate(samples.items()):
        for pattern in _list(paths):
            for url in map(os.fsdecode, _core.glob(pattern)):
                path = url if ":" in url.partition("/")[0] else os.path.abspath(url)
                inputs.append(tasks.Input(sample, url, path, tasks.base_name(url), label))
    return inputs


def _cut(inputs: list[tasks.Input], partition_bytes: int) -> tuple[list[tasks.Piece], int]:
    """Pieces of about that size, and the size of all files: only that is asked for here, clusters are found by the tasks."""
    from .. import _core

    if partition_bytes < 1:
        raise ValueError(f"partition_bytes: {partition_bytes}")
    with ThreadPoolExecutor(16) as threads:
        sizes = list(threads.map(_core.file_size, (source.path for source in inputs)))
    pieces = []
    for index, size in enumerate(sizes):
        count = max(1, -(-size // partition_bytes))
        pieces += [tasks.Piece(index, number, count) for number in range(count)]
    return pieces, sum(sizes)


def _of_files(recipe: tasks.Recipe, samples: Mapping[str, Paths], tree: str | None, partition_bytes: int, spark: SparkSession | None) -> DataFrame:
    from pyspark.sql import SparkSession

    spark = spark or SparkSession.getActiveSession()
    if spark is None:
        raise RuntimeError("prepare: there is no active SparkSession: make one with sapwood.spark.session(), or give it as spark=")
    inputs = _find_inputs(samples)
    pieces, size = _cut(inputs, partition_bytes)
    source = Source(recipe, list(samples), spark, tree, inputs, pieces, size)
    schema = _schema(recipe.about)
    run = tasks.read_features(recipe, tree, inputs, pieces, _arrow(schema))
    return _marked(source.numbers().mapInArrow(run, schema), source)


# ---- DataFrames ------------------------------------------------------------------------------------------------------------


def _is_frame(value: Any) -> bool:
    from pyspark.sql import DataFrame

    return isinstance(value, DataFrame)


def inputs_of(events: DataFrame, recipe: tasks.Recipe) -> list[Column]:
    """The recipe's inputs: columns of these names, or fields of collections. They are numbered on the way, as Spark takes a dot in a name for
    a field's."""
    from pyspark.sql import functions as F

    chosen, missing = [], []
    for number, wanted in enumerate(recipe.about["inputs"]):
        name, alias = wanted["name"], tasks.input_column(number)
        collection, _, member = name.partition(".")
        if name in events.columns:
            chosen.append(F.col(f"`{name}`").alias(alias))
        elif member and collection in events.columns:
            chosen.append(F.col(f"`{collection}`")[member].alias(alias))
        else:
            missing.append(name)
    if missing:
        raise ValueError(f"recipe {recipe.name!r}: the events have no column {', '.join(missing)}; they have {', '.join(events.columns)}")
    return chosen


def _identified(events: DataFrame, sample: str | Column, file: str | Column, entry: str | Column, recipe: tasks.Recipe) -> DataFrame:
    from pyspark.sql import functions as F

    for name in (sample, file, entry):
        if isinstance(name, str) and name not in events.columns:
            raise ValueError(f"the events have no column {name!r}: a sample, a file and an entry say which event is which, and its fate hangs on that; "
                             'format("root") has them with option("identity", True)')
    identity = [(F.col(f"`{c}`") if isinstance(c, str) else c).alias(name) for c, name in ((sample, "sample"), (file, "file"), (entry, "entry"))]
    identity[2] = identity[2].cast("bigint").alias("entry")
    return events.select(*identity, *inputs_of(events, recipe))


def _of_frames(recipe: tasks.Recipe, events: DataFrame, samples: Sequence[str] | None) -> DataFrame:
    if samples is None:
        samples = sorted(row[0] for row in events.select("sample").distinct().collect())
    source = Source(recipe, list(samples), events.sparkSession, events=events)
    schema = _schema(recipe.about)
    run = tasks.compute_features(recipe, source.labels, _arrow(schema))
    return _marked(events.mapInArrow(run, schema), source)


# ---- What becomes of it ------------------------------------------------------------------------------------------------------


def _marked(prepared: DataFrame, source: Source) -> DataFrame:
    prepared._sapwood_source = source
    return prepared


def source_of(prepared: DataFrame) -> Source | None:
    """The source of exactly what `prepare` returned; None of everything else, also of what was made from that."""
    return getattr(prepared, "_sapwood_source", None)


def definitions(frame: DataFrame) -> dict:
    """Features among the columns of a DataFrame, by their metadata: {"recipe", "recipe_version", "convention", "features"}."""
    made_by: dict = {}
    features = []
    for column in frame.schema.fields:
        about = json.loads(column.metadata.get(ABOUT, "{}"))
        if about:
            features.append(about.pop("feature") | {"name": column.name})
            if made_by and made_by != about:
                raise ValueError(f"column {column.name!r} was made by another recipe than the ones before it")
            made_by = about
    if not features:
        raise ValueError("no column of this DataFrame is a feature that sapwood.spark.prepare made, or none has kept its metadata")
    return {**made_by, "features": features}
