"""sapwood.keras: a live model trained in C is the one that Keras would have trained; its callbacks, its data, its errors."""

import os
import signal
import threading

import awkward as ak
import keras
import numpy as np
import pandas
import pyarrow as pa
import pytest
import sapwood
import sapwood.keras
from conftest import CLASSES

layers, optimizers, losses = keras.layers, keras.optimizers, keras.losses
ROWS, BATCH = 250, 32  # the last batch is smaller
QUIET = {"verbose": 0, "shuffle": False, "batch_size": BATCH}
RNG = np.random.default_rng(4)
X = RNG.normal(size=(ROWS, 6)).astype(np.float32)
LABEL = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0.5)
ONE_HOT = keras.utils.to_categorical(LABEL, 3)


def dense(last=3, activation="softmax"):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,), name="features")
    x = layers.Dense(16, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-3))(inputs)
    return keras.Model(inputs, layers.Dense(last, activation=activation, name="class")(x))


def compiled(*arguments, network=dense, **settings):
    model = network()
    model.compile(*arguments, **settings)
    return model


def same_models(a, b, tolerance=2e-4):
    for ours, theirs in zip(a.weights + a.optimizer.variables, b.weights + b.optimizer.variables, strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-3, atol=tolerance, err_msg=ours.path)


def same_history(ours, theirs):
    assert list(ours.history) == list(theirs.history) and ours.epoch == theirs.epoch
    for name, values in theirs.history.items():
        np.testing.assert_allclose(ours.history[name], values, rtol=1e-3, atol=1e-3, err_msg=name)


# ---- The same as Keras ----------------------------------------------------------------------------------------------

decay = optimizers.schedules.CosineDecay(0.02, 20, warmup_target=0.03, warmup_steps=5)
CASES = {
    "adam": (dense, lambda: dict(optimizer=optimizers.Adam(0.01, amsgrad=True), loss="categorical_crossentropy",
                                 metrics=["accuracy"]), ONE_HOT, {}),
    "schedule": (dense, lambda: dict(optimizer=optimizers.AdamW(decay, weight_decay=0.01),
                                     loss=losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=["acc"]), ONE_HOT, {}),
    "sparse": (dense, lambda: dict(optimizer=optimizers.SGD(0.05, momentum=0.9, nesterov=True, clipnorm=1.0),
                                   loss="sparse_categorical_crossentropy",
                                   metrics=[keras.metrics.SparseCategoricalAccuracy()]), LABEL,
               {"class_weight": {0: 1.0, 1: 0.5, 2: 2.0}}),
    "binary": (lambda: dense(1, "sigmoid"), lambda: dict(optimizer="sgd", loss="binary_crossentropy", metrics=["accuracy"]),
               (LABEL > 0).astype(np.float32), {"sample_weight": RNG.uniform(0.5, 2, ROWS)}),
    "regression": (lambda: dense(2, "linear"), lambda: dict(optimizer=optimizers.SGD(0.02), loss="mse"), X[:, :2] * 2, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_fit_gives_what_keras_gives(case):
    network, settings, y, options = CASES[case]
    theirs, ours = (compiled(**settings(), network=network) for _ in range(2))
    options = {"epochs": 3, "validation_split": 0.2, **QUIET, **options}
    if "sample_weight" in options:  # Keras splits it, too
        options["validation_split"] = 0.0
        options["validation_data"] = (X[:50], y[:50], options["sample_weight"][:50])
    expected = theirs.fit(X, y, **options)
    history = sapwood.keras.fit(ours, X, y, **options)
    assert isinstance(history, keras.callbacks.History) and ours.history is history
    same_history(history, expected)
    assert history.history["loss"][0] > history.history["loss"][-1]
    same_models(ours, theirs)
    np.testing.assert_allclose(sapwood.keras.predict(ours, X, verbose=0), ours.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
    figures = sapwood.keras.evaluate(ours, X, y, verbose=0, return_dict=True)
    for name, value in ours.evaluate(X, y, verbose=0, return_dict=True).items():
        assert figures[name] == pytest.approx(value, rel=1e-4), name


def two_by_two():
    keras.utils.set_random_seed(5)
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    x = layers.Dense(8, activation="tanh")(layers.Concatenate()([a, b]))
    return keras.Model({"a": a, "b": b}, {"kind": layers.Dense(3, activation="softmax", name="kind")(x),
                                          "mass": layers.Dense(1, name="mass")(x)})


def test_several_inputs_and_outputs():
    def make():
        return compiled(optimizers.Adam(0.02), {"kind": "categorical_crossentropy", "mass": "mse"}, network=two_by_two,
                        loss_weights={"kind": 1.0, "mass": 0.3}, metrics={"kind": ["accuracy"]})

    theirs, ours = make(), make()
    whole = slice(0, ROWS // BATCH * BATCH)  # Keras' losses of outputs are means over batches, ours over rows
    x, y = {"a": X[whole, :4], "b": X[whole, 4:]}, {"kind": ONE_HOT[whole], "mass": X[whole, :1]}
    expected = theirs.fit(x, y, epochs=2, validation_data=(x, y), **QUIET)
    history = sapwood.keras.fit(ours, x, y, epochs=2, validation_data=(x, y), **QUIET)
    same_history(history, expected)
    same_models(ours, theirs)
    predicted, wanted = sapwood.keras.predict(ours, x, verbose=0), ours.predict(x, verbose=0)
    assert set(predicted) == {"kind", "mass"}
    for name in wanted:
        np.testing.assert_allclose(predicted[name], wanted[name], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="'a', 'b'"):
        sapwood.keras.predict(ours, {"a": x["a"]}, verbose=0)


def test_training_goes_on_from_one_to_the_other():
    """The state of the optimizer travels: Keras, then here, then Keras, as Keras alone."""
    theirs, ours = (compiled(optimizers.Adam(0.01), "categorical_crossentropy") for _ in range(2))
    for epoch in range(3):
        options = {"initial_epoch": epoch, "epochs": epoch + 1, **QUIET}
        expected = theirs.fit(X, ONE_HOT, **options)
        history = (sapwood.keras.fit if epoch == 1 else keras.Model.fit)(ours, X, ONE_HOT, **options)
        assert history.epoch == [epoch]
        same_history(history, expected)
    assert int(ours.optimizer.iterations) == 3 * -(-ROWS // BATCH)
    same_models(ours, theirs)


def test_auc_is_measured():
    model = compiled("adam", "binary_crossentropy", network=lambda: dense(1, "sigmoid"), metrics=["accuracy", "auc"])
    history = sapwood.keras.fit(model, X, LABEL > 0, epochs=2, validation_data=(X, LABEL > 0), verbose=0)
    score = sapwood.keras.predict(model, X, verbose=0)[:, 0].astype(np.float64)
    a, b = score[LABEL > 0], score[LABEL == 0]
    exact = np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b))
    assert history.history["val_auc"][-1] == pytest.approx(exact, abs=1e-9)


def test_shuffling_and_steps():
    def losses_of(seed, **options):
        model = compiled(optimizers.SGD(0.1), "categorical_crossentropy")
        keras.utils.set_random_seed(seed)
        return sapwood.keras.fit(model, X, ONE_HOT, batch_size=BATCH, epochs=2, verbose=0, **options).history["loss"]

    assert losses_of(1) == losses_of(1) != losses_of(2)
    assert losses_of(1, steps_per_epoch=2) != losses_of(1)


# ---- Data -----------------------------------------------------------------------------------------------------------


def sequences():
    keras.utils.set_random_seed(6)
    inputs = keras.Input((9, 4), name="particles")
    x = layers.GRU(5)(layers.Masking()(inputs))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


def test_ragged_sequences_in_every_form():
    lengths = RNG.integers(1, 10, ROWS)
    events = [RNG.normal(size=(n, 4)).astype(np.float32) for n in lengths]
    padded = np.zeros((ROWS, 9, 4), np.float32)
    for row, event in zip(padded, events):
        row[: len(event)] = event
    values, offsets = np.concatenate(events), np.cumsum([0, *lengths])
    records = ak.zip({f"p{i}": ak.unflatten(values[:, i], lengths) for i in range(4)})
    nested = pa.array([event.tolist() for event in events], pa.list_(pa.list_(pa.float32(), 4)))
    flat = pa.array([event.ravel() for event in events], pa.list_(pa.float32()))
    label = pa.array(LABEL)
    forms = {
        "padded": padded, "list": events, "pair": (values, offsets), "named": {"particles": events},
        "awkward": ak.unflatten(values, lengths), "records": records,
        "arrow": pa.table({"particles": nested, "label": label}), "flat": pa.table({"particles": flat, "label": label}),
        "pandas": pandas.DataFrame({"particles": events, "label": LABEL}),
    }

    def make():
        return compiled(optimizers.Adam(0.01), "sparse_categorical_crossentropy", network=sequences)

    theirs = make()
    expected = theirs.fit(padded, LABEL, epochs=2, **QUIET)
    scores = theirs.predict(padded, verbose=0)
    for name, form in forms.items():
        ours = make()
        y = None if name in ("arrow", "flat", "pandas") else LABEL
        same_history(sapwood.keras.fit(ours, form, y, epochs=2, validation_split=0.0, **QUIET), expected)
        same_models(ours, theirs)
        np.testing.assert_allclose(sapwood.keras.predict(ours, form, verbose=0), scores, atol=1e-3, err_msg=name)
    ours, theirs = make(), make()
    expected = sapwood.keras.fit(theirs, padded, LABEL, epochs=2, validation_split=0.3, **QUIET)
    same_history(sapwood.keras.fit(ours, events, LABEL, epochs=2, validation_split=0.3, **QUIET), expected)


def test_tables_of_plain_features():
    frame = pandas.DataFrame(X, columns=[f"f{i}" for i in range(6)])
    table = pa.table({"features": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 6), "kind": LABEL})
    expected = sapwood.keras.fit(compiled("sgd", "sparse_categorical_crossentropy"), X, LABEL, epochs=2, **QUIET)
    for x, y in ((frame, LABEL), (table, None), (pa.table({"features": list(X), "kind": LABEL}), None)):
        model = compiled("sgd", "sparse_categorical_crossentropy")
        history = sapwood.keras.fit(model, x, y, epochs=2, label="kind", **QUIET)
        assert history.history == expected.history
    with pytest.raises(ValueError, match="no column 'label'"):
        sapwood.keras.fit(model, table, epochs=1)
    with pytest.raises(ValueError, match="no column 'features'; it has 'kind'"):
        sapwood.keras.fit(model, table.select(["kind"]), epochs=1)


def test_dataset_folder(dataset):
    def make():
        keras.utils.set_random_seed(8)
        model = keras.Sequential([keras.Input((14,), name="hlf"), layers.Dense(20, activation="relu"),
                                  layers.Dense(len(CLASSES), activation="softmax")])
        model.compile(optimizers.Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])
        return model

    model = make()
    history = sapwood.keras.fit(model, dataset, batch_size=64, epochs=8, validation_data=dataset, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    loss, accuracy = sapwood.keras.evaluate(model, dataset, verbose=0)
    assert loss == pytest.approx(history.history["val_loss"][-1], rel=1e-4)
    assert accuracy == pytest.approx(history.history["val_accuracy"][-1], abs=1e-6)
    scores = sapwood.keras.predict(model, dataset, verbose=0)
    assert scores.shape[1] == len(CLASSES) and np.allclose(scores.sum(1), 1, atol=1e-5)


# ---- Callbacks ------------------------------------------------------------------------------------------------------


class Watcher(keras.callbacks.Callback):
    """A user's: notes the weights, doubles a bias, and stops."""

    def __init__(self):
        super().__init__()
        self.seen, self.calls = [], []

    def on_train_begin(self, logs=None):
        self.calls.append("begin")

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(np.asarray(self.model.weights[1]).copy())
        self.model.weights[1].assign(self.seen[-1] * 2)
        self.calls.append(sorted(logs))
        if epoch == 2:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.calls.append("end")


def test_a_callback_of_ones_own():
    theirs, ours = (compiled(optimizers.SGD(0.1), "categorical_crossentropy") for _ in range(2))
    a, b = Watcher(), Watcher()
    expected = theirs.fit(X, ONE_HOT, epochs=9, callbacks=[a], **QUIET)
    same_history(sapwood.keras.fit(ours, X, ONE_HOT, epochs=9, callbacks=[b], **QUIET), expected)
    assert a.calls == b.calls and len(b.seen) == 3
    np.testing.assert_allclose(a.seen, b.seen, atol=1e-4)
    same_models(ours, theirs)


def test_callbacks_of_keras(tmp_path):
    def callbacks(folder):
        folder.mkdir()
        kinds = keras.callbacks
        return [kinds.ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=10.0),
                kinds.LearningRateScheduler(lambda epoch, rate: rate * (0.9 if epoch else 1.0)),
                kinds.ModelCheckpoint(folder / "epoch-{epoch}.keras"), kinds.CSVLogger(folder / "log.csv"),
                kinds.EarlyStopping("loss", min_delta=10.0, patience=3, restore_best_weights=True),
                kinds.TerminateOnNaN(),
                kinds.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))]

    seen = []
    theirs, ours = (compiled(optimizers.Adam(0.01), "categorical_crossentropy", metrics=["accuracy"]) for _ in range(2))
    expected = theirs.fit(X, ONE_HOT, epochs=20, callbacks=callbacks(tmp_path / "theirs"), **QUIET)
    history = sapwood.keras.fit(ours, X, ONE_HOT, epochs=20, callbacks=callbacks(tmp_path / "ours"), **QUIET)
    same_history(history, expected)
    assert len(history.epoch) == 4 and seen == 2 * history.epoch
    assert float(ours.optimizer.learning_rate) == pytest.approx(float(theirs.optimizer.learning_rate)) != 0.01
    same_models(ours, theirs)
    stored = [keras.models.load_model(tmp_path / who / "epoch-3.keras") for who in ("ours", "theirs")]
    assert int(stored[0].optimizer.iterations) == 3 * -(-ROWS // BATCH)
    same_models(*stored)
    log, wanted = (pandas.read_csv(tmp_path / who / "log.csv") for who in ("ours", "theirs"))
    assert list(log) == list(wanted)
    np.testing.assert_allclose(log, wanted, rtol=1e-3, atol=1e-3)


def test_progress_as_keras_shows_it(capsys):
    model = compiled("sgd", "categorical_crossentropy")
    sapwood.keras.fit(model, X, ONE_HOT, epochs=2, verbose=2, batch_size=BATCH)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Epoch 1/2" and lines[1].startswith("8/8 - ") and "loss: " in lines[1]
    sapwood.keras.fit(model, X, ONE_HOT, epochs=1, verbose=1, batch_size=BATCH)
    assert "8/8" in capsys.readouterr().out
    sapwood.keras.fit(model, X, ONE_HOT, epochs=1, verbose=0)
    assert capsys.readouterr().out == ""


def test_interrupted_training_keeps_its_steps():
    model = compiled(optimizers.SGD(0.01), "categorical_crossentropy")
    before = [np.asarray(w).copy() for w in model.weights]
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        sapwood.keras.fit(model, np.tile(X, (400, 1)), np.tile(ONE_HOT, (400, 1)), batch_size=8, epochs=10**6, verbose=0)
    timer.join()
    assert any(not np.array_equal(a, np.asarray(b)) for a, b in zip(before, model.weights))
    assert int(model.optimizer.iterations) > 0


# ---- What is refused ------------------------------------------------------------------------------------------------


class PerBatch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


def own_loss(y, p):
    return keras.ops.mean(keras.ops.square(y - p), axis=-1)


def test_what_is_not_supported_is_refused_by_name(tmp_path, dataset):
    def fails(kind, message, *arguments, settings=None, **options):
        model = compiled(**{"optimizer": "sgd", "loss": "categorical_crossentropy", **(settings or {})})
        with pytest.raises(kind, match=message):
            sapwood.keras.fit(model, *(arguments or (X, ONE_HOT)), **options)

    unsupported = NotImplementedError
    fails(unsupported, "PerBatch.on_train_batch_end", callbacks=[PerBatch()])
    fails(unsupported, "on_train_batch_begin",
          callbacks=[keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: None)])
    fails(unsupported, "save_freq=5", callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "x.keras", save_freq=5)])
    fails(unsupported, "update_freq=5", callbacks=[keras.callbacks.TensorBoard(tmp_path, update_freq=5)])
    fails(unsupported, "BackupAndRestore", callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    fails(unsupported, "metric 'mse'", settings={"metrics": ["mse"]})
    fails(unsupported, "weighted_metrics", settings={"weighted_metrics": ["accuracy"]})
    fails(unsupported, "own_loss", settings={"loss": own_loss})
    fails(unsupported, "(?i)adagrad", settings={"optimizer": "adagrad"})
    fails(unsupported, "use_ema", settings={"optimizer": optimizers.Adam(use_ema=True)})
    fails(unsupported, "shuffle='batch'", shuffle="batch")
    fails(unsupported, "generator", (x for x in X), ONE_HOT)
    fails(ValueError, "no y", X)
    fails(ValueError, "rows", X, ONE_HOT[:10])
    fails(ValueError, r"\(rows, 6\), not \(250, 5\)", X[:, :5], ONE_HOT)
    fails(ValueError, "sample_weight", sample_weight=np.ones((ROWS, 2)))
    fails(FileNotFoundError, "no dataset.json", tmp_path)
    fails(unsupported, "validation_split of a dataset", dataset, validation_split=0.2)
    fails(sapwood.Error, "features", dataset)
    with pytest.raises(ValueError, match="not compiled"):
        sapwood.keras.fit(dense(), X, ONE_HOT)
    with pytest.raises(TypeError, match="keras.Model"):
        sapwood.keras.fit("model", X, ONE_HOT)
