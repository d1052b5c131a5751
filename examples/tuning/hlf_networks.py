"""Networks of the search in search.yaml: the classifier on high-level features, with widths to choose."""

import keras


def build(units_1, units_2, units_3):
    return keras.Sequential(
        [
            keras.Input((14,), name="hlf"),
            keras.layers.Dense(units_1, activation="relu"),
            keras.layers.Dense(units_2, activation="relu"),
            keras.layers.Dense(units_3, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
