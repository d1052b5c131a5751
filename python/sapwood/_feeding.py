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
from ._core import SHARDS  # that a split is cut into; a process owns some of them

_TRIP_BYTES = 1 << 20  # smaller batches are fetched several at once: what a trip into Python costs does not hang on their size
_TRIP_STEPS = 64
OWN, STORED = -1, -2  # instead of an epoch: this process' events in stored order, as if there were no others; all in stored order


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
        parts = [part for part in about["parts"] if part["split"] == split]
        self.rows = sum(part["rows"] for part in parts)
        self.shards = (SHARDS * self.rank // self.size, SHARDS * (self.rank + 1) // self.size) if self.size > 1 else (0, 0)
        owned = range(*self.shards) if self.size > 1 else range(SHARDS)
        self.own_rows = sum(part["rows"] for part in parts if part["shard"] in owned)
        known = {feature["name"]: feature for feature in about["features"]}
        wanted = [name for name in known if name != weight] if features is None else list(features)
        unknown = [name for name in [*wanted, *([weight] if weight else [])] if name not in known]
        if unknown:
            raise KeyError(f"{self.folder}: no feature {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, known))}")
        if not self.rows:
            raise ValueError(f"{self.folder}: nothing in the split {split!r}")
        if self.batch < 1 or not 0 <= self.rank < self.size <= SHARDS:
            raise ValueError(f"batch {batch}, shard {shard}: a batch of at least one event, and a shard (rank, size) of at most {SHARDS}")
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

    def batches(self, epoch: int) -> int:
        """Batches of an epoch, or of this process' own events."""
        return -(-self.own_rows // self.batch) if epoch == OWN else self.steps

    @property
    def stretch(self) -> int:
        """Batches that are fetched at once; the same in all processes."""
        numbers = sum(f.width * max(f.rows, 1) for f in self.features)
        return max(1, min(_TRIP_STEPS, _TRIP_BYTES // (4 * numbers * self.batch)))

    def stretches(self, seed: int, epoch: int, first: int = 0, last: int | None = None, turn: tuple[int, int] = (0, 1)) -> Iterator[Stretch]:
        """The batches [first, last) of an epoch, in the order that (seed, epoch) fix, or of OWN or STORED.

        turn: (i, n): of each n batches only the i-th.
        """
        if self._feed is None:
            self._feed = _core.feed_open(self.folder, self.split, [f.name for f in self.features], self.weight, not self.ragged,
                                         *self.shards, self.threads, None)
        self._newest += 1
        own, (i, n) = self._newest, turn
        self._feed.epoch(seed, epoch)
        self._feed.skip((first + i) * self.batch)
        last = self.batches(epoch) if last is None else last
        at = first + i
        while at < last:
            if own != self._newest:
                raise RuntimeError(f"{self.folder}: a newer pass over this data set has begun; make a data set for each")
            steps = min(self.stretch, last - at) if n == 1 else 1
            stretch = self._arrays(*self._feed.next(steps, self.batch))
            if not len(stretch.rows):
                return
            yield stretch
            at += steps * n
            self._feed.skip((n - 1) * self.batch)

    def _arrays(self, rows: Any, whole: Any, parts: list[Any], label: Any, weight: Any) -> Stretch:
        here = np.frombuffer(rows, np.int64)
        count = int(here.sum())
        inputs = []
        for feature, (values, width, lengths) in zip(self.features, parts, strict=False):
            array = np.frombuffer(values, np.float32)
            if lengths is not None:
                inputs.append((array.reshape(-1, width), np.frombuffer(lengths, np.int64)))
            else:
                inputs.append((array.reshape((count, feature.rows, feature.width) if feature.rows else (count, feature.width)), None))
        if not parts:  # nothing of these batches is here
            inputs = [self._nothing(feature) for feature in self.features]
        return Stretch(here, np.frombuffer(whole, np.int64), inputs, np.frombuffer(label, np.int32),
                       np.frombuffer(weight, np.float32) if self.weight else None)

    @staticmethod
    def _nothing(feature: Feature) -> tuple[np.ndarray, np.ndarray | None]:
        if feature.ragged:
            return np.empty((0, feature.width), np.float32), np.empty(0, np.int64)
        return np.empty((0, feature.rows, feature.width) if feature.rows else (0, feature.width), np.float32), None
