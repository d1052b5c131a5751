"""sapwood.torch.dataset: packed and padded sequences, workers, shares. Runs where PyTorch is installed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
import sapwood.torch  # noqa: E402 (needs PyTorch)
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402


def test_packed_sequences_are_those_of_the_padded_ones(dataset):
    packed = list(sapwood.torch.dataset(dataset, batch=90, split="test"))
    padded = list(sapwood.torch.dataset(dataset, batch=90, split="test", packed=False))
    assert len(packed) == len(padded) == len(sapwood.torch.dataset(dataset, batch=90, split="test"))
    for (x, label), (u, same) in zip(packed, padded, strict=True):
        assert torch.equal(label, same) and label.dtype == torch.int64 and torch.equal(x["hlf"], u["hlf"])
        values, lengths = pad_packed_sequence(x["particles"], batch_first=True, total_length=801)
        assert torch.equal(values, u["particles"])
        expected = pack_padded_sequence(u["particles"], lengths, batch_first=True, enforce_sorted=False)
        assert torch.equal(x["particles"].batch_sizes, expected.batch_sizes)


def test_a_sequence_without_steps_gets_a_zero_one():
    made = sapwood.torch.pack(np.asarray([[1.0], [2.0], [3.0]], np.float32), np.asarray([1, 0, 2]))
    values, lengths = pad_packed_sequence(made, batch_first=True)
    assert values[..., 0].tolist() == [[1, 0], [0, 0], [2, 3]] and lengths.tolist() == [1, 1, 2]


def test_workers_and_epochs(dataset):
    data = sapwood.torch.dataset(dataset, batch=100, features=["hlf"], seed=3)
    first, second = ([x["hlf"] for x, _ in data] for _ in range(2))
    assert not torch.equal(first[0], second[0])
    data.set_epoch(2)
    workers = [x["hlf"] for x, _ in DataLoader(data, batch_size=None, num_workers=2)]
    assert len(workers) == len(second) and all(torch.equal(a, b) for a, b in zip(workers, second, strict=True))
    shares = [[x["hlf"] for x, _ in sapwood.torch.dataset(dataset, batch=100, features=["hlf"], seed=3, shard=(rank, 2))] for rank in (0, 1)]
    for *parts, whole in zip(*shares, first, strict=True):
        assert sorted(torch.cat(parts).tolist()) == sorted(whole.tolist())
