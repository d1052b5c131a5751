"""Losses, optimizers, schedules and callbacks do what those of Keras do, number by number."""

import csv
import os
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import driver

DRIVER = driver("training_driver")
ROWS, VALUES = 150, 4  # not a multiple of a tile


def run(*arguments, **options):
    return subprocess.run([DRIVER, *map(str, arguments)], check=True, capture_output=True, text=True, **options).stdout


# ---- Losses

LOSSES = keras.losses
CASES = [
    ("categorical_crossentropy", 1, 0.0, 0, LOSSES.CategoricalCrossentropy(from_logits=True)),
    ("categorical_crossentropy", 1, 0.1, 0, LOSSES.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)),
    ("categorical_crossentropy", 0, 0.0, 0, LOSSES.CategoricalCrossentropy()),
    ("categorical_crossentropy", 0, 0.3, 0, LOSSES.CategoricalCrossentropy(label_smoothing=0.3)),
    ("sparse_categorical_crossentropy", 1, 0.0, 0, LOSSES.SparseCategoricalCrossentropy(from_logits=True)),
    ("sparse_categorical_crossentropy", 0, 0.0, 0, LOSSES.SparseCategoricalCrossentropy()),
    ("binary_crossentropy", 1, 0.0, 0, LOSSES.BinaryCrossentropy(from_logits=True)),
    ("binary_crossentropy", 1, 0.2, 0, LOSSES.BinaryCrossentropy(from_logits=True, label_smoothing=0.2)),
    ("binary_crossentropy", 0, 0.2, 0, LOSSES.BinaryCrossentropy(label_smoothing=0.2)),
    ("mse", 0, 0.0, 0, LOSSES.MeanSquaredError()),
    ("mae", 0, 0.0, 0, LOSSES.MeanAbsoluteError()),
    ("huber", 0, 0.0, 0, LOSSES.Huber()),
    ("huber", 0, 0.0, 0.4, LOSSES.Huber(delta=0.4)),
]


@pytest.mark.parametrize(("kind", "logits", "smoothing", "delta", "loss"), CASES, ids=[f"{c[0]}-{c[1]}-{c[2]}-{c[3]}" for c in CASES])
def test_loss(kind, logits, smoothing, delta, loss, tmp_path):
    rng = np.random.default_rng(3)
    y = rng.normal(0, 3, (ROWS, VALUES)) if logits or kind in ("mse", "mae", "huber") else rng.uniform(0.01, 0.99, (ROWS, VALUES))
    target = rng.normal(0, 2, (ROWS, VALUES))
    if kind == "categorical_crossentropy":
        target = rng.dirichlet(np.ones(VALUES), ROWS)  # probabilities
    elif kind.startswith("sparse"):
        target = rng.integers(0, VALUES, (ROWS, 1))
    elif kind == "binary_crossentropy":
        target = rng.integers(0, 2, (ROWS, VALUES))
    y, target = y.astype(np.float32), target.astype(np.float32)
    weight = rng.uniform(0, 2, ROWS).astype(np.float32)
    for name, values in (("y", y), ("target", target), ("weight", weight)):
        values.tofile(tmp_path / f"{name}.f32")
    ours = float(run("loss", kind, logits, smoothing, delta, VALUES, ROWS, tmp_path))
    variable = tf.Variable(y)
    with tf.GradientTape() as tape:
        expected = loss(target, tf.convert_to_tensor(variable), sample_weight=weight)
    assert ours == pytest.approx(float(expected), rel=1e-5)
    gradient = tape.gradient(expected, variable).numpy()
    found = np.fromfile(tmp_path / "gradient.f32", np.float32).reshape(y.shape)
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-7)
    assert np.abs(gradient).max() > 1e-4


# ---- Optimizers

OPTIMIZERS = [
    (keras.optimizers.Adam, 0, {"learning_rate": 0.02}),
    (keras.optimizers.Adam, 0, {"learning_rate": 0.02, "amsgrad": True, "clipvalue": 0.4}),
    (keras.optimizers.Adam, 0, {"learning_rate": 0.02, "clipnorm": 0.7}),
    (keras.optimizers.AdamW, 2, {"learning_rate": 0.02}),
    (keras.optimizers.AdamW, 2, {"learning_rate": 0.02, "weight_decay": 0.2, "global_clipnorm": 1.5}),
    (keras.optimizers.SGD, 1, {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
    (keras.optimizers.SGD, 1, {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    (keras.optimizers.SGD, 1, {"learning_rate": 0.05, "ema_momentum": 0.9, "ema_overwrite_frequency": 6}),
]


@pytest.mark.parametrize(("make", "kind", "settings"), OPTIMIZERS, ids=[f"{m.__name__}-{'-'.join(s)}" for m, _, s in OPTIMIZERS])
def test_optimizer(make, kind, settings, tmp_path):
    count, steps = 60, 50
    rng = np.random.default_rng(9)
    w = rng.normal(size=count).astype(np.float32)
    g = rng.normal(0.1, 0.3, (steps, count)).astype(np.float32)
    w.tofile(tmp_path / "w.f32")
    g.tofile(tmp_path / "g.f32")
    run("optimizer", tmp_path, count, steps, f"kind={kind}", *(f"{k}={float(v)}" for k, v in settings.items()))
    ours = np.fromfile(tmp_path / "steps.f32", np.float32).reshape(steps, count)
    if "ema_momentum" in settings:
        settings = settings | {"use_ema": True}
    optimizer = make(**settings)
    first, rest = keras.Variable(w[: count // 3], name="a"), keras.Variable(w[count // 3 :], name="b")
    for step in range(steps):
        optimizer.apply([tf.constant(g[step, : count // 3]), tf.constant(g[step, count // 3 :])], [first, rest])
        if step == steps - 1 and "use_ema" in settings:
            optimizer.finalize_variable_values([first, rest])
        np.testing.assert_allclose(ours[step], np.concatenate([first.numpy(), rest.numpy()]), rtol=1e-4, atol=1e-5, err_msg=f"step {step}")


SCHEDULES = keras.optimizers.schedules
RATES = [
    (1, {"decay_steps": 7, "decay_rate": 0.6}, SCHEDULES.ExponentialDecay(0.3, 7, 0.6)),
    (1, {"decay_steps": 7, "decay_rate": 0.6, "staircase": 1}, SCHEDULES.ExponentialDecay(0.3, 7, 0.6, staircase=True)),
    (2, {"decay_steps": 7, "decay_rate": 0.6}, SCHEDULES.InverseTimeDecay(0.3, 7, 0.6)),
    (3, {"decay_steps": 20}, SCHEDULES.PolynomialDecay(0.3, 20)),
    (3, {"decay_steps": 9, "end_learning_rate": 0.05, "power": 1.5, "cycle": 1}, SCHEDULES.PolynomialDecay(0.3, 9, 0.05, 1.5, cycle=True)),
    (4, {"decay_steps": 20, "alpha": 0.1}, SCHEDULES.CosineDecay(0.3, 20, alpha=0.1)),
    (4, {"decay_steps": 20, "warmup_steps": 5, "warmup_from": 0.01}, SCHEDULES.CosineDecay(0.01, 20, warmup_target=0.3, warmup_steps=5)),
    (5, {}, SCHEDULES.PiecewiseConstantDecay([10, 20], [0.3, 0.2, 0.1])),
]


@pytest.mark.parametrize(("kind", "settings", "schedule"), RATES, ids=[type(r[2]).__name__ + "-".join(r[1]) for r in RATES])
def test_schedule(kind, settings, schedule):
    ours = run("schedule", 40, "learning_rate=0.3", f"schedule={kind}", *(f"{k}={v}" for k, v in settings.items())).split()
    np.testing.assert_allclose([float(x) for x in ours], [float(schedule(n)) for n in range(40)], rtol=2e-5, atol=1e-8)


# ---- Callbacks

STORIES = [  # what is monitored, epoch by epoch
    [1.0, 0.8, 0.7, 0.75, 0.71, 0.69, 0.7, 0.7, 0.7, 0.7, 0.7, 0.2, 0.1],
    [0.5] * 12,
    [1.0, 0.99995, 0.9999, 0.5, 0.6, 0.55, 0.49, 0.7, 0.8, 0.9, 1.0, 1.1],
    list(np.random.default_rng(4).uniform(0, 1, 40)),
]
SETTINGS = [
    {"patience": 2, "reduce_patience": 1},
    {"patience": 0, "reduce_patience": 3, "factor": 0.5, "cooldown": 2},
    {"patience": 4, "min_delta": 0.05, "reduce_patience": 2, "reduce_delta": 0.01, "cooldown": 1, "min_lr": 0.002},
    {"patience": 3, "baseline": 0.6, "reduce_patience": 2},
    {"patience": 3, "start_from_epoch": 4, "reduce_patience": 1, "mode": 2},
    {"patience": 5, "scheduler": 1},
]


class Counter(keras.Model):
    """A model of one weight, which is the number of the epoch."""

    def __init__(self):
        super().__init__()
        self.at = self.add_weight(shape=(), name="at")
        self.built = True


def keras_callbacks(settings, story, folder):
    s = settings
    mode = {0: "auto", 2: "max"}[s.get("mode", 0)]
    if s.get("scheduler"):
        on_rate = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch > 0 and epoch % 3 == 0 else rate)
    else:
        on_rate = keras.callbacks.ReduceLROnPlateau(patience=s["reduce_patience"], factor=s.get("factor", 0.1), cooldown=s.get("cooldown", 0),
                                                    min_delta=s.get("reduce_delta", 1e-4), min_lr=s.get("min_lr", 0.0), mode=mode)
    early = keras.callbacks.EarlyStopping(patience=s["patience"], min_delta=s.get("min_delta", 0), baseline=s.get("baseline"),
                                          restore_best_weights=True, start_from_epoch=s.get("start_from_epoch", 0), mode=mode)
    callbacks = [on_rate, early, keras.callbacks.CSVLogger(str(folder / "keras.csv"))]
    model = Counter()
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    model.stop_training = False
    for c in callbacks:
        c.set_model(model)
        c.on_train_begin()
    lines = []
    for epoch, value in enumerate(story):
        for c in callbacks:
            c.on_epoch_begin(epoch)
        model.at.assign(epoch)
        logs = {"loss": value / 3, "val_loss": value}
        for c in callbacks:
            c.on_epoch_end(epoch, logs)
        lines.append((epoch, int(model.stop_training), float(model.optimizer.learning_rate)))
        if model.stop_training:
            break
    for c in callbacks:
        c.on_train_end()
    return lines, float(model.at)


@pytest.mark.parametrize("settings", SETTINGS, ids=["-".join(s) for s in SETTINGS])
@pytest.mark.parametrize("story", STORIES, ids=["falls", "flat", "small", "random"])
def test_callbacks(settings, story, tmp_path):
    story = [float(x) for x in story]
    output = run("callbacks", tmp_path, len(story), *(f"{k}={v}" for k, v in settings.items()), input=" ".join(map(repr, story))).split("\n")
    lines, weight = keras_callbacks(settings, story, tmp_path)
    assert float(output[len(lines)]) == weight  # the best weights are back
    for ours, (epoch, stop, rate) in zip(output, lines):
        a, b, c = ours.split()
        assert (int(a), int(b)) == (epoch, stop)
        assert float(c) == pytest.approx(rate, rel=1e-6)
    mine, theirs = (list(csv.DictReader(open(tmp_path / name, newline=""))) for name in ("log.csv", "keras.csv"))
    assert len(mine) == len(theirs) and list(theirs[0]) == [name for name in mine[0] if name in theirs[0]]
    for a, b in zip(mine, theirs):
        assert a["epoch"] == b["epoch"] and float(a["val_loss"]) == float(b["val_loss"]) and float(a["loss"]) == float(b["loss"])
        if "learning_rate" in b:
            assert float(a["learning_rate"]) == pytest.approx(float(b["learning_rate"]), rel=1e-6)


STORY = [0.9, 0.8, 0.7]


@pytest.fixture()
def events(tmp_path):
    run("callbacks", tmp_path, 3, "patience=9", "reduce_patience=9", input=" ".join(map(str, STORY)))
    return tmp_path / "events"


def test_tensorflow_reads_event_files(events):
    def scalars(folder):
        found = []
        for path in (events / folder).iterdir():
            assert "tfevents" in path.name
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                found += [(v.tag, event.step, event.wall_time, v.simple_value) for v in event.summary.value]
        return found

    assert scalars("validation") == [("epoch_loss", i, 1e9 + i, np.float32(v)) for i, v in enumerate(STORY)]
    train = scalars("train")
    assert [t for t in train if t[0] == "epoch_loss"] == [("epoch_loss", i, 1e9 + i, np.float32(v / 3)) for i, v in enumerate(STORY)]
    assert {t[0] for t in train} == {"epoch_loss", "epoch_learning_rate"}


def test_tensorboard_reads_event_files(events):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed")
    found = accumulator.EventAccumulator(os.fspath(events / "validation"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("epoch_loss")] == [(i, pytest.approx(v)) for i, v in enumerate(STORY)]
