"""The share of a training set that a search works on: laid out once in files that all workers map into memory.

Which share, and which fold an event is in, hashes of the seed and of the event's identity decide: neither order nor machines do.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_whole
from .search import Search, SearchError

SHARE, FOLD = 0x5348415245, 0x464F4C44  # salts: the two draws of an event have nothing to do with each other


def draw(identity: np.ndarray, seed: int, salt: int) -> np.ndarray:
    """A number in [0, 1) for each event, by its identity (uint64): the mixing function of SplitMix64."""
    step = ((seed * 0x9E3779B97F4A7C15) ^ (salt * 0xD1B54A32D192ED03)) & 0xFFFFFFFFFFFFFFFF
    z = identity + np.uint64(step)
    for _ in range(2):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / 2**53


class Samples:
    """Rows in memory: for each input values (float32) and, of sequences, where rows begin; labels, and the two draws."""

    def __init__(self, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.about, self.arrays = about, arrays
        self.rows, self.seed = about["rows"], about["seed"]
        self.inputs = [one["name"] for one in about["inputs"]]
        self.share = draw(arrays["identity"], self.seed, SHARE)
        self.fold = draw(arrays["identity"], self.seed, FOLD)

    @classmethod
    def open(cls, folder: Path) -> Samples:
        """Maps the files of a folder."""
        about = json.loads((folder / "about.json").read_text())
        return cls(about, {name: _map(folder / name, kind) for name, kind in _files(about).items()})

    def pack(self) -> dict[str, Any]:
        """All of it as bytes, for workers that share no disk with us."""
        return {"about": self.about, **{name: array.tobytes() for name, array in self.arrays.items()}}

    @classmethod
    def unpack(cls, packed: dict[str, Any]) -> Samples:
        about = packed["about"]
        return cls(about, {name: np.frombuffer(packed[name], kind) for name, kind in _files(about).items()})

    def split(self, fold: int, folds: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on and to validate on; with one fold a fifth is held out."""
        taken = self.share < fraction
        held = np.floor(self.fold * (folds if folds > 1 else 5)) == fold
        return np.flatnonzero(taken & ~held), np.flatnonzero(taken & held)

    def feed(self, core: Any, names: list[str], rows: np.ndarray) -> Any:
        """A feed of some rows for a network with these inputs."""
        parts, kept = [], [rows]
        for name in names:
            if name not in self.inputs:
                raise SearchError(f"the network's input {name!r} is not that of the first one ({', '.join(self.inputs)})")
            i = self.inputs.index(name)
            one, values = self.about["inputs"][i], self.arrays[f"values{i}"]
            offsets = self.arrays[f"offsets{i}"] if one["ragged"] else None
            kept += [values, offsets]
            pad = one["pad_rows"] if one["ragged"] else 0
            parts.append((values.ctypes.data, one["width"], offsets.ctypes.data if one["ragged"] else 0, pad))
        label, identity = self.arrays["label"], self.arrays["identity"]
        return core.feed_rows(self.rows, parts, label.ctypes.data, identity.ctypes.data, rows.ctypes.data, len(rows),
                              (self.arrays, kept))  # fmt: skip


def _files(about: dict[str, Any]) -> dict[str, Any]:
    files: dict[str, Any] = {"label": np.int32, "identity": np.uint64}
    for i, one in enumerate(about["inputs"]):
        files[f"values{i}"] = np.float32
        if one["ragged"]:
            files[f"offsets{i}"] = np.int64
    return files


def _map(path: Path, kind: Any) -> np.ndarray:
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.empty(0, kind)


def describe_dataset(folder: str) -> dict[str, Any]:
    """dataset.json, and its hash."""
    path = Path(folder, "dataset.json")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SearchError(f"{path}: {error.strerror}; a search needs a dataset made by `sapwood prepare`") from None
    return {**json.loads(text), "hash": hashlib.sha256(text).hexdigest()}


def lay_out(search: Search, core: Any, folder: Path) -> Samples:
    """Writes the search's share of the training part for networks like `core`, unless that is there already."""
    dataset = describe_dataset(search.data)
    names = [name for name, _ in core.describe()["inputs"]]
    wanted = {"dataset": dataset["hash"], "seed": search.seed, "fraction": search.largest_fraction}
    if (folder / "about.json").exists():
        about = json.loads((folder / "about.json").read_text())
        if all(about.get(key) == value for key, value in wanted.items()) and [one["name"] for one in about["inputs"]] == names:
            return Samples.open(folder)
    folder.mkdir(parents=True, exist_ok=True)
    feed = core.feed_dataset(search.data, "train", None)
    label, identity = np.empty(feed.rows(), np.int32), np.empty(feed.rows(), np.uint64)
    feed.labels(label.ctypes.data, identity.ctypes.data)
    chosen = np.flatnonzero(draw(identity, search.seed, SHARE) < search.largest_fraction)
    stored = feed.store(chosen.ctypes.data, len(chosen),
                        [(folder / f"values{i}", folder / f"ends{i}") for i in range(len(names))])  # fmt: skip
    features = {feature["name"]: feature for feature in dataset["features"]}
    inputs = []
    for i, (name, (width, ragged)) in enumerate(zip(names, stored, strict=True)):
        inputs.append({"name": name, "width": width, "ragged": ragged, "pad_rows": features[name].get("pad_rows", 0)})
        if ragged:
            np.concatenate([np.zeros(1, np.int64), np.fromfile(folder / f"ends{i}", np.int64)]).tofile(folder / f"offsets{i}")
        os.remove(folder / f"ends{i}")
    label[chosen].tofile(folder / "label")
    identity[chosen].tofile(folder / "identity")
    about = {**wanted, "rows": len(chosen), "of": len(label), "labels": dataset["labels"], "inputs": inputs}
    write_whole(folder / "about.json", json.dumps(about))
    return Samples.open(folder)


def check_folds(samples: Samples, search: Search) -> None:
    """Every fold must have something to train on and something to validate on, in the smallest share too."""
    share = search.parameters.get("fraction")
    smallest = search.fraction if share is None else min(getattr(share, "values", None) or (share.low,))
    for fold in range(search.folds):
        train, validation = samples.split(fold, search.folds, smallest)
        if len(train) == 0 or len(validation) == 0:
            of = samples.about["of"]
            raise SearchError(f"{search.where}: {smallest:g} of {of:,} training events in {search.folds} folds leaves fold "
                              f"{fold} with {len(train)} to train on and {len(validation)} to validate on")  # fmt: skip
