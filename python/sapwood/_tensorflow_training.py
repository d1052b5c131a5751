"""Trains a Keras model by TensorFlow, alone or as one of several workers, with checkpoints.

`Model.fit` does not work under MultiWorkerMirroredStrategy with Keras 3, so this is a loop around `strategy.run`: every worker works on
its share of each batch, one all-reduce a step adds up gradients, loss and counts, and all workers take the same step. So they also
take the same decisions (learning rate, stopping, checkpoints), each by itself.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ._feeding import OWN, STORED, Feeding
from ._run_folder import Interrupted, RunFolder
from ._tensorflow_settings import callbacks, is_crossentropy, load_model, loss_name, monitored
from ._train_options import Settings
from .tf import pack, signature, take

_LOSS, _CORRECT, _FLAG = range(3)  # what is added up besides gradients: loss and right events of the batch, requests to stop


class Team:
    """The workers: those of TF_CONFIG, else this process alone."""

    def __init__(self, cuda: bool) -> None:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        self.size = max(1, len(config.get("cluster", {}).get("worker", [])))
        self.rank = config["task"]["index"] if self.size > 1 else 0
        devices = tf.config.list_physical_devices("GPU")
        if cuda and not devices:
            raise ValueError("--device cuda: TensorFlow finds no GPU here")
        tf.config.set_visible_devices(devices[:1] if cuda else [], "GPU")  # one GPU a worker
        if cuda:
            tf.config.experimental.set_memory_growth(devices[0], True)
        self.strategy = tf.distribute.MultiWorkerMirroredStrategy() if self.size > 1 else tf.distribute.get_strategy()
        self._sum = tf.function(lambda own: self.strategy.run(_all_reduce, (own,)), reduce_retracing=True)
        self._gather = tf.function(lambda own: self.strategy.run(_all_gather, (own,)), reduce_retracing=True)

    @property
    def is_chief(self) -> bool:
        return self.rank == 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Added up over the workers."""
        return self._sum(tf.constant(values)).numpy() if self.size > 1 else values

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Arrays of all workers, one after another."""
        return self._gather(tf.constant(rows)).numpy() if self.size > 1 else rows

    def leave(self) -> None:
        """Nobody ends while another still waits for what it sent."""
        try:
            self.sum(np.zeros(1))
        except tf.errors.OpError:
            pass  # the others are gone, so they have it all

    def share(self, blob: bytes) -> bytes:
        """The chief's bytes, for all."""
        length = int(self.sum(np.asarray([len(blob) if self.is_chief else 0], np.int64))[0])
        if not length:  # TensorFlow 2.21 falls over a sum of nothing
            return b""
        own = np.frombuffer(blob, np.uint8).astype(np.int32) if self.is_chief else np.zeros(length, np.int32)
        return self.sum(own).astype(np.uint8).tobytes()


def _all_reduce(value: Any) -> Any:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))


def _all_gather(value: Any) -> Any:
    return tf.distribute.get_replica_context().all_gather(tf.identity(value), axis=0)


# ---- Steps ----------------------------------------------------------------------------------------------------------


class _Steps:
    """The graph: some training steps, or the scores and losses of some batches."""

    def __init__(self, model: keras.Model, team: Team, feeding: Feeding, class_weight: list[float] | None, scores: bool) -> None:
        self.model, self.team, self.feeding, self.scores = model, team, feeding, scores
        loss = keras.losses.get(model.loss)
        self.per_event = loss.call if isinstance(loss, keras.losses.Loss) else loss
        self.single = model.outputs[0].shape[-1] == 1  # one value tells two classes
        self.one_hot = not self.single and "sparse" not in loss_name(model.loss)
        self.class_weight = None if class_weight is None else tf.constant(class_weight, tf.float32)
        # Gradients come to the optimizer added up already, so that clipping sees those of the whole batch.
        model.optimizer._all_reduce_sum_gradients = list
        self.train = tf.function(self._train, input_signature=[signature(feeding), tf.TensorSpec((), tf.float32)])
        self.test = tf.function(self._test, input_signature=[signature(feeding)])

    def _each(self, parts: tuple[Any, ...], step: Callable[..., tuple[Any, Any]]) -> tuple[Any, Any]:
        """Sums of a step's first answers, and the second ones (scores) one after another."""
        rows, whole = parts[0], parts[1]
        ends = tf.cumsum(rows)
        sums = tf.zeros(3)
        count = tf.shape(rows)[0]
        scores = tf.TensorArray(tf.float32, count if self.scores else 0, infer_shape=False, element_shape=(None, None))
        for i in tf.range(count):
            x, y, *weight = take(self.feeding, parts, ends[i] - rows[i], ends[i], self.one_hot)
            x = {name: _padded(value) for name, value in x.items()}
            new, predicted = self.team.strategy.run(step, (x, y, weight, tf.cast(whole[i], tf.float32)))
            sums += new
            if self.scores:
                scores = scores.write(i, predicted)
        return sums, scores.concat() if self.scores else tf.zeros((0, 0))

    def _measure(self, x: Any, y: Any, weight: Any, training: bool) -> tuple[Any, Any, Any]:
        """This worker's part of the loss's sum and of the right events, and the scores."""
        predicted = self.model(x if len(self.model.inputs) > 1 else next(iter(x.values())), training=training)
        label = tf.argmax(y, 1) if self.one_hot else tf.cast(y, tf.int64)
        losses = self.per_event(tf.cast(y, tf.float32)[:, None] if self.single else y, predicted)
        for one in weight:
            losses *= one
        if training and self.class_weight is not None:
            losses *= tf.gather(self.class_weight, label)
        best = tf.cast(predicted[:, 0] > 0.5, tf.int64) if self.single else tf.argmax(predicted, 1)
        return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(best == label, tf.float32)), predicted

    def _penalty(self) -> Any:
        return tf.add_n(self.model.losses) / self.team.size if self.model.losses else 0.0

    def _train(self, parts: tuple[Any, ...], flag: Any) -> tuple[Any, Any]:
        def step(x: Any, y: Any, weight: Any, rows: Any) -> tuple[Any, Any]:
            variables = self.model.trainable_variables
            with tf.GradientTape() as tape:
                total, right, predicted = self._measure(x, y, weight, training=True)
                loss = total / rows + self._penalty()
            gradients = tape.gradient(loss, [v.value for v in variables], unconnected_gradients=tf.UnconnectedGradients.ZERO)
            flat = [tf.reshape(tf.cast(g, tf.float32), (-1,)) for g in gradients]
            *flat, sums = tf.split(_all_reduce(tf.concat([*flat, [loss * rows, right, flag]], 0)), [*map(tf.size, flat), 3])
            shaped = [tf.cast(tf.reshape(g, v.shape), v.dtype) for g, v in zip(flat, variables, strict=True)]
            self.model.optimizer.apply(shaped, variables)
            return sums, predicted

        return self._each(parts, step)

    def _test(self, parts: tuple[Any, ...]) -> tuple[Any, Any]:
        def step(x: Any, y: Any, weight: Any, rows: Any) -> tuple[Any, Any]:
            total, right, predicted = self._measure(x, y, weight, training=False)
            here = tf.cast(tf.shape(predicted)[0], tf.float32)
            return tf.stack([total + self._penalty() * self.team.size * here, right, 0.0]), predicted

        return self._each(parts, step)


def _padded(value: Any) -> Any:
    """A ragged batch, padded to its longest sequence."""
    if not isinstance(value, tf.RaggedTensor):
        return value
    longest = tf.maximum(tf.reduce_max(value.row_lengths()), 1)
    return value.to_tensor(shape=tf.stack([value.nrows(), longest, value.flat_values.shape[-1]]))


def _auc(scores: np.ndarray, label: np.ndarray) -> float:
    """Of all values against their targets, ties counted half."""
    classes = np.arange(scores.shape[1]) if scores.shape[1] > 1 else np.asarray([1])
    hit = (label[:, None] == classes).ravel()
    _, inverse, counts = np.unique(scores.ravel(), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = int(hit.sum())
    return float((ranks[hit].sum() - positive * (positive + 1) / 2) / max(1, positive * (len(hit) - positive)))


# ---- Training -------------------------------------------------------------------------------------------------------


class Training:
    """One training, from the first epoch or from a checkpoint to the last."""

    def __init__(self, settings: Settings, threads: int, show: Callable[[str], None], stop: Callable[[], bool]) -> None:
        self.settings, self.show, self.stop = settings, show, stop
        self.team = Team(settings.text("device") == "cuda")
        with self.team.strategy.scope():
            self.model = load_model(settings)
        self.seed, self.epochs = settings.count("seed"), settings.count("epochs")
        self.feeding = self._feed("train", settings.text("weight"), threads)
        self.steps = min(self.feeding.steps, settings.count("steps-per-epoch") or self.feeding.steps)
        wanted = settings.switch("validation")
        self.validation = self._feed("test", None, threads) if wanted else None
        self.graph = _Steps(self.model, self.team, self.feeding, self._class_weight(), settings.switch("auc"))
        self.validate = _Steps(self.model, self.team, self.validation, None, settings.switch("auc")) if wanted else None
        self.seeds = [layer.seed_generator.state for layer in self.model._flatten_layers() if hasattr(layer, "seed_generator")]
        self._reader = ThreadPoolExecutor(1)  # tf.data would cost a twentieth of a second for each pass
        # Where the training is:
        self.epoch = self.step = 0
        self.sums = np.zeros(3)
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []

    def _feed(self, split: str, weight: str | None, threads: int) -> Feeding:
        inputs = self.model.inputs
        ragged = all(len(i.shape) < 3 or i.shape[1] is None for i in inputs)
        feeding = Feeding(self.settings.values["data"], split, self.settings.count("batch"), features=[i.name for i in inputs],
                          weight=weight, ragged=ragged, shard=(self.team.rank, self.team.size), threads=threads)
        for feature, tensor in zip(feeding.features, inputs, strict=True):
            shape = (feature.rows, feature.width) if feature.rows else (feature.width,)
            if len(shape) + 1 != len(tensor.shape) or any(b not in (None, a) for a, b in zip(shape, tensor.shape[1:], strict=True)):
                raise ValueError(f"the network's input {tensor.name!r} has the shape {tuple(tensor.shape[1:])}, the dataset's feature "
                                 f"{shape}")
        numbers, classes = self.model.outputs[0].shape[-1], len(feeding.labels)
        if numbers != classes and (numbers, classes) != (1, 2):
            raise ValueError(f"the network's output has {numbers} numbers, the dataset has {classes} classes (two may share one)")
        return feeding

    def _class_weight(self) -> list[float] | None:
        given = dict(item.rsplit("=", 1) for item in self.settings.values.get("class-weight", []))
        unknown = [label for label in given if label not in self.feeding.labels]
        if unknown:
            raise ValueError(f"--class-weight {unknown[0]}: there is no such label; there are {', '.join(self.feeding.labels)}")
        return [float(given.get(label, 1.0)) for label in self.feeding.labels] if given else None

    # ---- Checkpoints

    def pack(self) -> bytes:
        """All that is needed to go on."""
        state: dict[str, Any] = {name: getattr(self, name) for name in ("epoch", "step", "seconds", "history")}
        state |= {"sums": self.sums.tolist(), "stopped": bool(self.model.stop_training), "callbacks": []}
        arrays = {f"model{i}": np.asarray(v) for i, v in enumerate(self.model.variables)}
        arrays |= {f"optimizer{i}": np.asarray(v) for i, v in enumerate(self.model.optimizer.variables)}
        for i, callback in enumerate(self.calls.callbacks):
            state["callbacks"].append({name: value if value is None else float(value)
                                       for name, value in vars(callback).items() if name in _CALLBACK_STATE})
            for k, array in enumerate(getattr(callback, "best_weights", None) or []):
                arrays[f"best{i}_{k}"] = array
        out = io.BytesIO()
        np.savez(out, state=np.frombuffer(json.dumps(state).encode(), np.uint8), **arrays)
        return out.getvalue()

    def unpack(self, blob: bytes) -> None:
        with np.load(io.BytesIO(blob)) as stored:
            state = json.loads(stored["state"].tobytes())
            for kind, variables in (("model", self.model.variables), ("optimizer", self.model.optimizer.variables)):
                for i, variable in enumerate(variables):
                    variable.assign(stored[f"{kind}{i}"])
            for i, (callback, values) in enumerate(zip(self.calls.callbacks, state["callbacks"], strict=False)):
                vars(callback).update(values)
                best = [stored[name] for k in range(len(self.model.weights)) if (name := f"best{i}_{k}") in stored]
                if best:
                    callback.best_weights = best
        for name in ("epoch", "step", "seconds", "history"):
            setattr(self, name, state[name])
        self.sums = np.asarray(state["sums"])
        self.model.stop_training = state["stopped"]

    # ---- The loop

    def _reseed(self) -> None:
        """Dropout's random numbers hang on seed, epoch, step and worker: a training that is taken up again draws the same."""
        for i, state in enumerate(self.seeds):
            key = np.random.SeedSequence((self.seed, self.epoch, self.team.rank, i)).generate_state(1)[0]
            state.assign(np.asarray([int(key) >> 1, self.step]).astype(state.dtype))

    def _stretches(self, feeding: Feeding, seed: int, epoch: int, first: int, last: int) -> Iterator[Any]:
        """Tensors of some batches at a time, the next ones fetched meanwhile; of one thread, so that a pass that was left does no harm."""
        passes = feeding.stretches(seed, epoch, first, last)

        def fetch() -> Any:
            stretch = next(passes, None)
            return None if stretch is None else tf.nest.map_structure(tf.convert_to_tensor, pack(feeding, stretch))

        ahead = self._reader.submit(fetch)
        while (parts := ahead.result()) is not None:
            ahead = self._reader.submit(fetch)
            yield parts

    def _logs(self, sums: np.ndarray, rows: int, scores: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, float]:
        logs = {"loss": sums[_LOSS] / rows}
        if is_crossentropy(self.model.loss):
            logs["accuracy"] = sums[_CORRECT] / rows
        if self.settings.switch("auc"):
            logs["auc"] = _auc(self.team.gather(np.concatenate(scores)), self.team.gather(np.concatenate(labels)))
        return {name: float(logs[name]) for name in sorted(logs)}

    def _evaluate(self) -> dict[str, float]:
        sums, scores, labels = np.zeros(3), [], []
        for parts in self._stretches(self.validation, 0, OWN, 0, self.validation.batches(OWN)):
            new, predicted = self.validate.test(parts)
            sums += new.numpy()
            scores.append(predicted.numpy())
            labels.append(parts[4].numpy())
        sums = self.team.sum(sums)
        return {f"val_{name}": value for name, value in self._logs(sums, self.validation.rows, scores, labels).items()}

    def _epoch(self, folder: RunFolder) -> dict[str, float]:
        """The rest of an epoch, and its logs."""
        begin, before, scores, labels = time.perf_counter(), self.seconds, [], []
        order = self.epoch + 1 if self.settings.switch("shuffle") else STORED
        self._reseed()
        for parts in self._stretches(self.feeding, self.seed, order, self.step, self.steps):
            due = self.team.is_chief and folder.is_due()
            sums, predicted = self.graph.train(parts, tf.constant(1.0 if due else 1e6 if self.stop() else 0.0))
            sums = sums.numpy()
            if not np.isfinite(sums[_LOSS]):
                raise FloatingPointError(f"the loss is not finite any more, in epoch {self.epoch + 1}")
            self.sums += sums
            self.step += int(parts[0].shape[0])
            self.seconds = before + time.perf_counter() - begin
            if self.settings.switch("auc"):
                scores.append(predicted.numpy())
                labels.append(parts[4].numpy())
            if sums[_FLAG] > 0 and not self.settings.switch("auc"):
                folder.checkpoint(self.pack)
            if sums[_FLAG] >= 1e6:
                self.team.leave()
                raise Interrupted
        rows = min(self.steps * self.feeding.batch, self.feeding.rows)
        return self._logs(self.sums, rows, scores, labels)

    def run(self, folder: RunFolder) -> dict[str, Any]:
        """Trains to the end; what `sapwood.train` returns."""
        settings, team, model = self.settings, self.team, self.model
        blob = team.share(folder.read())
        self.calls = keras.callbacks.CallbackList(callbacks(settings, team.is_chief, bool(blob)), model=model)
        model.stop_training = False
        self.calls.on_train_begin()
        if blob:
            self.unpack(blob)
            self.show(f"goes on in epoch {self.epoch + 1}, after {self.step} steps")
        while self.epoch < self.epochs and not model.stop_training:
            self._one(folder)
        if model.optimizer.use_ema:
            model.optimizer.finalize_variable_values(model.trainable_variables)
        self.calls.on_train_end()
        team.leave()
        history = [_entry(i, logs) for i, logs in enumerate(self.history)]
        folder.finish(model, history)
        return {"out": settings.text("out"), "parameters": sum(int(np.prod(w.shape)) for w in model.weights),
                "events": self.feeding.rows, "history": history}

    def _one(self, folder: RunFolder) -> None:
        """One epoch, validation, callbacks, checkpoint."""
        self.calls.on_epoch_begin(self.epoch)
        rows = min(self.steps * self.feeding.batch, self.feeding.rows)
        logs = self._epoch(folder)
        seconds = self.seconds
        if self.validation and (self.epoch + 1) % max(1, self.settings.count("validation-every")) == 0:
            logs |= self._evaluate()
        watched = monitored(self.settings)
        if watched and watched not in logs and self.epoch == 0:
            raise ValueError(f"--monitor {watched} is not measured; there are {', '.join(logs)}")
        logs["learning_rate"] = float(np.asarray(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))
        self.history.append(logs | {"seconds": seconds})
        self.epoch, self.step, self.sums, self.seconds = self.epoch + 1, 0, np.zeros(3), 0.0
        self.calls.on_epoch_end(self.epoch - 1, dict(logs))
        shown = ", ".join(f"{name} {value:.4f}" for name, value in logs.items() if name != "learning_rate")
        self.show(f"epoch {self.epoch}/{self.epochs}: {shown}, {seconds:.3g} s, {rows / seconds:.4g} samples/s")
        if self.epoch < self.epochs:
            folder.checkpoint(self.pack)


_CALLBACK_STATE = ("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter")


def _entry(epoch: int, logs: dict[str, float]) -> dict[str, Any]:
    """An epoch as history.json has it: "val_" written out, null for what was not measured."""
    entry: dict[str, Any] = {"epoch": epoch + 1}
    for name in sorted(n for n in logs if not n.startswith("val_") and n not in ("learning_rate", "seconds")):
        entry |= {name: logs[name], f"validation_{name}": logs.get(f"val_{name}")}
    return entry | {name: logs[name] for name in ("learning_rate", "seconds")}
