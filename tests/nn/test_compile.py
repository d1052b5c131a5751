"""Networks compiled to C give what the library gives: any compiler, any layer, features scaled inside."""

import ctypes
import json
import shutil
import subprocess

import keras
import numpy as np
import pytest
from conftest import CLASSES, SOURCE, driver, sample_options

layers = keras.layers
COMPILERS = [name for name in ("cc", "clang") if shutil.which(name)]
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic", "-O3", "-march=native"]
FLOATS = ctypes.POINTER(ctypes.c_float)


class Compiled:
    """A compiled network: NAME.c made into a shared object without any library."""

    def __init__(self, folder, name, sequences, outputs, compiler="cc", flags=FLAGS):
        self.outputs = outputs
        self.sequences = sequences  # for each input: whether it comes with a number of rows
        library = folder / f"{name}-{compiler}.so"
        source = folder / f"{name}.c"
        subprocess.run([compiler, *flags, "-shared", "-fPIC", "-nodefaultlibs", "-o", library, source, "-lc"], check=True)
        self.function = getattr(ctypes.CDLL(str(library)), f"{name}_predict")
        self.function.restype = None
        self.function.argtypes = ([FLOATS] * len(sequences) + [ctypes.c_int32] * sum(sequences)
                                  + [FLOATS] * len(outputs))

    def predict(self, *events):
        """events: one list of arrays an input."""
        results = [np.empty((len(events[0]), *shape), np.float32) for shape in self.outputs]
        for row, event in enumerate(zip(*events, strict=True)):
            event = [np.ascontiguousarray(x, np.float32) for x in event]
            rows = [len(x) for x, sequence in zip(event, self.sequences) if sequence]
            self.function(*(x.ctypes.data_as(FLOATS) for x in event), *rows,
                          *(y[row].ctypes.data_as(FLOATS) for y in results))
        return results


def elementary():
    """Every activation, on numbers large and small."""
    inputs = keras.Input((14,))
    parts = [layers.Activation(name)(layers.Dense(5)(inputs))
             for name in ("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "sigmoid", "hard_sigmoid", "tanh",
                          "softplus", "softsign", "silu", "hard_silu", "gelu", "mish", "log_sigmoid", "squareplus",
                          "sparse_plus", "sparse_sigmoid", "hard_tanh", "tanh_shrink", "soft_shrink", "hard_shrink",
                          "softmax", "log_softmax", "linear")]
    parts.append(layers.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.2)(inputs))
    parts.append(layers.ReLU(negative_slope=0.1, threshold=0.2)(inputs))
    parts.append(layers.LeakyReLU()(inputs))
    parts.append(layers.ELU(alpha=0.7)(inputs))
    parts.append(layers.Softmax()(inputs))
    parts.append(layers.Activation("exponential")(layers.Activation("tanh")(inputs)))
    return keras.Model(inputs, layers.Concatenate()(parts))


def shared_and_residual():
    """Several inputs, a shared layer, tensors of several dimensions, and names that are no identifiers."""
    a, b = keras.Input((10,), name="double"), keras.Input((3, 5), name="b 2")
    shared = layers.Dense(12, activation="tanh")
    x = layers.Add()([shared(a), shared(layers.Dropout(0.5)(a)), layers.Dense(12, use_bias=False)(a)])
    x = layers.Reshape((4, 3))(x)
    y = layers.Dense(3, activation="relu", name="sum")(b)
    z = layers.Concatenate(axis=1)([x, y, layers.Softmax()(y)])
    z = layers.BatchNormalization(scale=False)(layers.BatchNormalization()(z))
    z = layers.Concatenate()([layers.Flatten()(z), a])
    return keras.Model([a, b], layers.Dense(3, activation="softmax", name="9lives")(z))


def several_outputs():
    """One is the input in another shape, one is used further, one is there twice."""
    inputs = keras.Input((2, 3))
    flat = layers.Flatten()(inputs)
    first = layers.Dense(9, activation="tanh")(flat)
    second = layers.Dense(4)(first)
    return keras.Model(inputs, [flat, first, second, layers.Reshape((3, 3))(first)])


def combined():
    """Numbers that meet, repeated and moved."""
    a, b = keras.Input((4, 3)), keras.Input((3,))
    x = layers.PReLU(alpha_initializer=keras.initializers.RandomUniform(0.1, 0.9))(layers.GaussianNoise(0.1)(a))
    y = layers.RepeatVector(4)(layers.PReLU(alpha_initializer="ones")(b))
    z = [layers.Subtract()([x, y]), layers.Multiply()([x, y, a]), layers.Average()([x, y, a]), layers.Maximum()([x, y, a]),
         layers.Minimum()([x, layers.Reshape((4, 1))(layers.Dense(4)(b)), layers.Reshape((1, 3))(b)])]
    z = layers.Concatenate()([layers.PReLU(shared_axes=[1])(part) for part in z])
    z = layers.Permute((2, 1))(layers.ZeroPadding1D((1, 2))(layers.Cropping1D((1, 0))(z)))
    return keras.Model([a, b], layers.Flatten()(layers.SpatialDropout1D(0.2)(z)))


def masked_and_pooled():
    """A ragged domain: masked steps are dropped, also in the middle."""
    inputs = keras.Input((9, 4), name="particles")
    x = layers.Masking(mask_value=-1.0)(inputs)
    x = layers.Dense(8, activation="relu")(x)
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(8)(x)]))
    x = layers.MultiHeadAttention(2, 3, value_dim=5)(x, x)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(scale=False)(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


def masked_densely():
    """Masks beside the tensors, since something looks at all steps."""
    inputs, other = keras.Input((7, 3)), keras.Input((5, 2))
    x = layers.Masking()(inputs)
    y = layers.Dense(4)(layers.Masking(mask_value=1.0)(other))
    attended = layers.MultiHeadAttention(2, 3)(layers.Dense(4)(inputs), layers.Dense(5)(other))
    causal = layers.MultiHeadAttention(1, 4, use_bias=False)(y, y, use_causal_mask=True)
    pooled = [layers.GlobalMaxPooling1D()(y), layers.GlobalMaxPooling1D()(attended), layers.Flatten()(x),
              layers.GlobalAveragePooling1D()(causal)]
    return keras.Model([inputs, other], [layers.Dense(3)(layers.Concatenate()(pooled)), x])


def recurrent():
    """Every cell, forwards and backwards, where masked steps are dropped."""
    inputs = keras.Input((9, 4), name="particles")
    x = layers.Masking(mask_value=-1.0)(inputs)
    y = layers.GRU(7, return_sequences=True)(x)
    y = layers.Bidirectional(layers.LSTM(5, return_sequences=True, use_bias=False))(y)
    parts = [layers.GRU(6, reset_after=False)(y), layers.LSTM(9, go_backwards=True)(y), layers.SimpleRNN(3)(x),
             layers.Bidirectional(layers.GRU(4, activation="relu"), merge_mode="ave")(y)]
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Concatenate()(parts)))


def recurrent_densely():
    """Cells where masked steps are there."""
    inputs = keras.Input((9, 4))
    x = layers.Masking(mask_value=-1.0)(inputs)
    y = layers.LSTM(5, return_sequences=True)(x)
    z = layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode="mul")(x)
    return keras.Model(inputs, [y, z, layers.GRU(6)(x), layers.GRU(6, go_backwards=True, return_sequences=True)(x)])


def windows():
    """Convolutions and pooling, which look at every step."""
    inputs = keras.Input((17, 3))
    x = layers.Conv1D(9, 4, strides=2, padding="same", activation="relu")(inputs)
    y = layers.Conv1D(5, 3, padding="causal", dilation_rate=2, use_bias=False)(inputs)
    y = layers.Conv1D(2, 2, activation="softmax")(layers.MaxPooling1D(3, padding="same")(y))
    x = layers.AveragePooling1D(3, strides=2, padding="same")(x)
    return keras.Model(inputs, layers.Concatenate()([layers.Flatten()(x), layers.Flatten()(y)]))


def any_length():
    """As many steps as there are."""
    inputs = keras.Input((None, 4))
    x = layers.LayerNormalization()(layers.Dense(6, activation="gelu")(inputs))
    x = layers.MultiHeadAttention(2, 3, dropout=0.1)(x, x)
    return keras.Model(inputs, layers.Concatenate()([layers.GlobalAveragePooling1D()(x),
                                                     layers.GlobalMaxPooling1D()(x)]))


def random_weights(model):
    rng = np.random.default_rng(3)
    for weight in model.weights:
        spread = 1 / np.sqrt(weight.shape[0]) if len(weight.shape) > 1 else 0.2
        values = rng.normal(0, spread, weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path or "gamma" in weight.path else values)
    return model


def shape_of(tensor):
    return tuple(tensor.shape[1:])


def library_predicts(path, folder, x, sequences):
    """Predictions by the library, of sequences with the rows that there are."""
    for i, events in enumerate(x):
        np.concatenate([np.asarray(event, np.float32).ravel() for event in events]).tofile(folder / f"x{i}.f32")
        if sequences[i]:
            np.cumsum([0, *(len(event) for event in events)], dtype=np.int64).tofile(folder / f"x{i}.i64")
    subprocess.run([driver("predict_driver"), path, folder, str(len(x[0]))], check=True)
    return [np.fromfile(file, np.float32) for file in sorted(folder.glob("y*.f32"))]


def compare(model, sapwood, folder, x, keras_x, options=()):
    """x: for each input a list of arrays, one an event; keras_x: the same as Keras takes it."""
    path = folder / "model.keras"
    model.save(path)
    sapwood("compile", path, "-o", folder / "network.c", "--name", "network", *options)
    sequences = [len(shape_of(i)) > 1 for i in model.inputs]
    wanted = library_predicts(path, folder, x, sequences)
    by_keras = [np.asarray(y) for y in keras.tree.flatten(model(keras_x if len(x) > 1 else keras_x[0], training=False))]
    assert len(wanted) == len(by_keras)
    compiled = [Compiled(folder, "network", sequences, [y.shape[1:] for y in by_keras], c).predict(*x)
                for c in COMPILERS]
    for number, y in enumerate(wanted):
        assert np.ptp(y) > 0.1
        by = by_keras[number].ravel()
        there = np.isfinite(by)  # Keras' mean of no step is NaN, ours 0
        assert np.mean(there) > 0.7 and np.all(np.isfinite(y))
        np.testing.assert_allclose(y[there], by[there], rtol=1e-5, atol=1e-5)
        for ours in compiled:
            np.testing.assert_allclose(ours[number].ravel(), y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("define", [elementary, shared_and_residual, several_outputs, windows, combined], ids=lambda f: f.__name__)
def test_compiled_gives_what_the_library_gives(define, sapwood, tmp_path):
    keras.utils.set_random_seed(7)
    model = random_weights(define())
    rng = np.random.default_rng(11)
    x = [rng.normal(0, 2, (50, *shape_of(i))).astype(np.float32) for i in model.inputs]
    compare(model, sapwood, tmp_path, x, x)


@pytest.mark.parametrize("define", [masked_and_pooled, masked_densely, recurrent, recurrent_densely], ids=lambda f: f.__name__)
def test_sequences_with_padding(define, sapwood, tmp_path):
    """Events of few rows, of all, of none, and with masked rows in between; Keras gets them padded."""
    keras.utils.set_random_seed(7)
    model = random_weights(define())
    rng = np.random.default_rng(12)
    x, padded = [], []
    for index, (steps, width) in enumerate(shape_of(i) for i in model.inputs):
        masked = (0.0, 1.0)[index] if define is masked_densely else -1.0
        events = [rng.normal(0, 1, (n, width)).astype(np.float32) for n in [steps, 0, 1, *rng.integers(3, steps + 1, 30)]]
        for event in events[5:15]:
            event[rng.random(len(event)) < 0.4] = masked
        full = np.full((len(events), steps, width), masked, np.float32)
        for row, event in zip(full, events):
            row[:len(event)] = event
        x.append(events)
        padded.append(full)
    compare(model, sapwood, tmp_path, x, padded)


def test_sequences_of_any_length(sapwood, tmp_path):
    keras.utils.set_random_seed(7)
    model = random_weights(any_length())
    x = np.random.default_rng(13).normal(size=(20, 6, 4)).astype(np.float32)
    compare(model, sapwood, tmp_path, [x], [x], ["--rows", 30])
    path = tmp_path / "model.keras"
    result = sapwood("compile", path, "-o", tmp_path / "x.c", check=False)
    assert result.returncode == 2 and "any length" in result.stderr


def test_without_vectors_or_optimisation_the_same(sapwood, tmp_path):
    sapwood("compile", SOURCE / "models/hlf.keras", "-o", tmp_path / "hlf.c", "--name", "hlf")
    x = np.random.default_rng(1).normal(size=(20, 14)).astype(np.float32)
    wanted = library_predicts(SOURCE / "models/hlf.keras", tmp_path, [x], [False])[0]
    compiled = Compiled(tmp_path, "hlf", [False], [(3,)], flags=["-std=c11", "-O0"])
    np.testing.assert_allclose(compiled.predict(x)[0].ravel(), wanted, rtol=1e-6, atol=1e-6)


def test_features_are_scaled_inside(sapwood, dataset, trained, tmp_path):
    """A trained network with its dataset.json takes features as computed, and gives the scores of `predict`."""
    import pyarrow.parquet as parquet

    source, header = tmp_path / "hlf.c", tmp_path / "hlf.h"
    sapwood("compile", trained / "model.keras", "-o", source, "--name", "hlf", "--header", header, "--data", trained)
    text = header.read_text()
    assert ", ".join(CLASSES) in text and "scaled here" in text
    for language in ("c", "c++"):
        subprocess.run(["cc", "-x", language, "-fsyntax-only", "-Wall", "-Werror", header], check=True)
    sapwood("predict", "--run", trained, "--data", dataset, "--out", tmp_path / "scores.parquet")
    scores = parquet.read_table(tmp_path / "scores.parquet")
    parts = [p for p in json.loads((dataset / "dataset.json").read_text())["parts"] if p["split"] == "test"]
    rows = [row for p in parts for row in parquet.read_table(dataset / p["file"]).to_pylist()]
    features = {(r["sample"], r["file"], r["entry"]): r["hlf"] for r in rows}
    compiled = Compiled(tmp_path, "hlf", [False], [(3,)])
    checked = 0
    for row in scores.to_pylist():
        ours = compiled.predict([features[row["sample"], row["file"], row["entry"]]])[0][0]
        np.testing.assert_allclose(ours, [row[f"score_{c}"] for c in CLASSES], rtol=1e-6, atol=1e-6)
        checked += 1
    assert checked > 20


@pytest.mark.parametrize("convention", ["paper", "corrected"])
def test_sequences_are_padded_and_scaled_inside(convention, sapwood, tmp_path):
    """Particles as a dataset stores them; in one convention padding takes part in the order and is scaled with the rest."""
    import pyarrow.parquet as parquet
    from sapwood.keras import predict

    folder = tmp_path / "dataset"
    sapwood("prepare", *sample_options(), "--convention", convention, "--out", folder)
    model = random_weights(keras.models.load_model(SOURCE / "models/inclusive_gru.keras"))
    model.save(tmp_path / "model.keras")
    sapwood("compile", tmp_path / "model.keras", "-o", tmp_path / "inclusive.c", "--name", "inclusive", "--data", folder)
    parts = [p for p in json.loads((folder / "dataset.json").read_text())["parts"] if p["split"] == "test"]
    rows = [row for p in parts for row in parquet.read_table(folder / p["file"]).to_pylist()]
    wanted = predict(model, folder, verbose=0)
    assert len(rows) == len(wanted) > 20 and np.ptp(wanted) > 0.1
    events = [[np.reshape(row["particles"], (-1, 19)) for row in rows], [row["hlf"] for row in rows]]
    assert [i.name for i in model.inputs] == ["particles", "hlf"]
    ours = Compiled(tmp_path, "inclusive", [True, False], [(3,)]).predict(*events)[0]
    np.testing.assert_allclose(ours, wanted, rtol=1e-6, atol=2e-6)  # hundreds of steps, one after the other


def test_example(sapwood, trained, tmp_path):
    """examples/compile/trigger.c, as its first lines say."""
    sapwood("compile", trained / "model.keras", "-o", tmp_path / "hlf.c", "--header", tmp_path / "hlf.h", "--name", "hlf",
            "--data", trained)
    shutil.copy(SOURCE / "examples/compile/trigger.c", tmp_path)
    subprocess.run(["cc", *FLAGS, "trigger.c", "hlf.c", "-o", "trigger"], cwd=tmp_path, check=True)
    events = np.random.default_rng(2).uniform(0, 100, (40, 14)).astype(np.float32)
    lines = subprocess.run([tmp_path / "trigger", "0.4"], check=True, capture_output=True, text=True,
                           input="\n".join(" ".join(map(repr, map(float, event))) for event in events)).stdout
    scores = Compiled(tmp_path, "hlf", [False], [(3,)]).predict(events)[0][:, CLASSES.index("ttbar")]
    wanted = [f"event {i}: {score:.6f}" for i, score in enumerate(scores) if score >= 0.4]
    assert lines.splitlines() == wanted


def test_errors(sapwood, dataset, tmp_path):
    hlf = SOURCE / "models/hlf.keras"

    def fails(status, message, *arguments):
        result = sapwood("compile", *arguments, check=False)
        assert result.returncode == status, result.stderr
        assert message in result.stderr
        assert not (tmp_path / "x.c").exists()

    fails(2, "no output", hlf)
    fails(2, "one network", "-o", tmp_path / "x.c")
    fails(2, '"9 lives" is no name in C', hlf, "-o", tmp_path / "x.c", "--name", "9 lives")
    fails(1, "nowhere", hlf, "-o", tmp_path / "x.c", "--data", tmp_path / "nowhere")
    other = keras.Sequential([keras.Input((14,), name="hlv"), layers.Dense(3)])
    other.save(tmp_path / "other.keras")
    fails(1, 'no feature of that name; nearest: hlf', tmp_path / "other.keras", "-o", tmp_path / "x.c", "--data", dataset)
    narrow = keras.Sequential([keras.Input((13,), name="hlf"), layers.Dense(3)])
    narrow.save(tmp_path / "narrow.keras")
    fails(1, "(13), which feature \"hlf\"", tmp_path / "narrow.keras", "-o", tmp_path / "x.c", "--data", dataset)
    narrow.layers[0].kernel.assign(np.full((13, 3), np.inf))
    narrow.save(tmp_path / "infinite.keras")
    fails(1, "not finite", tmp_path / "infinite.keras", "-o", tmp_path / "x.c")
