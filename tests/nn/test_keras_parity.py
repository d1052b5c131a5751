"""Networks give what Keras gives: outputs, gradients, the losses of 50 steps, and files that Keras loads and goes on with.

Keras builds, compiles and saves the networks of parity_networks.py and of models/define.py; parity_driver runs them in C.
"""

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

        optimizer = model.optimizer
        optimizer.build(model.trainable_variables)
        apply = tf.function(lambda step, optimizer=optimizer: optimizer.apply(step, model.trainable_variables))
        trajectory = []
        for step in range(STEPS):
            rows = slice(step * BATCH % ROWS, step * BATCH % ROWS + BATCH)
            loss, step_gradients = gradients([v[rows] for v in network.x], [v[rows] for v in network.y])
            if step == 0:
                check_gradients(network.read(f"{kind}.gradients.f32"), model, step_gradients)
            apply(step_gradients)
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
