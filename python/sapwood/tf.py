"""Dataset folders for TensorFlow.

    import sapwood.tf

    train = sapwood.tf.dataset("dataset", batch=128, features=["hlf"])
    test = sapwood.tf.dataset("dataset", "test", batch=512, features=["hlf"], shuffle=False)
    model.fit(train, epochs=10, validation_data=test)

See docs/tensorflow.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ._feeding import OWN, Feeding, Stretch

__all__ = ["dataset"]


def dataset(folder: Any, split: str = "train", batch: int = 128, *, features: Sequence[str] | None = None, shuffle: bool = True,
            seed: int = 1, epoch: int = 1, ragged: bool = False, one_hot: bool = True, weight: str | None = None,
            shard: tuple[int, int] = (0, 1), threads: int = 0) -> tf.data.Dataset:
    """A `tf.data.Dataset` over a split of a folder that `sapwood prepare` made: whole batches, scaled with the folder's constants.

    Elements are ({feature: float32}, label), or ({feature: float32}, label, weight). A plain feature is (batch, width); a sequence
    (batch, rows, width), padded with zeros, or with ragged=True a `tf.RaggedTensor` of that shape where its padding is nothing but
    zeros at the end. Labels are one-hot float32 (batch, classes), or int32 (batch,) with one_hot=False.

    features: names; None: all. weight: a feature of one number, as stored.
    shuffle: in the order that (seed, epoch) fix, which is that of `sapwood train --seed`, epochs counted from 1; the first pass is
    `epoch`, each further one the next. Without it, in stored order.
    shard: (rank, size): the events of this process, which reads no others. `batch` counts the events of all processes, who get their
    shares of the same batches, near `batch` / size; without shuffling, each has batches of its own.
    threads: that gather batches ahead; 0: all cores.
    """
    feeding = Feeding(folder, split, batch, features=features, weight=weight, ragged=ragged, shard=shard, threads=threads)
    epochs = iter(range(epoch, 1 << 62))

    def passes() -> Iterator[tuple[Any, ...]]:
        for stretch in feeding.stretches(seed, next(epochs) if shuffle else OWN):
            yield pack(feeding, stretch)

    def cut(*parts: Any) -> tf.data.Dataset:
        ends = tf.cumsum(parts[0])
        return tf.data.Dataset.from_tensor_slices((ends - parts[0], ends)).map(
            lambda begin, end: take(feeding, parts, begin, end, one_hot))

    stretches = tf.data.Dataset.from_generator(passes, output_signature=signature(feeding)).prefetch(2)
    batches = stretches.flat_map(cut).prefetch(tf.data.AUTOTUNE)
    return batches.apply(tf.data.experimental.assert_cardinality(feeding.steps if shuffle else feeding.batches(OWN)))


# ---- Stretches of batches, which `sapwood train --engine tensorflow` takes as they are ------------------------------------------


def signature(feeding: Feeding) -> tuple[Any, ...]:
    """Of what `pack` gives: rows, whole, a tuple of values and one of row splits (or nothing), label, weight (or nothing)."""

    def values(feature: Any) -> tf.TensorSpec:
        padded = feature.rows and not feature.ragged
        return tf.TensorSpec((None, feature.rows, feature.width) if padded else (None, feature.width), tf.float32)

    counts = tf.TensorSpec((None,), tf.int64)
    return (counts, counts, tuple(values(f) for f in feeding.features), tuple(counts for f in feeding.features if f.ragged),
            tf.TensorSpec((None,), tf.int32), (tf.TensorSpec((None,), tf.float32),) if feeding.weight else ())


def pack(feeding: Feeding, stretch: Stretch) -> tuple[Any, ...]:
    """A stretch as nested tuples of arrays."""
    splits = tuple(np.concatenate([[0], np.cumsum(lengths)]) for _, lengths in stretch.inputs if lengths is not None)
    return (stretch.rows, stretch.whole, tuple(values for values, _ in stretch.inputs), splits, stretch.label,
            (stretch.weight,) if feeding.weight else ())


def take(feeding: Feeding, parts: tuple[Any, ...], begin: Any, end: Any, one_hot: bool) -> tuple[Any, ...]:
    """Events [begin, end) of what `pack` gave: an element of `dataset`."""
    _, _, values, splits, label, weight = parts
    inputs, splits = {}, list(splits)
    for feature, array in zip(feeding.features, values, strict=True):
        if feature.ragged:
            own = splits.pop(0)[begin : end + 1]
            inputs[feature.name] = tf.RaggedTensor.from_row_splits(array[own[0] : own[-1]], own - own[0], validate=False)
        else:
            inputs[feature.name] = array[begin:end]
    targets = label[begin:end]
    if one_hot:
        targets = tf.one_hot(targets, len(feeding.labels))
    return (inputs, targets, *(w[begin:end] for w in weight))
