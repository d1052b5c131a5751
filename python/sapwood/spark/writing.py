"""Training sets written by Spark: the folder that `sapwood prepare` makes, byte for byte, whatever the partitioning."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._core import SHARDS
from . import tasks
from .preparation import Source, definitions, source_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

BUCKETS = 2 * SHARDS  # of the training part and of the test part
_BUCKETS_AT_ONCE = 256 << 20  # bytes of input files behind the buckets of one task, about


def write(
    prepared: DataFrame,
    folder: str | os.PathLike,
    format: str = "parquet",
    *,
    layout: str = "sapwood",
    seed: int = 1,
    test_fraction: float = 0.2,
    balance: bool = True,
    samples: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Makes a training set of prepared events: thinned, split, shuffled, with the constants of their scaling.

    prepared: what `sapwood.spark.prepare` returned, or a DataFrame made from that, say with fewer events: it needs sample, file, entry, and
        the features, by the names and with the metadata that `prepare` gave them. Where it is not from `prepare` directly, its events
        are computed twice (first to list the files), unless it is cached.
    folder: on a file system that the driver and all executors see under this path. It appears when the set is whole.
    format: "parquet" or "tfrecord".
    layout: "sapwood", or "published" as the notebooks of arXiv:1909.10389 read it. ("raw" is the DataFrame itself: prepared.write.)
    samples: names of the samples in the order of their labels; None: as `prepare` had them, else by the column "label", else by name.

    Returns {"out": folder, "dataset": what its dataset.json says}. Part files and constants are those that the command line makes of the same events;
    of a DataFrame that `prepare` made of files, dataset.json is too.
    """
    folder = os.fspath(folder)
    if "://" in folder:
        raise ValueError(f"{folder}: a dataset is written to a file system that all machines see as files (a mount of the storage serves); "
                         "or write to such a folder and copy it")
    choices = {"format": format, "layout": layout, "seed": int(seed), "test_fraction": float(test_fraction), "balance": bool(balance)}
    _check(choices)
    source = source_of(prepared)
    packing = _Packing.of_source(source) if source and samples is None else _Packing.of_rows(prepared, samples)
    return _write(packing, os.path.abspath(folder), folder, choices)


def _check(choices: dict) -> None:
    if choices["format"] not in ("parquet", "tfrecord"):
        raise ValueError(f'format: "parquet" or "tfrecord", but it is {choices["format"]!r}')
    if choices["layout"] not in ("sapwood", "published"):
        raise ValueError(f'layout: "sapwood" or "published", but it is {choices["layout"]!r}')
    if not 0 <= choices["test_fraction"] < 1:
        raise ValueError(f"test_fraction: at least 0 and below 1, but it is {choices['test_fraction']}")


# ---- What is packed -------------------------------------------------------------------------------------------------------


class _Packing:
    """The first part of a plan, and how rows are made and packed for it."""

    def __init__(self, plan: dict, frame: DataFrame, make: Any, tasks_at_end: int) -> None:
        self.plan, self.frame, self._make = plan, frame, make
        self.tasks_at_end = min(tasks_at_end, BUCKETS)

    def packed(self, plan: str) -> DataFrame:
        """(bucket, piece), each bucket's in one partition."""
        pieces = self.frame.mapInArrow(self._make(plan), "bucket int, piece binary")
        if hasattr(pieces, "repartitionById"):
            return pieces.repartitionById(self.tasks_at_end, "bucket")
        return pieces.repartition(self.tasks_at_end, "bucket")  # before Spark 4.1: by hash, so some tasks have more than others

    @staticmethod
    def of_source(source: Source) -> _Packing:
        about = source.recipe.about
        plan = {key: about[key] for key in ("recipe", "recipe_version", "convention", "features", "cuts")}
        if source.events is not None:
            plan["inputs"], numbers = _inputs(source.events, source.labels)
            return _Packing(plan, source.events, lambda text: tasks.pack_events(text, source.recipe, numbers), _shuffle_partitions(source.spark))
        plan["inputs"] = [{"sample": i.sample, "url": i.url} for i in source.inputs]
        at_end = max(_shuffle_partitions(source.spark, 8), source.bytes // _BUCKETS_AT_ONCE)
        return _Packing(
            plan,
            source.numbers(),
            lambda text: tasks.pack_files(text, source.recipe, source.tree, source.inputs, source.pieces),
            at_end,
        )

    @staticmethod
    def of_rows(frame: DataFrame, samples: Sequence[str] | None) -> _Packing:
        missing = [name for name in ("sample", "file", "entry") if name not in frame.columns]
        if missing:
            raise ValueError(f"the events have no column {', '.join(missing)}: who an event is decides what becomes of it")
        plan = {**definitions(frame), "cuts": []}
        if samples is None:
            samples = _labels(frame)
        rows = frame.select("sample", "file", frame["entry"].cast("bigint").alias("entry"), *(f["name"] for f in plan["features"]))
        plan["inputs"], numbers = _inputs(rows, list(samples))
        return _Packing(plan, rows, lambda text: tasks.pack_rows(text, numbers), _shuffle_partitions(frame.sparkSession))


def _shuffle_partitions(spark: Any, most: int = BUCKETS) -> int:
    return min(int(spark.conf.get("spark.sql.shuffle.partitions")), most)


def _labels(frame: DataFrame) -> list[str]:
    columns = ["label", "sample"] if "label" in frame.columns else ["sample"]
    found = sorted(tuple(row) for row in frame.select(*columns).distinct().collect())
    names = [row[-1] for row in found]
    if len(set(names)) < len(names):
        raise ValueError(f"a sample has several labels: {found}")
    return names


def _inputs(events: DataFrame, labels: list[str]) -> tuple[list[dict], dict[tuple[str, str], int]]:
    """The files of each sample, in the order of the labels and then by name, and their numbers by (sample, file)."""
    found = [(row["sample"], row["file"]) for row in events.select("sample", "file").distinct().collect()]
    if any(sample is None or file is None for sample, file in found):
        raise ValueError("an event's sample and file may not be null: its fate hangs on them")
    unknown = sorted({sample for sample, _ in found} - set(labels))
    if unknown:
        raise ValueError(f"sample {', '.join(unknown)} is none of those named: {', '.join(labels)}")
    found.sort(key=lambda pair: (labels.index(pair[0]), pair[1]))
    return [{"sample": sample, "url": file} for sample, file in found], {pair: number for number, pair in enumerate(found)}


# ---- Jobs ------------------------------------------------------------------------------------------------------------------


def _reports(packed: DataFrame, folder: str | None, plan: str, constants: str | None) -> list[str]:
    rows = packed.mapInArrow(tasks.write_shards(folder, plan, constants), "report string")
    return [row.report for row in rows.collect()]


def fit_constants(prepared: DataFrame, choices: dict) -> str:
    """What dataset.json would say of a training set with these choices, its constants among it; nothing is written."""
    from .. import _core

    source = source_of(prepared)
    packing = _Packing.of_source(source) if source else _Packing.of_rows(prepared, None)
    writer = _core.dataset_writer(None, json.dumps({**packing.plan, "format": "parquet", "layout": "sapwood", **choices}))
    plan = writer.plan()
    return writer.fit(_reports(packing.packed(plan), None, plan, None))


def _write(packing: _Packing, folder: str, named: str, choices: dict) -> dict[str, Any]:
    from .. import _core

    writer = _core.dataset_writer(folder, json.dumps({**packing.plan, **choices}))
    try:
        plan = writer.plan()
        packed = packing.packed(plan)
        if choices["layout"] == "published":  # stores scaled values: constants first, from the same packed rows
            packed = packed.persist()
            try:
                constants = writer.fit(_reports(packed, folder, plan, None))
                reports = _reports(packed, folder, plan, constants)
            finally:
                packed.unpersist()
        else:
            reports = _reports(packed, folder, plan, None)
        writer.finish(reports)
    finally:
        writer.close()
    with open(os.path.join(folder, "dataset.json"), encoding="utf-8") as file:
        return {"out": named, "dataset": json.load(file)}
