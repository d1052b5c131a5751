"""Defines the published networks (arXiv:1909.10389) with Keras and writes them beside this file.

    python models/define.py [FOLDER]

The initial weights come from a fixed seed, so a file is the same network every time. `hlf` are the 14 high-level
features of an event, `particles` its particles, 19 numbers each, by falling transverse momentum and padded with zeros.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras

FEATURES, PARTICLES, VALUES, CLASSES = 14, 801, 19, 3
layers = keras.layers


def network(build):
    """Compiles the model that a function defines, with weights from the seed."""

    def define(particles=PARTICLES):
        keras.utils.set_random_seed(20190924)
        inputs, x = build(particles)
        outputs = layers.Dense(CLASSES, activation="softmax")(x)
        model = keras.Model(inputs, outputs, name=f"{build.__name__}_classifier")
        model.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])
        return model

    define.__name__, define.__doc__ = build.__name__, build.__doc__
    return define


def features():
    return keras.Input((FEATURES,), name="hlf")


def sequence(particles):
    return keras.Input((particles, VALUES), name="particles")


def inclusive(sequences, hlf, x):
    """The end that the inclusive classifiers share: what became of the particles beside the high-level features."""
    both = layers.Concatenate()([x, layers.Dropout(0.2)(hlf)])
    return [sequences, hlf], layers.Dense(25, activation="relu")(both)


@network
def hlf(particles):
    """The classifier on high-level features: 50, 20 and 10 units."""
    x = inputs = features()
    for units in (50, 20, 10):
        x = layers.Dense(units, activation="relu")(x)
    return inputs, x


@network
def particle_sequence(particles):
    """The classifier on particles alone: a GRU of 50 units."""
    inputs = sequence(particles)
    x = layers.GRU(50)(layers.Masking()(inputs))
    return inputs, layers.Dropout(0.2)(x)


@network
def inclusive_gru(particles):
    """The inclusive classifier: particles through a GRU, beside the features."""
    inputs, hlf = sequence(particles), features()
    x = layers.GRU(50)(layers.Masking()(inputs))
    return inclusive(inputs, hlf, layers.Dropout(0.2)(x))


@network
def inclusive_lstm(particles):
    """The same with an LSTM."""
    inputs, hlf = sequence(particles), features()
    x = layers.LSTM(50)(layers.Masking()(inputs))
    return inclusive(inputs, hlf, layers.Dropout(0.2)(x))


@network
def inclusive_transformer(particles):
    """The same with attention among the particles, without a mask, as published."""
    inputs, hlf = sequence(particles), features()
    x = layers.MultiHeadAttention(num_heads=8, key_dim=VALUES)(inputs, inputs)
    x = layers.Dropout(0.2)(layers.LayerNormalization(epsilon=1e-6)(x))
    x = layers.TimeDistributed(layers.Dense(20, activation="relu"))(x)
    x = layers.Dense(10, activation="relu")(layers.Flatten()(x))
    return inclusive(inputs, hlf, x)


NETWORKS = [hlf, particle_sequence, inclusive_gru, inclusive_lstm, inclusive_transformer]


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    for define in NETWORKS:
        define().save(os.path.join(folder, f"{define.__name__}.keras"))


if __name__ == "__main__":
    main()
