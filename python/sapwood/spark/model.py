"""A trained network as a Spark ML Model: what it was trained with and on, its history, its files."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.ml import Model
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWritable, MLWriter

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from .training import Result


# ---- Files on any of Hadoop's file systems ------------------------------------------------------------------------------


def _path(spark: Any, path: str) -> tuple[Any, Any]:
    jvm = spark.sparkContext._jvm
    found = jvm.org.apache.hadoop.fs.Path(path)
    return found, found.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())


def write_bytes(spark: Any, path: str, data: bytes) -> None:
    found, system = _path(spark, path)
    stream = system.create(found, True)
    try:
        stream.write(bytearray(data))
    finally:
        stream.close()


def read_bytes(spark: Any, path: str) -> bytes:
    found, system = _path(spark, path)
    stream = system.open(found)
    try:
        return bytes(spark.sparkContext._jvm.org.apache.commons.io.IOUtils.toByteArray(stream))
    finally:
        stream.close()


def _names(spark: Any, folder: str) -> list[str]:
    found, system = _path(spark, folder)
    return sorted(status.getPath().getName() for status in system.listStatus(found))


class Writer(MLWriter):
    """Parameters as Spark ML keeps them, and files beside them in the folder `files`."""

    def __init__(self, instance: Any, files: Mapping[str, bytes]) -> None:
        super().__init__()
        self._instance, self._files = instance, files

    def saveImpl(self, path: str) -> None:
        DefaultParamsWriter.saveMetadata(self._instance, path, self.sparkSession)
        for name, data in self._files.items():
            write_bytes(self.sparkSession, f"{path}/files/{name}", data)


class Reader(MLReader):
    """The way back: an instance of the class that takes the files."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self._kind = kind

    def load(self, path: str) -> Any:
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        instance = self._kind()
        instance._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(instance, metadata)
        folder = f"{path}/files"
        instance._take_files({name: read_bytes(self.sparkSession, f"{folder}/{name}") for name in _names(self.sparkSession, folder)})
        return instance


# ---- The model -------------------------------------------------------------------------------------------------------------


class SapwoodModel(Model, MLWritable, MLReadable):
    """A network that SapwoodEstimator trained. `transform` adds the scores, array<float> with a number for each class, and the number of the
    class with the highest, to the columns that it was trained on, or to events of the recipe that made them (see Scorer).

    history: {name: values by epoch}, by Keras' names, and "seconds" of each epoch.
    startup: seconds from `fit` to the first step; seconds: of the whole `fit`; restarts: how often training began again. None when loaded.
    """

    features = Param(Params._dummy(), "features", "{input: column, or columns}", TypeConverters.identity)
    ordered = Param(Params._dummy(), "ordered", "sequences are in the order of the training", TypeConverters.toBoolean)
    scoresCol = Param(Params._dummy(), "scoresCol", "name of the column of scores", TypeConverters.toString)
    predictionCol = Param(Params._dummy(), "predictionCol", "name of the column of class numbers", TypeConverters.toString)

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(features={}, ordered=True, scoresCol="scores", predictionCol="prediction")
        self._files: dict[str, bytes] = {}
        self.startup: float | None = None
        self.seconds: float | None = None
        self.restarts: int | None = None

    @classmethod
    def _of(cls, result: Result, features: Mapping[str, Any], ordered: bool) -> SapwoodModel:
        model = cls()._set(features=dict(features), ordered=ordered)
        model._take_files(result.files)
        model.startup, model.seconds, model.restarts = result.startup, result.seconds, result.restarts
        return model

    def _take_files(self, files: Mapping[str, bytes]) -> None:
        self._files = dict(files)

    @property
    def history(self) -> dict[str, list[float]]:
        epochs = json.loads(self._files["history.json"])
        names = dict.fromkeys(name for epoch in epochs for name in epoch if name != "epoch")
        columns = {name.replace("validation_", "val_"): [epoch.get(name) for epoch in epochs] for name in names}
        return {name: values for name, values in columns.items() if any(value is not None for value in values)}

    @property
    def keras_file(self) -> bytes:
        """The trained network as a .keras file."""
        return self._files["model.keras"]

    def to_keras(self) -> Any:
        """The trained network as a live keras.Model."""
        import tempfile

        import keras

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.keras")
            path.write_bytes(self.keras_file)
            return keras.saving.load_model(path)

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of the scores."""
        return json.loads(self._files["dataset.json"])["labels"]

    def save_run(self, folder: str | os.PathLike) -> Path:
        """Writes the run folder that `sapwood evaluate`, `predict` and `report` take, on this machine; returns its path."""
        path = Path(folder)
        path.mkdir(parents=True)
        for name, data in self._files.items():
            (path / name).write_bytes(data)
        return path

    def _transform(self, dataset: DataFrame) -> DataFrame:
        from pyspark.sql import functions as F

        from .columns import numbers
        from .scoring import FILES, Scorer

        names = {name: self.getOrDefault(name) for name in ("ordered", "scoresCol", "predictionCol")}
        scorer = Scorer(**names)._set(network={name: base64.b64encode(self._files[name]).decode() for name in FILES})
        features = self.getOrDefault("features")
        used = [name for columns in features.values() for name in ([columns] if isinstance(columns, str) else columns)]
        if not features or not all(name in dataset.columns for name in used):
            return scorer.transform(dataset)  # events, of which a recipe makes features
        whole = F.struct(*[F.col(f"`{name}`") for name in dataset.columns]).alias("__row")
        inputs = [numbers(dataset, column).alias(name) for name, column in features.items()]
        scored = scorer.transform(dataset.select(whole, *inputs))
        return scored.select("__row.*", names["scoresCol"], names["predictionCol"])

    def write(self) -> MLWriter:
        return Writer(self, self._files)

    @classmethod
    def read(cls) -> MLReader:
        return Reader(cls)
