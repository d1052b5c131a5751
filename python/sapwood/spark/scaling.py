"""Scaling constants and labels as a model of Spark ML."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pyspark import keyword_only
from pyspark.ml.base import Estimator, Model
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable

from . import tasks
from .writing import fit_constants

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class _Suffix(Params):
    suffix: Param[str] = Param(Params._dummy(), "suffix", "what is put behind a feature's name for its scaled column", TypeConverters.toString)
    ordered: Param[bool] = Param(
        Params._dummy(), "ordered", "sequences are in training order already, as in a dataset's files", TypeConverters.toBoolean
    )

    def setSuffix(self, value: str) -> Any:
        return self._set(suffix=value)

    def setOrdered(self, value: bool) -> Any:
        return self._set(ordered=value)


class FeatureScaler(Estimator, _Suffix, DefaultParamsReadable, DefaultParamsWritable):
    """Fits the constants by which a recipe's features are scaled, as the recipe asks for each: to [0, 1], or by mean and deviation.

        model = FeatureScaler().fit(prepared)       # what sapwood.spark.prepare made, or rows of it
        scaled = model.transform(prepared)          # hlf_scaled, particles_scaled

    With the seed, test_fraction and balance of a dataset the constants are those that stand in its dataset.json, to the last bit; without
    (test_fraction 0, balance False) they come from all rows.
    """

    seed: Param[int] = Param(Params._dummy(), "seed", "decides thinning and splitting, as of a dataset", TypeConverters.toInt)
    testFraction: Param[float] = Param(Params._dummy(), "testFraction", "share of the events that is left out", TypeConverters.toFloat)
    balance: Param[bool] = Param(Params._dummy(), "balance", "whether the larger classes are thinned first", TypeConverters.toBoolean)

    @keyword_only
    def __init__(
        self, *, seed: int = 1, testFraction: float = 0.0, balance: bool = False, suffix: str = "_scaled", ordered: bool = False
    ) -> None:
        super().__init__()
        self._setDefault(seed=1, testFraction=0.0, balance=False, suffix="_scaled", ordered=False)
        self._set(**self._input_kwargs)

    def _fit(self, dataset: DataFrame) -> FeatureScalerModel:
        choices = {
            "seed": self.getOrDefault("seed"),
            "test_fraction": self.getOrDefault("testFraction"),
            "balance": self.getOrDefault("balance"),
        }
        model = FeatureScalerModel._of(fit_constants(dataset, choices))
        return self._copyValues(model._resetUid(self.uid))


class FeatureScalerModel(Model, _Suffix, DefaultParamsReadable, DefaultParamsWritable):
    """Scales features: for each one among a DataFrame's columns a column more, array<float>: scaled, a sequence's rows in training order one
    after another, as networks read them. Rows without a column "label" get it from "sample"."""

    description: Param[str] = Param(Params._dummy(), "description", "features and constants as dataset.json has them", TypeConverters.toString)

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(suffix="_scaled", ordered=False)

    @classmethod
    def _of(cls, description: str) -> FeatureScalerModel:
        return cls()._set(description=description)

    @classmethod
    def of_dataset(cls, folder: str | os.PathLike) -> FeatureScalerModel:
        """With the constants of a dataset, or of a trained network's folder."""
        with open(os.path.join(folder, "dataset.json"), encoding="utf-8") as file:
            return cls._of(file.read())

    def _about(self) -> dict:
        return json.loads(self.getOrDefault("description"))

    @property
    def labels(self) -> list[str]:
        """Names of the samples; a label is an index into them."""
        return self._about()["labels"]

    @property
    def constants(self) -> dict[str, dict[str, Any]]:
        """{feature: {"rows", "shift", "factor"}}, x' = (x - shift) * factor; None for one that has none."""
        return {feature["name"]: feature["constants"] for feature in self._about()["features"]}

    def _transform(self, dataset: DataFrame) -> DataFrame:
        from pyspark.sql import functions as F
        from pyspark.sql import types as T
        from pyspark.sql.pandas.types import to_arrow_schema

        names = [name for name in self.constants if name in dataset.columns]
        if not names:
            raise ValueError(f"none of the features {', '.join(self.constants)} is among the columns {', '.join(dataset.columns)}")
        if "label" not in dataset.columns and "sample" in dataset.columns:
            places = F.create_map(*[F.lit(x) for pair in zip(self.labels, range(len(self.labels)), strict=True) for x in pair])
            dataset = dataset.withColumn("label", places[F.col("sample")])
        schema = T.StructType(dataset.schema.fields + [
            T.StructField(name + self.getOrDefault("suffix"), T.ArrayType(T.FloatType(), False), False) for name in names])  # fmt: skip
        run = _scale(self.getOrDefault("description"), names, self.getOrDefault("ordered"), to_arrow_schema(schema))
        return dataset.mapInArrow(run, schema)


_open: dict[str, Any] = {}  # scalers of this process, by their description


def _scaler(description: str) -> Any:
    from .. import _core

    if description not in _open:
        with tempfile.TemporaryDirectory(prefix="sapwood-") as folder:
            with open(os.path.join(folder, "dataset.json"), "w", encoding="utf-8") as file:
                file.write(description)
            _open[description] = _core.scaler(folder)
    return _open[description]


def _scale(description: str, names: Sequence[str], ordered: bool, schema: Any) -> Callable:
    def run(batches: tasks.Batches) -> tasks.Batches:
        import pyarrow as pa

        for batch in batches:
            scaled = tasks.record_batch(_scaler(description).scale(*batch.select(names).__arrow_c_array__(), list(names), ordered))
            arrays = [*batch.columns, *scaled.columns]
            yield pa.RecordBatch.from_arrays([a.cast(kind) for a, kind in zip(arrays, schema.types, strict=True)], schema=schema)

    return run
