"""Events scored by a trained network, natively inside Spark's tasks."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyspark import keyword_only
from pyspark.ml.base import Transformer
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable

from . import tasks
from .preparation import inputs_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FILES = ("model.keras", "dataset.json")  # of a run's folder


class Scorer(Transformer, DefaultParamsReadable, DefaultParamsWritable):
    """Scores events with a network that `sapwood train` or `SapwoodEstimator` trained.

        scored = Scorer(model="run").transform(events)

    events: features, as sapwood.spark.prepare makes them; or events with the inputs of the recipe that the network was trained on (as columns
    or fields of collections, see `prepare`), which then runs first. All rows and columns stay; added are the scores, array<float> with a number
    for each class, and the number of the class with the highest. Both are null for events that the recipe does not select. The model
    travels with the transformer: it is read here, not by the tasks.

    model: a run's folder, or its model.keras.
    recipe: path of the C file, for a network that was trained on a recipe of one's own and scores events.
    ordered: sequences of the features are in training order, as in a dataset's part files; else as computed.
    """

    model: Param[str] = Param(Params._dummy(), "model", "the trained network's folder", TypeConverters.toString)
    network: Param[dict] = Param(Params._dummy(), "network", "its files, base64", TypeConverters.identity)
    recipe: Param[str] = Param(Params._dummy(), "recipe", "C file of a recipe of one's own", TypeConverters.toString)
    ordered: Param[bool] = Param(Params._dummy(), "ordered", "sequences are in training order", TypeConverters.toBoolean)
    scoresCol: Param[str] = Param(Params._dummy(), "scoresCol", "name of the column of scores", TypeConverters.toString)
    predictionCol: Param[str] = Param(Params._dummy(), "predictionCol", "name of the column of class numbers", TypeConverters.toString)

    @keyword_only
    def __init__(
        self,
        *,
        model: str | os.PathLike | None = None,
        recipe: str | os.PathLike | None = None,
        ordered: bool = False,
        scoresCol: str = "scores",
        predictionCol: str = "prediction",
    ) -> None:
        super().__init__()
        self._setDefault(ordered=False, scoresCol="scores", predictionCol="prediction")
        given = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in self._input_kwargs.items()}
        self._set(**{name: value for name, value in given.items() if value is not None})
        if model is not None:
            folder = os.fspath(model)
            folder = os.path.dirname(folder) or "." if os.path.isfile(folder) else folder
            files = {}
            for name in FILES:
                with open(os.path.join(folder, name), "rb") as file:
                    files[name] = base64.b64encode(file.read()).decode()
            self._set(network=files)

    def _files(self) -> dict[str, str]:
        if not self.isDefined("network"):
            raise ValueError("Scorer: give it a model")
        return self.getOrDefault("network")

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of the scores."""
        return json.loads(base64.b64decode(self._files()["dataset.json"]))["labels"]

    def _find_recipe(self) -> tasks.Recipe:
        about = json.loads(base64.b64decode(self._files()["dataset.json"]))
        recipe = tasks.Recipe.find(self.getOrDefault("recipe") if self.isDefined("recipe") else about["recipe"], about["convention"])
        if recipe.about["recipe"] != about["recipe"]:
            raise ValueError(f"the network was trained on features of the recipe {about['recipe']!r}, not of {recipe.about['recipe']!r}")
        return recipe

    def _transform(self, dataset: DataFrame) -> DataFrame:
        from pyspark.sql import functions as F
        from pyspark.sql import types as T
        from pyspark.sql.pandas.types import to_arrow_schema

        names = _network(self._files()).inputs()
        recipe, added = None, []
        if not all(name in dataset.columns for name in names):
            recipe = self._find_recipe()
            added = inputs_of(dataset, recipe)
        schema = T.StructType(dataset.schema.fields + [
            T.StructField(self.getOrDefault("scoresCol"), T.ArrayType(T.FloatType(), False), True),
            T.StructField(self.getOrDefault("predictionCol"), T.IntegerType(), True)])  # fmt: skip
        columns = [F.col(f"`{name}`").alias(f"column{number}") for number, name in enumerate(dataset.columns)]
        renamed = dataset.select(*columns, *added)
        numbers = {name: f"column{dataset.columns.index(name)}" for name in names if name in dataset.columns}
        run = _score(self._files(), numbers, recipe, self.getOrDefault("ordered"), to_arrow_schema(schema))
        return renamed.mapInArrow(run, schema)


_open: dict[str, Any] = {}  # networks of this process


def _network(files: dict[str, str]) -> Any:
    from .. import _core

    key = hashlib.sha256("".join(files[name] for name in FILES).encode()).hexdigest()
    if key not in _open:
        with tempfile.TemporaryDirectory(prefix="sapwood-") as folder:
            for name in FILES:
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(base64.b64decode(files[name]))
            _open[key] = _core.scorer(folder)
    return _open[key]


def _score(files: dict[str, str], columns: dict[str, str], recipe: tasks.Recipe | None, ordered: bool, schema: Any) -> Callable:
    def run(batches: tasks.Batches) -> tasks.Batches:
        import numpy as np
        import pyarrow as pa

        network = _network(files)
        names = network.inputs()
        for batch in batches:
            rows = None  # of the batch that have features; None: all
            if recipe is None:
                features = pa.RecordBatch.from_arrays([batch.column(columns[name]) for name in names], names)
            else:
                computed, _ = tasks.compute(recipe, batch, "events")
                rows, features = computed.column("entry").to_numpy(), computed.select(names)
            scores = np.frombuffer(network.score(*features.__arrow_c_array__(), ordered and recipe is None), np.float32)
            scores = scores.reshape(features.num_rows, -1)
            kept = batch.columns[: len(schema) - 2]
            arrays = [*kept, *_columns(scores, rows, batch.num_rows)]
            yield pa.RecordBatch.from_arrays([a.cast(kind) for a, kind in zip(arrays, schema.types, strict=True)], schema=schema)

    return run


def _columns(scores: Any, rows: Any, count: int) -> list[Any]:
    """Scores and predictions of `count` rows, null for those that are not among `rows`."""
    import numpy as np
    import pyarrow as pa

    best = scores.argmax(axis=1).astype(np.int32) if len(scores) else np.zeros(0, np.int32)
    flat = pa.array(scores.reshape(-1))
    there = np.ones(count, bool)
    if rows is not None:
        there = np.zeros(count, bool)
        there[rows] = True
    classes = scores.shape[1] if len(scores) else 0
    ends = np.concatenate([[0], np.cumsum(there) * classes]).astype(np.int32)
    prediction = np.zeros(count, np.int32)
    prediction[there] = best
    return [pa.ListArray.from_arrays(pa.array(ends), flat, mask=pa.array(~there)), pa.array(prediction, mask=~there)]
