"""Networks give what Keras gives: outputs, gradients, the losses of 50 steps, and files that Keras loads and goes on with.

Keras builds, compiles and saves the networks of parity_networks.py and of models/define.py; parity_driver runs them in C.
"""

import json
import subprocess
import sys

import keras
import numpy as np
import parity_networks
import pytest
import tensorflow as tf
from conftest import SOURCE, driver

sys.path.insert(0, str(SOURCE / "models"))
import define  # noqa: E402

DRIVER = driver("parity_driver")
BATCH, ROWS, STEPS = 50, 250, 50  # batches are no multiple of a tile
OPTIMIZERS = {"adam": lambda speed: keras.optimizers.Adam(0.001 * speed),
              "sgd": lambda speed: keras.optimizers.SGD(0.005 * speed, momentum=0.8, nesterov=True)}


def published(function):
    """A published network with short sequences, its particles masked where it masks them."""

    def build():
        model = function(16)
        mask = any(isinstance(layer, keras.layers.Masking) for layer in model.layers)
        if not mask:
            return model
        inputs = [keras.Input(i.shape[1:], name=f"masked_{i.name}" if i.name == "particles" else i.name)
                  for i in model.inputs]
        return keras.Model(inputs, model(inputs))

    build.__name__ = function.__name__
    return build


CASES = parity_networks.CASES + [(published(f), {"loss": "categorical_crossentropy"}, False, 1) for f in define.NETWORKS]


class Case:
    """A network with data, in a folder where the driver finds them."""

    def __init__(self, folder, model, rows=ROWS):
        self.folder, self.model, self.rows = folder, model, rows
        rng = np.random.default_rng(11)
        self.x = [self.inputs(rng, i, tensor) for i, tensor in enumerate(model.inputs)]
        for i, values in enumerate(self.x):
            values.tofile(folder / f"x{i}.f32")

    def inputs(self, rng, number, tensor):
        shape = [d or 13 for d in tensor.shape[1:]]
        x = rng.normal(size=(self.rows, *shape)).astype(np.float32)
        if not tensor.name.startswith("masked"):
            return x
        pools = any(isinstance(layer, keras.layers.GlobalAveragePooling1D) for layer in self.model.layers)
        least = 1 if pools else 0  # Keras gives NaN for the mean of nothing
        length = rng.integers(least, shape[0] + 1, self.rows)
        length[:3] = least, 2, shape[0]
        x[np.arange(shape[0]) >= length[:, None]] = 0
        x[:, 1][rng.random(self.rows) < 0.1] = 0  # masked in the middle
        np.concatenate([[0], np.cumsum(length)]).astype(np.int64).tofile(self.folder / f"x{number}.offsets")
        np.concatenate([row[:n] for row, n in zip(x, length)]).tofile(self.folder / f"x{number}.ragged")
        return x

    def targets(self, losses):
        """Something that can be learnt, by output."""
        rng = np.random.default_rng(5)
        first = np.abs(self.x[0].reshape(self.rows, -1)[:, :2]).sum(1)
        y = []
        for loss, tensor in zip(losses, self.model.outputs):
            name = loss if isinstance(loss, str) else loss.name
            values = tensor.shape[-1]
            label = (first * 1.7).astype(np.int32) % values
            if name == "sparse_categorical_crossentropy":
                y.append(label.astype(np.float32)[:, None])
            elif name == "categorical_crossentropy":
                y.append(np.eye(values, dtype=np.float32)[label])
            elif name == "binary_crossentropy":
                y.append((rng.random((self.rows, values)) < first[:, None] / 4).astype(np.float32))
            else:
                y.append(np.float32(first.reshape(-1, *[1] * (len(tensor.shape) - 1)) *
                                    rng.normal(size=(self.rows, *tensor.shape[1:]))))
        for o, values in enumerate(y):
            values.tofile(self.folder / f"y{o}.f32")
        self.y = y

    def run(self, name, steps, training):
        subprocess.run([DRIVER, self.folder, name, str(self.rows), str(BATCH), str(steps),
                        "train" if training else "test"], check=True)

    def batch(self, step):
        """Inputs and targets of a step, as the driver takes them."""
        rows = slice(step * BATCH % self.rows, step * BATCH % self.rows + BATCH)
        return [v[rows] for v in self.x], [v[rows] for v in self.y]

    def read(self, name, kind=np.float32):
        return np.fromfile(self.folder / name, kind)

    def call(self, model, rows=slice(None), training=False):
        arrays = [v[rows] for v in self.x]
        outputs = model(arrays if len(arrays) > 1 else arrays[0], training=training)
        return [np.asarray(o) for o in (outputs if isinstance(outputs, list | tuple) else [outputs])]

    def check_outputs(self, name, outputs, tolerance=1e-5):
        for o, expected in enumerate(outputs):
            ours = self.read(f"{name}{o}.f32").reshape(expected.shape)
            np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance, err_msg=f"{name}{o}")


def differentiate(model, training):
    """Loss and gradients of a batch; traced once for both optimizers."""

    @tf.function
    def gradients(x, y):
        with tf.GradientTape() as tape:
            outputs = model(x if len(x) > 1 else x[0], training=training)
            loss = model.compute_loss(x, y if len(y) > 1 else y[0], outputs)
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])

    return gradients


def trainer(model, training, gradients=None):
    """A step of training, with the model's optimizer."""
    gradients, optimizer = gradients or differentiate(model, training), model.optimizer
    optimizer.build(model.trainable_variables)
    apply = tf.function(lambda step: optimizer.apply(step, model.trainable_variables))

    def step(x, y):
        loss, values = gradients(x, y)
        apply(values)
        return loss, values

    return step


def relative(ours, theirs):
    return np.linalg.norm(np.subtract(ours, theirs, dtype=np.float64))


def check_gradients(flat, model, theirs):
    at, whole = 0, np.sqrt(sum(np.sum(np.square(np.asarray(g, np.float64))) for g in theirs))
    for variable, gradient in zip(model.trainable_variables, theirs, strict=True):
        gradient = np.asarray(gradient).ravel()
        off = relative(flat[at : at + gradient.size], gradient)
        # rounding of what cancels out (a bias before a normalisation) stays beside the gradient as a whole
        assert off <= 1e-4 * np.linalg.norm(gradient) + 1e-6 * whole, (variable.path, off, np.linalg.norm(gradient))
        at += gradient.size
    assert at == flat.size and whole > 1e-3


def prepare(model):
    """Weights and statistics that are not zero or one."""
    rng = np.random.default_rng(3)
    for weight in model.weights:
        if len(weight.shape) == 1 or weight.path.endswith("bias"):
            weight.assign(np.asarray(weight) + rng.normal(0, 0.2, weight.shape) * (0.5 if "var" in weight.path else 1))


@pytest.mark.parametrize(("define_network", "compiled", "training", "speed"), CASES, ids=[c[0].__name__ for c in CASES])
def test_network(define_network, compiled, training, speed, tmp_path):
    keras.utils.set_random_seed(7)
    model = define_network()
    prepare(model)
    losses = compiled["loss"]
    losses = [losses[n] for n in model.output_names] if isinstance(losses, dict) else [losses]
    network = Case(tmp_path, model)
    network.targets(losses)
    outputs, begin = network.call(model), model.get_weights()
    gradients = differentiate(model, training)
    for kind, make in OPTIMIZERS.items():
        model.set_weights(begin)
        model.compile(make(speed), **compiled)
        model.save(tmp_path / f"{kind}.keras")
        network.run(kind, STEPS, training)
        network.check_outputs(f"{kind}.outputs", outputs)
        if (tmp_path / f"{kind}.ragged0.f32").exists():
            network.check_outputs(f"{kind}.ragged", outputs)

        step, trajectory = trainer(model, training, gradients), []
        for i in range(STEPS):
            loss, first = step(*network.batch(i))
            if i == 0:
                check_gradients(network.read(f"{kind}.gradients.f32"), model, first)
            trajectory.append(float(loss))
        np.testing.assert_allclose(network.read(f"{kind}.losses.f64", np.float64), trajectory, rtol=1e-3, atol=1e-6)
        assert trajectory[0] != trajectory[-1]

        saved = keras.models.load_model(tmp_path / f"{kind}.saved.keras")
        network.check_outputs(f"{kind}.trained", network.call(saved))
        assert int(saved.optimizer.iterations) == STEPS
        for a, b in zip(saved.optimizer.variables, model.optimizer.variables, strict=True):
            assert relative(a, b) <= 0.02 * np.linalg.norm(b) + 1e-4, a.path
    same = keras.models.load_model(tmp_path / "adam.same.keras")
    assert same.name == model.name
    for a, b in zip(network.call(same), outputs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_goes_on_in_both(tmp_path):
    """30 steps here, 20 in Keras, or the other way round, are 50 steps in Keras alone: weights, optimizer and all."""
    keras.utils.set_random_seed(7)
    model = parity_networks.gru()
    network = Case(tmp_path, model)
    network.targets(["categorical_crossentropy"])

    def steps(trained, first, count):
        step = trainer(trained, True)
        for i in range(first, first + count):
            step(*network.batch(i))

    def check(trained):
        assert int(trained.optimizer.iterations) == 50
        assert float(trained.optimizer.learning_rate) == pytest.approx(0.002)
        pairs = [*zip(trained.weights, alone.weights, strict=True),
                 *zip(trained.optimizer.variables, alone.optimizer.variables, strict=True)]
        for a, b in pairs:
            assert relative(a, b) <= 1e-3 * np.linalg.norm(b) + 1e-6, a.path

    model.compile(keras.optimizers.AdamW(0.002, weight_decay=0.01), "categorical_crossentropy")
    model.save(tmp_path / "begin.keras")
    alone = keras.models.load_model(tmp_path / "begin.keras")
    steps(alone, 0, 50)
    network.run("begin", 30, True)
    here_first = keras.models.load_model(tmp_path / "begin.saved.keras")
    steps(here_first, 30, 20)
    check(here_first)
    steps(model, 0, 30)
    model.save(tmp_path / "keras_first.keras")
    network.run("keras_first", 20, True)
    check(keras.models.load_model(tmp_path / "keras_first.saved.keras"))


# ---- Files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", define.NETWORKS, ids=[f.__name__ for f in define.NETWORKS])
def test_published_file(function, tmp_path):
    """models/*.keras is what models/define.py defines, and gives what Keras gives, at its full length."""
    path = SOURCE / "models" / f"{function.__name__}.keras"
    stored, fresh = keras.models.load_model(path), function()
    for a, b in zip(stored.weights, fresh.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert type(stored.optimizer).__name__ == "Adam"
    check_prediction(stored, path, tmp_path)


def events(rows, model):
    """Particles of different number, padded to 801, and features."""
    rng = np.random.default_rng(2)
    x = [rng.normal(size=(rows, *i.shape[1:])).astype(np.float32) for i in model.inputs]
    for values in x:
        if values.ndim == 3:
            length = rng.integers(1, values.shape[1], rows)
            values[np.arange(values.shape[1]) >= length[:, None]] = 0
    return x


def check_prediction(model, path, folder, rows=10):
    """model: what Keras makes of the file at `path`, or of what it should hold."""
    x = events(rows, model)
    for i, values in enumerate(x):
        values.tofile(folder / f"x{i}.f32")
    np.zeros((rows, model.outputs[0].shape[-1]), np.float32).tofile(folder / "y0.f32")
    (folder / "model.keras").write_bytes(path.read_bytes())
    subprocess.run([DRIVER, folder, "model", str(rows), str(rows), "0", "test"], check=True)
    expected = np.asarray(tf.function(model)(x if len(x) > 1 else x[0], training=False))
    ours = np.fromfile(folder / "model.outputs0.f32", np.float32).reshape(expected.shape)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    rewritten = keras.models.load_model(folder / "model.same.keras")
    for a, b in zip(rewritten.weights, model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    return rewritten


def test_authors_keras_file(shared_data, tmp_path):
    path = shared_data / "models" / "myGRUmodel.keras"
    model = keras.models.load_model(path)
    rewritten = check_prediction(model, path, tmp_path)
    assert int(rewritten.optimizer.iterations) == int(model.optimizer.iterations) > 0
    for a, b in zip(rewritten.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_authors_hdf5_file(shared_data, tmp_path):
    """Keras 3 does not take this file of Keras 2: its weights are put into the same network, made anew."""
    h5py = pytest.importorskip("h5py")
    path = shared_data / "models" / "InclusiveClassifier.h5"
    model = define.inclusive_gru()
    with h5py.File(path) as file:
        groups = [file["model_weights"][name] for name in file["model_weights"].attrs["layer_names"]]
        arrays = [group[name] for group in groups for name in group.attrs["weight_names"]]
        model.set_weights([np.asarray(a) for a in arrays])
        slots = file["optimizer_weights"]
        stored = [np.asarray(slots[name]) for name in slots.attrs["weight_names"]]
    rewritten = check_prediction(model, path, tmp_path)
    variables = [np.asarray(v) for v in rewritten.optimizer.variables]
    assert variables[0] == stored[0] > 0
    count = len(model.trainable_variables)
    for i in range(count):
        np.testing.assert_array_equal(variables[2 + 2 * i], stored[1 + i])
        np.testing.assert_array_equal(variables[3 + 2 * i], stored[1 + count + i])


def test_hard_sigmoid_of_keras_2(tmp_path):
    """It was 0.2 x + 0.5: the weights make up for it, and Keras 3 gives the same from what we write."""
    h5py = pytest.importorskip("h5py")

    @keras.saving.register_keras_serializable()
    def old_hard_sigmoid(x):
        return keras.ops.clip(0.2 * x + 0.5, 0, 1)

    shape, inner = (7, 4), {"units": 3, "recurrent_activation": old_hard_sigmoid}
    model = keras.Sequential([keras.Input(shape), keras.layers.GRU(5, recurrent_activation=old_hard_sigmoid, reset_after=False, return_sequences=True, name="g"),
                              keras.layers.Bidirectional(keras.layers.LSTM(**inner), name="b"),
                              keras.layers.Dense(2, activation=old_hard_sigmoid, name="d")])
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(0, 1, w.shape) for w in model.weights])
    network = Case(tmp_path, model)
    network.targets(["mse"])
    outputs = network.call(model)
    model.save(tmp_path / "old.h5")
    old = [{"class_name": "GRU", "config": {"name": "g", "units": 5, "recurrent_activation": "hard_sigmoid", "return_sequences": True,
                                            "implementation": 1, "batch_input_shape": [None, *shape]}},
           {"class_name": "Bidirectional", "config": {"name": "b", "merge_mode": "concat", "layer": {
               "class_name": "LSTM", "config": {"name": "l", "units": 3, "recurrent_activation": "hard_sigmoid"}}}},
           {"class_name": "Dense", "config": {"name": "d", "units": 2, "activation": "hard_sigmoid"}}]
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file.attrs["keras_version"] = "2.2.4"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": old})
    (tmp_path / "h5.keras").write_bytes((tmp_path / "old.h5").read_bytes())
    network.run("h5", 0, False)
    network.check_outputs("h5.outputs", outputs)
    assert np.ptp(outputs[0]) > 0.5
    for a, b in zip(network.call(keras.models.load_model(tmp_path / "h5.same.keras")), outputs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_hdf5_of_keras_3(tmp_path):
    """Keras 3 still writes that format: nested models, several outputs, operations."""
    model = parity_networks.nested()
    prepare(model)
    model.compile("adam", ["binary_crossentropy", "mse", "sparse_categorical_crossentropy"])
    model.save(tmp_path / "old.h5")
    network = Case(tmp_path, model)
    network.targets(["binary_crossentropy", "mse", "sparse_categorical_crossentropy"])
    (tmp_path / "h5.keras").write_bytes((tmp_path / "old.h5").read_bytes())
    network.run("h5", 0, False)
    network.check_outputs("h5.outputs", network.call(model))
    same = keras.models.load_model(tmp_path / "h5.same.keras")
    for a, b in zip(network.call(same), network.call(model), strict=True):
        np.testing.assert_array_equal(a, b)
