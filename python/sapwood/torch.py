"""Dataset folders for PyTorch.

    import sapwood.torch
    from torch.utils.data import DataLoader

    train = sapwood.torch.dataset("dataset", batch=128)
    for inputs, label in DataLoader(train, batch_size=None):
        scores = model(inputs["hlf"], inputs["particles"])  # particles: a PackedSequence

See docs/tensorflow.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import IterableDataset, get_worker_info

from ._feeding import OWN, Feeding, Stretch

__all__ = ["dataset"]


def dataset(folder: Any, split: str = "train", batch: int = 128, *, features: Sequence[str] | None = None, shuffle: bool = True,
            seed: int = 1, epoch: int = 1, packed: bool = True, weight: str | None = None, shard: tuple[int, int] = (0, 1),
            threads: int = 0) -> Batches:
    """An `IterableDataset` of whole batches, for a `DataLoader(..., batch_size=None)` or a plain loop.

    Elements are ({feature: float32 tensor}, label), or ({…}, label, weight); label: int64 (batch,). A sequence is a `PackedSequence`
    of the events' own rows, or with packed=False, and where its padding is more than zeros at the end, a tensor (batch, rows, width).

    The other arguments are those of `sapwood.tf.dataset`: the first pass is `epoch`, each further one the next. With workers of
    a DataLoader, which begin each pass as copies, call `set_epoch` before it; they take the batches in turns. shard: (rank, size),
    as of torch.distributed.
    """
    return Batches(Feeding(folder, split, batch, features=features, weight=weight, ragged=packed, shard=shard, threads=threads),
                   seed if shuffle else None, epoch)


class Batches(IterableDataset):
    """What `dataset` returns."""

    def __init__(self, feeding: Feeding, seed: int | None, epoch: int) -> None:
        self.feeding, self.seed, self.epoch = feeding, seed, epoch

    def __len__(self) -> int:
        return self.feeding.steps if self.seed is not None else self.feeding.batches(OWN)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        worker = get_worker_info()
        epoch, self.epoch = self.epoch, self.epoch + 1
        seed, epoch = (self.seed, epoch) if self.seed is not None else (0, OWN)
        turn = (worker.id, worker.num_workers) if worker else (0, 1)
        return self._batches(self.feeding.stretches(seed, epoch, turn=turn))

    def _batches(self, stretches: Iterator[Stretch]) -> Iterator[tuple[Any, ...]]:
        for stretch in stretches:
            ends = np.cumsum(stretch.rows)
            begins = [np.concatenate([[0], np.cumsum(lengths)]) if lengths is not None else None for _, lengths in stretch.inputs]
            for begin, end in zip(ends - stretch.rows, ends, strict=True):
                inputs = {}
                for feature, (values, lengths), first in zip(self.feeding.features, stretch.inputs, begins, strict=True):
                    if lengths is None:
                        inputs[feature.name] = torch.from_numpy(values[begin:end])
                    else:
                        inputs[feature.name] = pack(values[first[begin] : first[end]], lengths[begin:end])
                label = torch.from_numpy(stretch.label[begin:end].astype(np.int64))
                weight = () if stretch.weight is None else (torch.from_numpy(stretch.weight[begin:end]),)
                yield (inputs, label, *weight)


def pack(values: np.ndarray, lengths: np.ndarray) -> PackedSequence:
    """Sequences one after another, (steps of all, width), as a PackedSequence. Every event needs a step: one without gets a zero step."""
    if len(lengths) and lengths.min() == 0:
        place = np.repeat(np.cumsum(np.maximum(lengths, 1)) - np.maximum(lengths, 1), lengths) + _within(lengths)
        filled = np.zeros((int(np.maximum(lengths, 1).sum()), values.shape[1]), np.float32)
        filled[place] = values
        values, lengths = filled, np.maximum(lengths, 1)
    order = np.argsort(-lengths, kind="stable")
    back = np.argsort(order, kind="stable")
    # events that still have a step, for each step; where each step of each event goes
    sizes = np.cumsum(np.bincount(lengths, minlength=1)[::-1])[::-1][1:]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else np.zeros(0, np.int64)
    data = np.empty_like(values)
    data[starts[_within(lengths)] + np.repeat(back, lengths)] = values
    return PackedSequence(torch.from_numpy(data), torch.from_numpy(sizes.astype(np.int64)), torch.from_numpy(order), torch.from_numpy(back))


def _within(lengths: np.ndarray) -> np.ndarray:
    """The number of each step in its own sequence."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
