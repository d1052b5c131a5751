"""Keras models, trained and used by Sapwood's C core.

    import keras, sapwood.keras

    history = sapwood.keras.fit(model, x, y, batch_size=128, epochs=20, validation_split=0.2)
    scores = sapwood.keras.predict(model, x)

The model is a live one of Keras 3, compiled as always; what it was compiled with, its weights and the state of its optimizer are
taken from it, and put back. See docs/keras.md.
"""

from __future__ import annotations

import ctypes
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import _core
from ._batches import Batches, is_dataset, read_inputs, read_targets, read_weights

__all__ = ["evaluate", "fit", "predict"]


class _Engine:
    """A model in C, beside the live one."""

    def __init__(self, model: Any, threads: int) -> None:
        import keras

        if not isinstance(model, keras.Model):
            raise TypeError(f"sapwood.keras takes a keras.Model, not {type(model).__name__}")
        if not model.built:
            raise ValueError("the model has no weights yet: build it, or give it an Input")
        self.live = model
        self.folder = tempfile.TemporaryDirectory(prefix="sapwood-keras-")
        self.path = Path(self.folder.name, "model.keras")
        model.save(self.path)
        self.core = _core.model_open(self.path, threads)
        about = self.core.describe()
        self.inputs, self.outputs = about["inputs"], about["outputs"]
        self.compiled, self.unknown = about["compiled"], about["unknown"]
        weights = model.weights
        if [tuple(w.shape) for w in weights] != [shape for _, shape, _, _ in about["weights"]]:
            raise ValueError("the model's weights are not those of its layers, one after another")
        self.arrays = [_view(address, shape) for _, shape, _, address in about["weights"]]
        self.output_names = list(getattr(model, "output_names", None) or [name for name, _ in self.outputs])

    def to_live(self) -> None:
        """Weights, and the optimizer's state, become those here."""
        for variable, array in zip(self.live.weights, self.arrays, strict=True):
            variable.assign(array)

        self._optimizer_to_live()

    def weights_from_live(self) -> None:
        """Those that a callback has changed, mostly none."""
        for variable, array in zip(self.live.weights, self.arrays, strict=True):
            np.copyto(array, np.asarray(variable))

    def _optimizer_to_live(self) -> None:
        """Iteration and slots, by way of the file that Keras would load."""
        import h5py

        optimizer = self.live.optimizer
        if not optimizer.built:
            optimizer.build(self.live.trainable_variables)
        self.core.write(self.path)
        rate = None if _is_scheduled(optimizer) else float(optimizer.learning_rate)
        with zipfile.ZipFile(self.path) as archive, archive.open("model.weights.h5") as member:
            with h5py.File(member, "r") as file:
                stored = file["optimizer/vars"]
                if len(stored) != len(optimizer.variables):
                    raise ValueError(f"{type(optimizer).__name__} has {len(optimizer.variables)} variables in Keras, "
                                     f"{len(stored)} here")
                for number, variable in enumerate(optimizer.variables):
                    variable.assign(np.asarray(stored[str(number)]).reshape(variable.shape))
        if rate is not None:
            optimizer.learning_rate = rate


def _view(address: int, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape, dtype=np.int64))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)


def _is_scheduled(optimizer: Any) -> bool:
    import keras

    return isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule)


def _refuse(what: str) -> None:
    raise NotImplementedError(f"sapwood.keras does not support {what}")


# ---- What a model was compiled with ---------------------------------------------------------------------------------


def _metric_name(metric: Any) -> tuple[str, str]:
    """What it measures ("accuracy", "auc"), and the name that Keras logs it by."""
    import keras

    if isinstance(metric, str):
        name, kind, settings = metric, metric, {}
    else:
        metric = keras.saving.serialize_keras_object(metric) if not isinstance(metric, Mapping) else metric
        kind, settings = metric["class_name"], metric["config"]
        name = settings if isinstance(settings, str) else settings["name"]
    accuracies = ("accuracy", "acc", "categoricalaccuracy", "sparsecategoricalaccuracy", "binaryaccuracy")
    plain = kind.lower().replace("_", "")
    if plain in accuracies and (isinstance(settings, str) or settings.get("threshold", 0.5) == 0.5):
        return "accuracy", name
    if plain == "auc":
        odd = [key for key, value in (("curve", "ROC"), ("multi_label", False), ("from_logits", False),
                                      ("label_weights", None))
               if not isinstance(settings, str) and (settings.get(key) or value) not in (value, None)]
        if not odd:
            return "auc", name
        _refuse(f"the metric AUC with {', '.join(odd)}")
    _refuse(f"the metric {name!r} (accuracies and AUC are; `sapwood.keras.evaluate` takes any)")


def _of_outputs(value: Any, names: Sequence[str]) -> list[list[Any]]:
    """What compile() took for metrics, as a list for each output."""
    if value is None:
        return [[] for _ in names]
    if isinstance(value, Mapping) and "class_name" not in value:
        return [_listed(value.get(name)) for name in names]
    if len(names) == 1:
        return [_listed(value)] if not (_listed(value) and isinstance(value[0], (list, tuple))) else [list(value[0])]
    if isinstance(value, (list, tuple)) and len(value) == len(names):
        return [_listed(item) for item in value]
    return [_listed(value) for _ in names]


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


class _Metrics:
    """From the names that C logs to those that Keras does."""

    def __init__(self, engine: _Engine) -> None:
        config = engine.live.get_compile_config() or {}
        names = [name for name, _ in engine.outputs]
        live = engine.output_names
        if config.get("weighted_metrics"):
            _refuse("weighted_metrics")
        several = len(names) > 1
        self.names = {"loss": "loss"}
        self.auc = False
        for output, own, metrics in zip(names, live, _of_outputs(config.get("metrics"), live), strict=True):
            if several:
                self.names[f"{output}_loss"] = f"{own}_loss"
            for metric in metrics:
                kind, name = _metric_name(metric)
                self.auc = self.auc or kind == "auc"
                self.names[f"{output}_{kind}" if several else kind] = f"{own}_{name}" if several else name

    def logs(self, values: Mapping[str, float]) -> dict[str, float]:
        """An epoch's values, in Keras' order: by name, those of validation behind."""
        out: dict[str, float] = {}
        for prefix in ("", "val_"):
            found = {prefix + name: values[prefix + ours] for ours, name in self.names.items() if prefix + ours in values}
            out.update(sorted(found.items()))
        return out


def _check_compiled(engine: _Engine) -> None:
    model = engine.live
    if not model.compiled:
        raise ValueError("the model is not compiled: call model.compile(...) first")
    if not engine.compiled:
        _refuse(engine.unknown or "what the model was compiled with")
    optimizer = model.optimizer
    if optimizer.use_ema:
        _refuse("use_ema of an optimizer here (`sapwood train` does)")
    if getattr(optimizer, "_exclude_from_weight_decay", None):
        _refuse("exclude_from_weight_decay of an optimizer")


# ---- Callbacks ------------------------------------------------------------------------------------------------------

_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end", "on_test_begin",
                "on_test_end", "on_test_batch_begin", "on_test_batch_end", "on_predict_begin", "on_predict_end",
                "on_predict_batch_begin", "on_predict_batch_end")


def _check_callback(callback: Any) -> None:
    """Callbacks are Keras' own and called after epochs; what wants to be called after batches is refused."""
    import keras

    kinds = keras.callbacks
    name = type(callback).__name__
    if isinstance(callback, (kinds.BackupAndRestore, kinds.SwapEMAWeights)):
        _refuse(f"the callback {name}")
    elif isinstance(callback, kinds.ModelCheckpoint):
        if callback.save_freq != "epoch":
            _refuse(f"{name} with save_freq={callback.save_freq!r}")
    elif isinstance(callback, kinds.TensorBoard):
        if callback.update_freq != "epoch":
            _refuse(f"{name} with update_freq={callback.update_freq!r}")
        if callback.write_steps_per_second or callback._start_batch or callback._stop_batch:
            _refuse(f"{name} with write_steps_per_second or profile_batch")
    elif isinstance(callback, (kinds.History, kinds.ProgbarLogger)):
        pass
    else:
        for hook in _BATCH_HOOKS:
            own = callback.__dict__.get(hook) or getattr(type(callback), hook)
            if own is not getattr(kinds.Callback, hook) and not isinstance(callback, kinds.TerminateOnNaN):
                _refuse(f"{name}.{hook}: callbacks are called at epochs and at the ends of training")


class _Callbacks:
    """Keras' list of them, and the model kept in step."""

    def __init__(self, callbacks: Any, engine: _Engine, verbose: int, epochs: int, steps: int) -> None:
        import keras

        own = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else callbacks
        for callback in _listed(own):
            _check_callback(callback)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.callbacks.CallbackList(callbacks, add_history=True, add_progbar=verbose != 0,
                                                     verbose=verbose, epochs=epochs, steps=steps, model=engine.live)
        self.list, self.engine = callbacks, engine
        self.bars = [c for c in callbacks.callbacks if isinstance(c, keras.callbacks.ProgbarLogger)]
        quiet = (keras.callbacks.ProgbarLogger, keras.callbacks.History)
        self.look = any(not isinstance(c, quiet) for c in callbacks.callbacks)  # at weights, perhaps

    def begin_epoch(self, epoch: int) -> float | None:
        """Returns the learning rate, None where it follows a schedule."""
        self.list.on_epoch_begin(epoch)
        if self.look:
            self.engine.weights_from_live()
        optimizer = self.engine.live.optimizer
        if _is_scheduled(optimizer):
            return None
        rate = float(optimizer.learning_rate)
        if not rate > 0:
            raise ValueError(f"a learning rate of {rate}")
        return rate

    def progress(self, batch: int, steps: int) -> Any:
        """Moves Keras' bars on as samples are done."""

        def tell(stage: str, unit: str, done: int, total: int, message: str | None) -> None:
            step = min(done // batch, steps)
            for bar in self.bars:
                if 0 < step < steps:
                    bar.on_train_batch_end(step - 1, {})

        return tell if self.bars else None


# ---- The functions --------------------------------------------------------------------------------------------------


def _verbosity(verbose: Any) -> int:
    return 1 if verbose == "auto" else int(verbose)


def _validation(engine: _Engine, data: Any, split: float, train: Batches, label: str, size: int,
                steps: int | None) -> tuple[Batches, Batches | None]:
    """The training part and the validation part."""
    if data is None and not split:
        return train, None
    if data is None:
        if train.dataset:
            _refuse("validation_split of a dataset folder (validation_data=FOLDER takes its test part)")
        if not 0 < split < 1:
            raise ValueError(f"validation_split is {split}, not between 0 and 1")
        cut = int(np.floor(train.rows * (1 - split)))
        return train.part(0, cut), train.part(cut, train.rows)
    if is_dataset(data):
        if steps is not None:
            _refuse("validation_steps of a dataset folder")
        return train, Batches.of_dataset(data, "test")
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        validation = _examples(engine, data, None, None, label)
    else:
        validation = _examples(engine, data[0], data[1], data[2] if len(data) == 3 else None, label)
    if steps is not None:
        validation = validation.part(0, min(validation.rows, steps * size))
    return train, validation


def _examples(engine: _Engine, x: Any, y: Any, weight: Any, label: str) -> Batches:
    if is_dataset(x):
        if y is not None or weight is not None:
            raise ValueError("a dataset folder has its own labels: y and sample_weight are not taken")
        return Batches.of_dataset(x, "train")
    inputs, rows, table = read_inputs(x, engine.inputs)
    if y is None and table is not None:
        if label not in table:
            raise ValueError(f"no y, and the table has no column {label!r} (label=NAME says which one holds labels)")
        y = table[label]
    targets = [] if y is None else read_targets(y, engine.output_names, rows)
    return Batches(rows, inputs, targets, read_weights(weight, rows))


def fit(
    model: Any,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: Any = "auto",
    callbacks: Any = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool = True,
    class_weight: Mapping[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: Any = 1,
    *,
    label: str = "label",
    threads: int = 0,
) -> Any:
    """Trains a live Keras model in C, with the arguments of `model.fit`; returns a `keras.callbacks.History`.

    x: arrays as `model.fit` takes them; sequences may be ragged (awkward arrays, lists of arrays, (values, offsets)); a pyarrow table or a
    pandas DataFrame with a column for each input and one called `label`; or a dataset folder, whose training part it is.
    validation_data: the same with targets, as a tuple, or a dataset folder, whose test part it is.
    label: the column of labels. threads: 0 for all cores.
    """
    if x is None:
        raise ValueError("no x: arrays, a table or a dataset folder")
    if shuffle not in (True, False):
        _refuse(f"shuffle={shuffle!r}")
    engine = _Engine(model, threads)
    _check_compiled(engine)
    metrics = _Metrics(engine)
    batch = batch_size or 32
    train, validation = _validation(engine, validation_data, validation_split,
                                    _examples(engine, x, y, sample_weight, label), label,
                                    validation_batch_size or batch, validation_steps)
    if not train.dataset and not train.targets:
        raise ValueError("no y: the targets of the training")
    weights = _class_weights(class_weight, engine)
    feed = train.feed(engine.core)
    test = validation.feed(engine.core) if validation else None
    steps = -(-feed.rows() // batch)
    if steps_per_epoch:
        steps = min(steps, steps_per_epoch)
    calls = _Callbacks(callbacks, engine, _verbosity(verbose), epochs, steps)
    seed = int(np.random.randint(0, 2**31 - 1))
    model.stop_training = False
    logs: dict[str, float] = {}
    calls.list.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        rate = calls.begin_epoch(epoch)
        due = epoch + 1 in validation_freq if isinstance(validation_freq, Sequence) else (epoch + 1) % validation_freq == 0
        try:
            values = engine.core.train(feed, test if due else None, epoch, batch, steps_per_epoch or 0, seed,
                                       not shuffle, rate, metrics.auc, weights, calls.progress(batch, steps))
        except BaseException:  # Ctrl-C, say: the steps that were done stay done, as in Keras
            engine.to_live()
            raise
        if calls.look:
            engine.to_live()
        logs = metrics.logs(values)
        calls.list.on_epoch_end(epoch, dict(logs))
        if model.stop_training:
            break
    if logs and not calls.look:
        engine.to_live()
    calls.list.on_train_end(dict(logs))
    return model.history


def _class_weights(class_weight: Mapping[int, float] | None, engine: _Engine) -> list[float] | None:
    if class_weight is None:
        return None
    if len(engine.outputs) > 1:
        raise ValueError("class_weight is for models with one output")
    values = engine.outputs[0][1][-1]
    count = max(2 if values == 1 else values, max(class_weight) + 1)
    return [float(class_weight.get(i, 1.0)) for i in range(count)]


def predict(model: Any, x: Any, batch_size: int | None = None, verbose: Any = "auto", steps: int | None = None,
            callbacks: Any = None, *, threads: int = 0) -> Any:
    """What `model.predict` returns, computed in C. x: as in `fit`; of a dataset folder, its test part in stored order."""
    if callbacks:
        _refuse("callbacks of predict")
    engine = _Engine(model, threads)
    if is_dataset(x):
        batches = Batches.of_dataset(x, "test")
    else:
        inputs, rows, _ = read_inputs(x, engine.inputs)
        batches = Batches(rows, inputs, [], None)
    if steps is not None:
        batches = batches.part(0, min(batches.rows, steps * (batch_size or 32)))
    outputs = _predict(engine, batches, batch_size, _verbosity(verbose))
    return _structure(model, outputs)


def _predict(engine: _Engine, batches: Batches, batch_size: int | None, verbose: int) -> list[np.ndarray]:
    import keras

    feed = batches.feed(engine.core)
    rows = feed.rows()
    longest = batches.longest(engine.inputs)
    open_outputs = any(d < 0 for _, shape in engine.outputs for d in shape)
    shapes = [tuple(longest if d < 0 else d for d in shape) for _, shape in engine.outputs]
    outputs = [np.empty((rows, *shape), np.float32) for shape in shapes]
    # large batches: small ones would only be slower, and give the same numbers
    batch = max(rows, 1) if open_outputs else max(batch_size or 0, 65536)
    bar = keras.utils.Progbar(rows, unit_name="sample") if verbose == 1 and rows else None
    where = [(y.ctypes.data, int(np.prod(shape, dtype=np.int64))) for y, shape in zip(outputs, shapes, strict=True)]
    engine.core.predict(feed, batch, where, (lambda stage, unit, done, total, message: bar.update(done)) if bar else None)
    if bar:
        bar.update(rows, finalize=True)
    return outputs


def _structure(model: Any, outputs: list[np.ndarray]) -> Any:
    """Arrays in the structure of the model's outputs."""
    import keras

    struct = getattr(model, "_outputs_struct", None)
    if struct is None:
        return outputs[0] if len(outputs) == 1 else outputs
    return keras.tree.pack_sequence_as(struct, outputs)


def evaluate(model: Any, x: Any, y: Any = None, batch_size: int | None = None, verbose: Any = "auto",
             sample_weight: Any = None, steps: int | None = None, callbacks: Any = None, return_dict: bool = False, *,
             label: str = "label", threads: int = 0) -> Any:
    """What `model.evaluate` returns: predictions in C, then Keras' own losses and metrics, of which any will do."""
    if callbacks:
        _refuse("callbacks of evaluate")
    engine = _Engine(model, threads)
    if not model.compiled:
        raise ValueError("the model is not compiled: call model.compile(...) first")
    batches = Batches.of_dataset(x, "test") if is_dataset(x) else _examples(engine, x, y, sample_weight, label)
    size = batch_size or 32
    if steps is not None:
        batches = batches.part(0, min(batches.rows, steps * size))
    scores = _predict(engine, batches, None, 0)
    targets, weight = batches.read_targets(engine), batches.weight
    if not targets:
        raise ValueError("no y: the targets to compare with")
    model.reset_metrics()
    bar = None
    if _verbosity(verbose) == 1:
        import keras

        bar = keras.utils.Progbar(len(scores[0]), unit_name="sample")
    for begin in range(0, len(scores[0]), size):
        rows = slice(begin, begin + size)
        _measure(model, [t[rows] for t in targets], [s[rows] for s in scores], None if weight is None else weight[rows])
        if bar:
            bar.update(min(begin + size, len(scores[0])))
    results = {name: float(value) for name, value in model.get_metrics_result().items()}
    if return_dict:
        return results
    values = list(results.values())
    return values[0] if len(values) == 1 else values


def _measure(model: Any, targets: list[np.ndarray], scores: list[np.ndarray], weight: np.ndarray | None) -> None:
    import keras

    y_pred = _structure(model, [keras.ops.convert_to_tensor(s) for s in scores])
    y = _structure(model, [keras.ops.convert_to_tensor(t) for t in targets])
    loss = model.compute_loss(x=None, y=y, y_pred=y_pred, sample_weight=weight, training=False)
    model.metrics[0].update_state(loss, sample_weight=len(scores[0]))  # the tracker of the loss
    model.compute_metrics(None, y, y_pred, sample_weight=weight)
