"""Defines the published networks with Keras and writes them beside this file.

    python models/define.py [FOLDER]

The initial weights come from a fixed seed, so the file is the same network every time.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras


def hlf():
    """The classifier on 14 high-level features (arXiv:1909.10389): 50, 20, 10 and 3 units."""
    keras.utils.set_random_seed(20190924)
    inputs = keras.Input((14,), name="hlf")
    x = inputs
    for units in (50, 20, 10):
        x = keras.layers.Dense(units, activation="relu")(x)
    outputs = keras.layers.Dense(3, activation="softmax")(x)
    model = keras.Model(inputs, outputs, name="hlf_classifier")
    model.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    hlf().save(os.path.join(folder, "hlf.keras"))


if __name__ == "__main__":
    main()
