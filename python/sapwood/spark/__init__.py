"""ROOT files as Spark DataFrames.

    spark = sapwood.spark.session(master="local[*]")
    events = spark.read.format("root").option("tree", "Delphes").load("data/*.root")

Importing this starts nothing, and needs pyspark only when something of it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

# Where each name lives; modules are imported when a name of theirs is first used.
_HOMES = {
    "FeatureScaler": "scaling",
    "FeatureScalerModel": "scaling",
    "SapwoodEstimator": "estimator",
    "SapwoodModel": "model",
    "Scorer": "scoring",
    "jar": "session",
    "prepare": "preparation",
    "register": "source",
    "session": "session",
    "tensorflow_fit": "tensorflow_fit",
    "write": "writing",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # a module and a function of one name: the function
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
