"""Training of Keras models in Spark: a Spark ML Estimator whose barrier tasks become MPI ranks of Sapwood's engine.

    from sapwood.spark import SapwoodEstimator

    estimator = SapwoodEstimator(model="inclusive.keras", features=["hlf", "particles"], label="label", num_workers=8)
    model = estimator.fit(frame)            # or estimator.fit("/shared/dataset")
    scored = model.transform(frame)

See docs/spark_training.md.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyspark.ml import Estimator
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql import DataFrame, SparkSession

from .callbacks import Callbacks
from .columns import assign, rows_of, stored_rows
from .model import Reader, SapwoodModel, Writer
from .sharding import PIECE_SCHEMA, SHARDS, cut
from .training import Job, Training, wait_for_slots

__all__ = ["SapwoodEstimator"]

TASKS_A_CORE = 4  # that cut rows, at most


def _is_json(value: Any) -> Any:
    """Any value that JSON can hold; tuples become lists."""
    return json.loads(json.dumps(value))


_PARAMS = {
    "features": ("columns of the network's inputs: a name, a list of names, or {input: column}; a list of columns of numbers as a column makes "
                 "one input of them", _is_json),
    "label": ("column of class numbers from 0 on, or of one-hot lists", TypeConverters.toString),
    "weight": ("column of numbers: the weight of each row in the loss", TypeConverters.toString),
    "identity": ("columns that tell rows apart and decide, hashed, which shard each is in; else sample, file and entry, if they are there, "
                 "else all columns that are used", TypeConverters.toListString),
    "validation_split": ("this share of the rows, chosen by a hash of their identity, is for validation", TypeConverters.toFloat),
    "validation_col": ("column that is true for rows that are for validation", TypeConverters.toString),
    "dataset": ("what the features are: a dataset's folder, its dataset.json, or the same as a dictionary; with their scaling constants, the "
                "labels and the seed of the shards", _is_json),
    "scaling": ("how features are scaled by constants fitted here: none, minmax or standard, or {input: scaling}", _is_json),
    "ordered": ("whether rows of sequences come in the order of the training, and not as a recipe computes them; else what the columns say", TypeConverters.toBoolean),
    "label_names": ("names of the classes", TypeConverters.toListString),
    "num_workers": ("MPI ranks, each in a barrier task of its own", TypeConverters.toInt),
    "threads": ("of each rank; 0: spark.task.cpus", TypeConverters.toInt),
    "device": ("cpu, or cuda: the GPU that Spark gives to each task", TypeConverters.toString),
    "epochs": ("passes over the training rows", TypeConverters.toInt),
    "batch_size": ("rows a step, of all ranks together", TypeConverters.toInt),
    "seed": ("of shuffling, dropout, and the shards", TypeConverters.toInt),
    "optimizer": ("adam, adamw, radam, sgd; else that of the model", TypeConverters.toString),
    "learning_rate": ("else that of the model, or the optimizer's default", TypeConverters.toFloat),
    "loss": ("by Keras' name; else that of the model", TypeConverters.toString),
    "options": ("more options of `sapwood train`: {\"clip_norm\": 1}", _is_json),
    "max_restarts": ("how often training begins again, from the last checkpoint, after executors were lost", TypeConverters.toInt),
    "checkpoint_every": ("seconds of work that this may cost; 0: an epoch", TypeConverters.toFloat),
    "out": ("folder that all executors see, where the run is kept; else checkpoints and the model come to the driver", TypeConverters.toString),
    "environment": ("variables for the ranks, such as UCX_NET_DEVICES", _is_json),
    "verbose": ("1: the ranks' progress on standard error", TypeConverters.toInt),
}  # fmt: skip
_DEFAULTS = {
    "label": "label", "scaling": "none", "num_workers": 1, "threads": 0, "device": "cpu", "epochs": 10, "batch_size": 128,
    "seed": 1, "options": {}, "max_restarts": 3, "checkpoint_every": 60.0, "environment": {}, "verbose": 1, "validation_split": 0.0,
}  # fmt: skip
_OWN = {"data", "model", "out", "csv", "model-checkpoint", "epochs", "batch", "seed", "weight", "optimizer", "learning-rate", "loss",
        "device", "validation", "checkpoint-every", "threads", "json", "quiet", "resume", "inputs", "label-column",
        "validation-data"}  # fmt: skip


class SapwoodEstimator(Estimator, MLWritable, MLReadable):
    """Trains a Keras model on a DataFrame, or on a dataset folder, with MPI ranks in Spark's barrier tasks.

    model: a .keras file, Keras' JSON of a model (its weights are then drawn from the seed), or a live keras.Model, compiled or not.
    callbacks: Keras' own, as in `sapwood.keras.fit`. EarlyStopping and ReduceLROnPlateau work in the ranks, all others at the driver, after
        each epoch; they are not saved with the estimator.
    Everything else is a parameter of Spark ML; `explainParams()` tells what they mean. `fit` returns a SapwoodModel.
    """

    def __init__(self, *, model: Any = None, callbacks: Any = None, **params: Any) -> None:
        super().__init__()
        self._setDefault(**_DEFAULTS)
        self._bytes, self._suffix = b"", ".keras"
        self.callbacks = callbacks
        if model is not None:
            self.setModel(model)
        self.setParams(**params)

    def setParams(self, **params: Any) -> SapwoodEstimator:
        """Sets parameters by name; None leaves one as it is."""
        for name in params:
            if name not in _PARAMS:
                raise TypeError(f"SapwoodEstimator has no parameter {name!r}; it has {', '.join(_PARAMS)}")
        dataset = params.get("dataset")
        if dataset is not None and not isinstance(dataset, Mapping):
            path = Path(os.fspath(dataset))
            params["dataset"] = json.loads((path / "dataset.json" if path.is_dir() else path).read_text())
        if params.get("options"):
            _check_options(params["options"])
        return self._set(**{name: value for name, value in params.items() if value is not None})

    def setModel(self, model: Any) -> SapwoodEstimator:
        """A path, or a live keras.Model, which is taken as it is now."""
        if isinstance(model, (str, os.PathLike)):
            self._bytes, self._suffix = Path(model).read_bytes(), Path(model).suffix
        else:
            with tempfile.TemporaryDirectory() as folder:
                model.save(Path(folder, "model.keras"))
                self._bytes, self._suffix = Path(folder, "model.keras").read_bytes(), ".keras"
        return self

    def _value(self, name: str) -> Any:
        param = self.getParam(name)
        return self.getOrDefault(param) if self.isDefined(param) else None

    # ---- Fitting ----

    def _fit(self, dataset: Any) -> SapwoodModel:
        begun = time.time()
        if not self._bytes:
            raise ValueError("no model: SapwoodEstimator(model=…)")
        if self._value("num_workers") < 1 or self._value("num_workers") > SHARDS:
            raise ValueError(f"num_workers={self._value('num_workers')}: from 1 to {SHARDS}")
        spark = dataset.sparkSession if isinstance(dataset, DataFrame) else SparkSession.active()
        wait_for_slots(spark, self._value("num_workers"))  # before anything else is begun
        callbacks = Callbacks(self.callbacks, self._bytes, self._value("epochs"))
        rows_come = isinstance(dataset, DataFrame)
        frame, more = self._pieces(dataset) if rows_come else self._folder(os.fspath(dataset))
        job = Job(self._value("num_workers"), [*self._arguments(rows_come), *callbacks.options], self._bytes, self._suffix,
                  out=self._value("out"), epochs_wanted=callbacks.look, gpu=self._value("device") == "cuda",
                  threads=self._value("threads"), environment=self._value("environment"), **more)  # fmt: skip
        callbacks.begin()
        result = Training(frame, job, begun=begun, restarts=self._value("max_restarts"), on_line=self._show,
                          on_epoch=callbacks.end_epoch).run()  # fmt: skip
        callbacks.end()
        if result.startup is not None:
            self._show(f"first step after {result.startup:.2f} s, all in {result.seconds:.2f} s")
        features = assign([name for name, _ in self._describe_model()["inputs"]], self._value("features"))
        return SapwoodModel._of(result, features if rows_come else {}, more["rows"].ordered if rows_come else True)

    def _pieces(self, frame: DataFrame) -> tuple[DataFrame, dict[str, Any]]:
        """Rows cut into pieces, and these brought to their ranks."""
        from pyspark.sql import functions as F

        rows = rows_of(frame, self._describe_model(), self._value)
        count = self._value("num_workers")
        # Few tasks with much to cut: each makes a piece for most shards, and a thousand small tasks would make a hundred thousand of them.
        tasks = max(count, TASKS_A_CORE * frame.sparkSession.sparkContext.defaultParallelism)
        columns = stored_rows(frame, rows, self._value).coalesce(tasks)
        shard = F.col("bucket") % SHARDS  # each rank holds a range of them
        owner = F.floor(((shard + 1) * count - 1) / SHARDS).cast("int")
        pieces = columns.mapInArrow(lambda batches: cut(batches, rows), PIECE_SCHEMA)
        return pieces.repartitionById(count, owner).sortWithinPartitions("bucket"), {"rows": rows}

    def _folder(self, folder: str) -> tuple[DataFrame, dict[str, Any]]:
        """Ranks read their shards of a folder themselves."""
        count = self._value("num_workers")
        return SparkSession.active().range(0, count, 1, count), {"data": os.path.abspath(folder)}

    def _describe_model(self) -> dict[str, Any]:
        from .. import _core

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model" + self._suffix)
            path.write_bytes(self._bytes)
            return _core.model_open(path, 1).describe()

    def _arguments(self, rows_come: bool) -> list[str]:
        """Options of `sapwood train`. rows_come: not from a folder, where columns have names of their own."""
        from .. import _settings

        given = {"epochs": self._value("epochs"), "batch": self._value("batch_size"), "seed": self._value("seed"),
                 "optimizer": self._value("optimizer"), "learning_rate": self._value("learning_rate"), "loss": self._value("loss"),
                 "device": self._value("device"), "checkpoint_every": int(self._value("checkpoint_every")),
                 "weight": "weight" if rows_come and self._value("weight") else self._value("weight"), **self._value("options")}  # fmt: skip
        return [word for name, value in _settings(given) for word in (f"--{name}", value)]

    def _show(self, line: str) -> None:
        if self._value("verbose"):
            print(line, file=sys.stderr, flush=True)

    # ---- Keeping ----

    def write(self) -> MLWriter:
        return Writer(self, {"model" + self._suffix: self._bytes})

    @classmethod
    def read(cls) -> MLReader:
        return Reader(cls)

    def _take_files(self, files: Mapping[str, bytes]) -> None:
        ((name, self._bytes),) = files.items()
        self._suffix = Path(name).suffix


for _name, (_doc, _convert) in _PARAMS.items():
    setattr(SapwoodEstimator, _name, Param(Params._dummy(), _name, _doc, typeConverter=_convert))


def _check_options(options: Mapping[str, Any]) -> None:
    from .. import _core

    known = {option[0] for option in _core.stage_options("train")} - _OWN
    for name in options:
        if name.replace("_", "-") not in known:
            raise ValueError(f"options: {name!r} is not an option of `sapwood train` that can be given here; these are {', '.join(sorted(known))}")
