"""Events of a dataset folder as NumPy arrays, some batches at a time, for TensorFlow and PyTorch.

The arrays come whole out of C: nothing here is done event by event.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _core

_TRIP_BYTES = 1 << 20  # smaller batches are fetched several at once: what a trip into Python costs does not hang on their size
_TRIP_STEPS = 64


class Feature(NamedTuple):
    """How a feature is handed out."""

    name: str
    width: int  # numbers; of a sequence, in a row
    rows: int  # of the padded form of a sequence; 0: a plain feature
    ragged: bool


class Stretch(NamedTuple):
    """Some batches of an epoch, one after another, and this process' share of them."""

    rows: np.ndarray  # (steps,) events of each step that are here
    whole: np.ndarray  # (steps,) events of each step in all processes
    inputs: list[tuple[np.ndarray, np.ndarray | None]]  # (rows, …), or (steps of all rows, width) and the steps of each row
    label: np.ndarray  # (rows,) int32
    weight: np.ndarray | None  # (rows,)


def describe(folder: Any) -> dict[str, Any]:
    """The folder's dataset.json."""
    path = Path(folder, "dataset.json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{os.fspath(folder)}: no dataset.json there") from None


def _is_padded_only(feature: dict[str, Any]) -> bool:
    """Whether its padding is more than zero rows at the end, so that there is no ragged form."""
    return feature["scaling"] == "standard_event" or bool(feature["pad_before_order"])


class Feeding:
    """One split of a dataset folder, scaled. The data are read when the first batch is asked for, in the process that asks."""

    def __init__(self, folder: Any, split: str, batch: int, *, features: Sequence[str] | None = None, weight: str | None = None,
                 ragged: bool = False, shard: tuple[int, int] = (0, 1), threads: int = 0) -> None:
        about = describe(folder)
        if about["layout"] == "published":
            raise ValueError(f"{os.fspath(folder)}: a dataset of the layout \"published\" holds the files of notebooks; "
                             "prepare one without --layout")
        self.folder, self.split, self.batch, self.threads = os.fspath(folder), split, int(batch), threads
        self.weight, self.labels = weight, list(about["labels"])
        self.rank, self.size = shard
        self.rows = sum(part["rows"] for part in about["parts"] if part["split"] == split)
        known = {feature["name"]: feature for feature in about["features"]}
        wanted = [name for name in known if name != weight] if features is None else list(features)
        unknown = [name for name in [*wanted, *([weight] if weight else [])] if name not in known]
        if unknown:
            raise KeyError(f"{self.folder}: no feature {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, known))}")
        if not self.rows:
            raise ValueError(f"{self.folder}: nothing in the split {split!r}")
        if self.batch < 1 or not 0 <= self.rank < self.size:
            raise ValueError(f"batch {batch}, shard {shard}: a batch of at least one event, and a shard (rank, size)")
        self.ragged = ragged
        self.features = [
            Feature(name, known[name]["width"], known[name]["pad_rows"] if known[name]["sequence"] else 0,
                    ragged and known[name]["sequence"] and not _is_padded_only(known[name]))
            for name in wanted
        ]
        self._feed: Any = None
        self._newest = 0

    def __getstate__(self) -> dict[str, Any]:  # another process opens the data itself
        return self.__dict__ | {"_feed": None}

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-self.rows // self.batch)

    @property
    def stretch(self) -> int:
        """Batches that are fetched at once; the same in all processes."""
        numbers = sum(f.width * max(f.rows, 1) for f in self.features)
        return max(1, min(_TRIP_STEPS, _TRIP_BYTES // (4 * numbers * self.batch)))

    def _share(self, rows: int) -> tuple[int, int]:
        return rows * self.rank // self.size, rows * (self.rank + 1) // self.size

    def _plan(self, first: int, last: int) -> tuple[list[tuple[int, int]], list[int]]:
        """(left out, taken) of each batch, as C wants it, and the events of each in all processes."""
        pairs, whole, left = [], [], 0
        for step in range(first, last):
            rows = min(self.batch, self.rows - step * self.batch)
            begin, end = self._share(rows)
            pairs.append((left + begin, end - begin))
            whole.append(rows)
            left = rows - end
        return [*pairs, (left, 0)], whole

    def stretches(self, seed: int, epoch: int, first: int = 0, last: int | None = None) -> Iterator[Stretch]:
        """The batches [first, last) of an epoch, in the order that (seed, epoch) fix; epoch -1: in stored order."""
        if self._feed is None:
            self._feed = _core.feed_open(self.folder, self.split, [f.name for f in self.features], self.weight,
                                         not self.ragged, self.threads, None)
        self._newest += 1
        own = self._newest
        self._feed.epoch(seed, epoch)
        self._feed.skip(first * self.batch)
        last = self.steps if last is None else min(last, self.steps)
        for step in range(first, last, self.stretch):
            if own != self._newest:
                raise RuntimeError(f"{self.folder}: a newer pass over this data set has begun; make a data set for each")
            pairs, whole = self._plan(step, min(step + self.stretch, last))
            yield self._arrays(self._feed.next(pairs), [taken for _, taken in pairs[:-1]], whole)

    def _arrays(self, fetched: tuple[Any, ...], rows: list[int], whole: list[int]) -> Stretch:
        count, parts, label, weight = fetched
        inputs = []
        for feature, (values, width, lengths) in zip(self.features, parts, strict=False):
            array = np.frombuffer(values, np.float32)
            if lengths is not None:
                inputs.append((array.reshape(-1, width), np.frombuffer(lengths, np.int64)))
            else:
                inputs.append((array.reshape((count, feature.rows, feature.width) if feature.rows else (count, feature.width)), None))
        if not parts:  # this process has no share of these batches
            inputs = [self._nothing(feature) for feature in self.features]
        return Stretch(np.asarray(rows, np.int64), np.asarray(whole, np.int64), inputs, np.frombuffer(label, np.int32),
                       np.frombuffer(weight, np.float32) if self.weight else None)

    @staticmethod
    def _nothing(feature: Feature) -> tuple[np.ndarray, np.ndarray | None]:
        if feature.ragged:
            return np.empty((0, feature.width), np.float32), np.empty(0, np.int64)
        return np.empty((0, feature.rows, feature.width) if feature.rows else (0, feature.width), np.float32), None
