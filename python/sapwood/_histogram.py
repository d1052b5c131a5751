"""Histograms and profiles of ROOT files, as NumPy arrays and as hist or boost-histogram objects."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["Axis", "Histogram"]


class Axis:
    """One axis: `edges`, `labels` (None, or a list with None for bins that have none), `name`, `title`. As a sequence it gives the
    interval of each bin, or its label when every bin has one (PlottableAxis)."""

    def __init__(self, raw: Mapping[str, Any]):
        self.name: str = raw["name"]
        self.title: str = raw["title"]
        self.regular: bool = raw["regular"]
        self.edges = np.frombuffer(raw["edges"])
        self.labels: list[str | None] | None = raw["labels"]

    @property
    def is_category(self) -> bool:
        """Every bin has a label of its own."""
        return self.labels is not None and None not in self.labels and len(set(self.labels)) == len(self.labels)

    @property
    def traits(self):
        from types import SimpleNamespace

        return SimpleNamespace(circular=False, discrete=self.is_category)

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __getitem__(self, index: int) -> Any:
        if index < 0 or index >= len(self):
            raise IndexError(index)
        return self.labels[index] if self.is_category else (float(self.edges[index]), float(self.edges[index + 1]))

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Axis) and np.array_equal(self.edges, other.edges) and self.labels == other.labels

    def __repr__(self) -> str:
        return f"<sapwood.Axis {self.name!r}: {len(self)} bins [{self.edges[0]:g}, {self.edges[-1]:g}]>"

    def _to_boost(self):
        import boost_histogram as bh

        if self.is_category:
            axis = bh.axis.StrCategory(self.labels)
        elif self.regular:
            axis = bh.axis.Regular(len(self), self.edges[0], self.edges[-1])
        else:
            axis = bh.axis.Variable(self.edges)
        axis.name, axis.label = self.name, self.title
        return axis


class Histogram:
    """A TH1, TH2, TH3 or TProfile. Arrays have one dimension an axis, x first; flow=True adds under- and overflow at both ends.
    It is a PlottableHistogram: mplhep.histplot, hist.Hist and boost_histogram.Histogram take it as it is."""

    def __init__(self, raw: Mapping[str, Any]):
        self._raw = raw
        self.name: str = raw["name"]
        self.title: str = raw["title"]
        self.class_name: str = raw["class_name"]
        self.axes = tuple(Axis(axis) for axis in raw["axes"])
        self.is_profile: bool = raw["profile"]
        self.error_option: str = raw["error_option"].strip()  # "", "s", "i", "g": as ROOT has it for profiles
        self.entries: float = raw["entries"]
        self.statistics: dict[str, float] = dict(raw["statistics"])  # sumw, sumw2, sumwx, sumwx2

    @property
    def kind(self) -> str:
        return "MEAN" if self.is_profile else "COUNT"

    @property
    def ndim(self) -> int:
        return len(self.axes)

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray | None]:
        shape = tuple(len(axis) + 2 for axis in reversed(self.axes))  # x runs fastest
        names = ("values", "variances", "weights_squared", "counts", "spreads")
        return {name: None if self._raw[name] is None else np.frombuffer(self._raw[name]).reshape(shape).T for name in names}

    def _array(self, name: str, flow: bool) -> np.ndarray:
        return self._arrays[name] if flow else self._arrays[name][(slice(1, -1),) * self.ndim]

    def values(self, flow: bool = False) -> np.ndarray:
        """Contents of the bins; of a profile the means."""
        return self._array("values", flow)

    def variances(self, flow: bool = False) -> np.ndarray:
        """Squares of the errors."""
        return self._array("variances", flow)

    def errors(self, flow: bool = False) -> np.ndarray:
        """Errors as ROOT gives them, for profiles by their error option."""
        return np.sqrt(self.variances(flow))

    def counts(self, flow: bool = False) -> np.ndarray:
        """Effective number of entries: (sum of weights)² / sum of squared weights."""
        weights = self._array("counts", flow) if self.is_profile else self.values(flow)
        if self._arrays["weights_squared"] is None:
            return weights
        squared = self._array("weights_squared", flow)
        return np.divide(weights**2, squared, out=np.zeros_like(weights), where=squared > 0)

    def edges(self, axis: int = 0, flow: bool = False) -> np.ndarray:
        """Edges of the bins of an axis; flow=True: with -inf and inf around them."""
        edges = self.axes[axis].edges
        return np.concatenate([[-np.inf], edges, [np.inf]]) if flow else edges

    def to_numpy(self, flow: bool = False) -> tuple[np.ndarray, ...]:
        """(values, edges of x, edges of y, …), as numpy.histogram gives them."""
        return (self.values(flow), *(self.edges(i, flow) for i in range(self.ndim)))

    def boost(self):
        """As boost_histogram.Histogram: Weight storage where ROOT kept the squared weights, else Double; profiles as (Weighted)Mean. Axes
        on which every bin has a label become categories."""
        import boost_histogram as bh

        weighted = self._arrays["weights_squared"] is not None
        storages = {
            (False, False): bh.storage.Double,
            (False, True): bh.storage.Weight,
            (True, False): bh.storage.Mean,
            (True, True): bh.storage.WeightedMean,
        }
        out = bh.Histogram(*(axis._to_boost() for axis in self.axes), storage=storages[self.is_profile, weighted]())
        out.name, out.label = self.name, self.title
        cells = tuple(slice(1 if axis.is_category else 0, None) for axis in self.axes)  # categories have no underflow
        array = {name: None if array is None else array[cells] for name, array in self._arrays.items()}
        view = out.view(flow=True)
        if not self.is_profile and not weighted:
            view[...] = array["values"]
            return out
        view["value"] = array["values"]
        if not self.is_profile:
            view["variance"] = array["weights_squared"]
        elif weighted:
            view["sum_of_weights"] = array["counts"]
            view["sum_of_weights_squared"] = array["weights_squared"]
            view["_sum_of_weighted_deltas_squared"] = array["spreads"] * array["counts"]
        else:
            view["count"] = array["counts"]
            view["_sum_of_deltas_squared"] = array["spreads"] * array["counts"]
        return out

    _to_boost_histogram_ = boost

    def hist(self):
        """As hist.Hist."""
        import hist

        return hist.Hist(self.boost())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram) or self.axes != other.axes or self.kind != other.kind:
            return False
        return all(np.array_equal(self._arrays[k], other._arrays[k], equal_nan=True) for k in ("values", "variances"))

    def __repr__(self) -> str:
        shape = " × ".join(str(len(axis)) for axis in self.axes)
        return f"<sapwood.Histogram {self.name!r}: {self.class_name}, {shape} bins, {self.entries:g} entries>"
