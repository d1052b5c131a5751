"""Networks give what Keras gives: outputs, gradients, the losses of 20 steps, and files that Keras loads.

Seven dense networks, as Keras builds and saves them; parity_driver runs them in C.
"""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SOURCE, driver

sys.path.insert(0, str(SOURCE / "models"))
import define  # noqa: E402

layers = keras.layers
DRIVER = driver("parity_driver")
BATCH, STEPS = 100, 20  # not a multiple of a tile
ROWS = BATCH * STEPS


def deep():
    model = keras.Sequential([keras.Input((7,)), layers.Dense(33, activation="elu", kernel_initializer="he_normal"),
                              layers.Dense(17, activation="tanh"), layers.Dense(65, activation="selu"),
                              layers.Dense(9, activation="sigmoid", use_bias=False), layers.Dropout(0.4),
                              layers.Dense(5, activation="softmax")])
    return model


def wide_logits_layer():
    inputs = keras.Input((30,))
    x = layers.Dense(129)(inputs)
    x = layers.LeakyReLU(negative_slope=0.1)(x)
    x = layers.Dense(40, activation="silu")(x)
    x = layers.Dense(4)(x)
    return keras.Model(inputs, layers.Activation("softmax")(x))


def two_branches():
    a, b = keras.Input((12,), name="a"), keras.Input((3, 5), name="b")
    x = layers.Dense(20, activation="gelu")(layers.Dropout(0.2)(a))
    y = layers.Dense(6, activation="relu")(b)  # along the last axis of three rows
    y = layers.Dense(8, activation="softplus")(layers.Flatten()(y))
    z = layers.Concatenate()([x, y, a])
    z = layers.Dense(25, activation="relu")(layers.Dropout(0.5)(z))
    return keras.Model([a, b], layers.Dense(3, activation="softmax")(z))


def shared_and_residual():
    a, b = keras.Input((10,), name="a"), keras.Input((10,), name="b")
    shared = layers.Dense(16, activation="tanh")
    both = layers.Add()([shared(a), shared(b)])
    x = layers.Add()([both, layers.Dense(16, activation="hard_sigmoid")(both)])
    x = layers.Reshape((4, 4))(x)
    x = layers.Concatenate(axis=1)([x, layers.Reshape((2, -1))(layers.Dense(8, activation="softsign")(a))])
    x = layers.Dense(3, activation="softmax")(layers.Flatten()(x))
    frozen = layers.BatchNormalization(trainable=False)
    return keras.Model([a, b], layers.Dense(4, activation="softmax")(frozen(x)))


def probabilities():
    """The last layer is not a softmax: the loss is taken from probabilities, normalised and clipped."""
    inputs = keras.Input((6,))
    x = layers.Dense(11, activation="relu6")(inputs)
    x = layers.Dense(7, activation="exponential", kernel_initializer="glorot_normal")(layers.ReLU(max_value=2.0)(x))
    return keras.Model(inputs, layers.Dense(3, activation="softplus")(x))


def sigmoids():
    """Keras on TensorFlow takes the loss from the inputs of the sigmoids, as if they were a softmax."""
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3, activation="sigmoid")(layers.ELU(alpha=0.7)(layers.Dense(8)(inputs))))


NETWORKS = [define.hlf, deep, wide_logits_layer, two_branches, shared_and_residual, probabilities, sigmoids]
CASES = [(f, "adam") for f in NETWORKS] + [(f, k) for k in ("sgd", "nesterov") for f in (define.hlf, two_branches)]
OPTIMIZERS = {"adam": lambda: keras.optimizers.Adam(0.01),
              "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
              "nesterov": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)}


def auc(score, positive):
    a, b = score[positive].astype(np.float64), score[~positive].astype(np.float64)
    return float(np.mean((a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :])))


@pytest.mark.parametrize(("define_network", "kind"), CASES, ids=[f"{f.__name__}-{k}" for f, k in CASES])
def test_network(define_network, kind, tmp_path):
    keras.utils.set_random_seed(7)
    model = define_network()
    for weight in model.weights:  # biases and statistics that are not zero
        if "bias" in weight.path or "mean" in weight.path:
            weight.assign(np.random.default_rng(3).normal(0, 0.2, weight.shape))
    path = tmp_path / "model.keras"
    model.save(path)

    rng = np.random.default_rng(11)
    x = [rng.normal(size=(ROWS, *i.shape[1:])).astype(np.float32) for i in model.inputs]
    classes = model.outputs[0].shape[-1]
    label = (np.abs(x[0].reshape(ROWS, -1)[:, :2]).sum(1) * 1.7).astype(np.int32) % classes
    for i, values in enumerate(x):
        values.tofile(tmp_path / f"x{i}.f32")
    label.tofile(tmp_path / "label.i32")
    subprocess.run([DRIVER, path, tmp_path, str(ROWS), str(BATCH), str(STEPS), kind], check=True)

    def read(name, kind=np.float32):
        return np.fromfile(tmp_path / name, kind)

    def call(network, rows=slice(None), training=False):
        arrays = [v[rows] for v in x]
        return network(arrays if len(arrays) > 1 else arrays[0], training=training)

    # outputs
    outputs = call(model).numpy()
    ours = read("outputs.f32").reshape(outputs.shape)
    np.testing.assert_allclose(ours, outputs, rtol=1e-6, atol=1e-6)

    # evaluation
    figures = read("evaluation.f64", np.float64)
    assert figures[0] == pytest.approx(np.mean(np.argmax(ours, 1) == label), abs=1e-12)
    for c in range(classes):
        if 0 < np.sum(label == c) < ROWS:
            assert figures[2 + c] == pytest.approx(auc(ours[:, c], label == c), abs=1e-12)
        else:
            assert np.isnan(figures[2 + c])

    # gradients
    target = keras.utils.to_categorical(label, classes)
    loss_of = keras.losses.CategoricalCrossentropy()
    with tf.GradientTape() as tape:
        loss = loss_of(target[:BATCH], call(model, slice(0, BATCH)))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    flat = np.concatenate([np.asarray(g).ravel() for g in gradients])
    np.testing.assert_allclose(read("gradients.f32"), flat, rtol=0, atol=1e-5)
    assert np.abs(flat).max() > 1e-3

    # the file written before training
    same = keras.models.load_model(tmp_path / "same.keras")
    np.testing.assert_array_equal(call(same).numpy(), outputs)
    assert same.name == model.name

    # 20 steps
    optimizer = OPTIMIZERS[kind]()
    losses = []
    for step in range(STEPS):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        with tf.GradientTape() as tape:
            loss = loss_of(target[rows], call(model, rows))
        optimizer.apply(tape.gradient(loss, [v.value for v in model.trainable_variables]), model.trainable_variables)
        losses.append(float(loss))
    np.testing.assert_allclose(read("losses.f64", np.float64), losses, rtol=0, atol=1e-4)
    assert losses[0] != losses[-1]

    # the file written after training
    saved = keras.models.load_model(tmp_path / "saved.keras")
    np.testing.assert_allclose(call(saved).numpy(), read("trained.f32").reshape(outputs.shape), rtol=1e-6, atol=1e-6)
    for a, b in zip(saved.weights, model.weights):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=2e-4, err_msg=a.path)


def test_optimizer_state_goes_to_keras(tmp_path):
    """A file written after training carries the optimizer as Keras stores it, so that Keras goes on."""
    model = define.hlf()
    model.save(tmp_path / "model.keras")
    rng = np.random.default_rng(5)
    rng.normal(size=(ROWS, 14)).astype(np.float32).tofile(tmp_path / "x0.f32")
    rng.integers(0, 3, ROWS).astype(np.int32).tofile(tmp_path / "label.i32")
    subprocess.run([DRIVER, tmp_path / "model.keras", tmp_path, str(ROWS), str(BATCH), str(STEPS), "adam"], check=True)
    saved = keras.models.load_model(tmp_path / "saved.keras")
    assert int(saved.optimizer.iterations) == STEPS
    assert float(saved.optimizer.learning_rate) == pytest.approx(0.01)
    moments = [np.asarray(v) for v in saved.optimizer.variables[2:]]
    assert len(moments) == 2 * len(saved.trainable_variables)
    for variable, m in zip(np.repeat(np.arange(len(moments) // 2), 2), moments):
        assert m.shape == saved.trainable_variables[variable].shape
    assert all(np.abs(m).max() > 0 for m in moments)


def test_published_model_file():
    """models/hlf.keras is what models/define.py defines."""
    stored = keras.models.load_model(SOURCE / "models" / "hlf.keras")
    fresh = define.hlf()
    assert [i.name for i in stored.inputs] == ["hlf"]
    for a, b in zip(stored.weights, fresh.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert type(stored.optimizer).__name__ == "Adam"
