"""The columns of a DataFrame that a network is trained on, in the few types that the tasks take: lists of float32, class numbers, identities."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .sharding import Feature, Rows

IDENTITY = ("sample", "file", "entry")
Value = Callable[[str], Any]  # of a parameter, None: not set


def assign(inputs: Sequence[str], features: Any) -> dict[str, str | list[str]]:
    """Which column, or which columns of numbers, each input is read from."""
    if features is None:
        return {name: name for name in inputs}
    if isinstance(features, Mapping):
        if set(features) != set(inputs):
            raise ValueError(f"features are given for {', '.join(features)}; the network's inputs are {', '.join(inputs)}")
        return {name: features[name] for name in inputs}
    listed = [features] if isinstance(features, str) else list(features)
    if set(listed) == set(inputs):
        return {name: name for name in inputs}
    if len(listed) == len(inputs):
        return dict(zip(inputs, listed, strict=True))
    if len(inputs) == 1:
        return {inputs[0]: listed}
    raise ValueError(f"{len(listed)} features for the inputs {', '.join(inputs)}: give {{input: column}}")


def _made(frame: Any, column: str | Sequence[str]) -> dict[str, Any] | None:
    """A column's own word on what it is: of a feature that `sapwood.spark.prepare` made."""
    metadata = frame.schema[column].metadata if isinstance(column, str) and column in frame.columns else {}
    return json.loads(metadata["sapwood"])["feature"] if "sapwood" in metadata else None


def _feature(name: str, shape: Sequence[int], known: Mapping[str, Any] | None, scaling: Any) -> Feature:
    """An input as a dataset's feature: as `known` describes it, else by the input's shape."""
    if known is not None:
        fields = {key: value for key, value in known.items() if key in Feature.__dataclass_fields__}
        return Feature(**{**fields, "name": name})
    if len(shape) not in (1, 2):
        raise NotImplementedError(f"input {name!r} has {len(shape)} dimensions; rows of numbers and sequences of such rows can be trained on")
    wanted = scaling.get(name, "none") if isinstance(scaling, Mapping) else scaling
    if wanted not in ("none", "minmax", "standard"):
        raise ValueError(f"scaling {wanted!r} of input {name!r}: none, minmax or standard")
    sequence = len(shape) == 2
    return Feature(name, shape[-1], sequence, max(shape[0], 0) if sequence else 0, wanted)


def rows_of(frame: Any, model: Mapping[str, Any], value: Value) -> Rows:
    """What the rows are, from the model's inputs and outputs, the estimator's parameters, and what the columns say of themselves."""
    dataset = value("dataset") or {}
    known = {feature["name"]: feature for feature in dataset.get("features", [])}
    where = assign([name for name, _ in model["inputs"]], value("features"))
    made = {name: _made(frame, column) for name, column in where.items()}
    features = []
    for name, shape in model["inputs"]:
        if dataset and name not in known:
            raise ValueError(f"the network's input {name!r} is not among the features that are described ({', '.join(known)})")
        features.append(_feature(name, shape, known.get(name) or made[name], value("scaling")))
    if len(model["outputs"]) != 1:
        raise NotImplementedError(f"the network has {len(model['outputs'])} outputs; one, of classes, can be trained")
    classes = model["outputs"][0][1][-1]
    source = getattr(frame, "_sapwood_source", None)
    labels = value("label_names") or dataset.get("labels") or (source and source.labels) or [str(i) for i in range(classes)]
    if len(labels) != classes:
        raise ValueError(f"{len(labels)} names of classes; the network has {classes}")
    ordered = value("ordered")
    return Rows(features, list(labels), int(dataset.get("seed", value("seed"))), value("validation_split"),
                weight=value("weight") is not None, validation=value("validation_col") is not None,
                ordered=ordered if ordered is not None else not any(made.values()))  # fmt: skip


# ---- Spark's columns -----------------------------------------------------------------------------------------------------


def _is_vector(kind: Any) -> bool:
    from pyspark.ml.linalg import VectorUDT

    return isinstance(kind, VectorUDT)


def _find(frame: Any, name: str) -> Any:
    try:
        return frame.schema[name].dataType
    except KeyError:
        raise ValueError(f"the DataFrame has no column {name!r}; it has {', '.join(frame.columns)}") from None


def numbers(frame: Any, column: str | Sequence[str]) -> Any:
    """Array of float32 from numbers, arrays (nested ones, and arrays of structs of numbers, row by row) or Spark ML's vectors."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F
    from pyspark.sql import types as T

    if not isinstance(column, str):
        for name in column:
            if not isinstance(_find(frame, name), (T.NumericType, T.BooleanType)):
                raise ValueError(f"column {name!r} is {_find(frame, name).simpleString()}, and of several columns each holds a number")
        return F.array(*[F.col(name).cast("float") for name in column])
    kind, found = _find(frame, column), F.col(column)
    if _is_vector(kind):
        return vector_to_array(found, "float32")
    if isinstance(kind, (T.NumericType, T.BooleanType)):
        return F.array(found.cast("float"))
    if isinstance(kind, T.ArrayType) and isinstance(kind.elementType, T.NumericType):
        return found.cast("array<float>")
    if isinstance(kind, T.ArrayType) and isinstance(kind.elementType, T.ArrayType):
        return F.flatten(found.cast("array<array<float>>"))
    if isinstance(kind, T.ArrayType) and isinstance(kind.elementType, T.StructType):
        names = kind.elementType.names
        return F.flatten(F.transform(found, lambda row: F.array(*[row[name].cast("float") for name in names])))
    raise ValueError(f"column {column!r} is {kind.simpleString()}; an input takes numbers, arrays of them, or vectors")


def _label(frame: Any, name: str) -> Any:
    from pyspark.sql import functions as F
    from pyspark.sql import types as T

    kind = _find(frame, name)
    if isinstance(kind, T.BooleanType):
        return F.col(name).cast("int")
    if isinstance(kind, T.NumericType):
        return F.col(name)
    if isinstance(kind, T.StringType):
        raise ValueError(f"column {name!r} holds texts: make class numbers of them, with Spark ML's StringIndexer say")
    return numbers(frame, name)


def _identity(frame: Any, given: Sequence[str] | None, used: Sequence[Any]) -> dict[str, Any]:
    """sample, file and entry of each row. A hash stands for entry where rows have another identity, or none but what is in them."""
    from pyspark.sql import functions as F

    if given is None and all(name in frame.columns for name in IDENTITY) or given is not None and tuple(given) == IDENTITY:
        kinds = {"sample": "string", "file": "string", "entry": "bigint"}
        return {name: F.col(name).cast(kinds[name]) for name in IDENTITY}
    for name in given or []:
        _find(frame, name)
    return {"sample": F.lit(""), "file": F.lit(""), "entry": F.xxhash64(*[F.col(name) for name in given] if given else used)}


def stored_rows(frame: Any, rows: Rows, value: Value) -> Any:
    """The DataFrame with a column for each feature, and label, sample, file, entry."""
    from pyspark.sql import functions as F

    where = assign([feature.name for feature in rows.features], value("features"))
    columns = {name: numbers(frame, column) for name, column in where.items()}
    if rows.weight:
        columns["weight"] = numbers(frame, value("weight"))
    columns["label"] = _label(frame, value("label"))
    columns.update(_identity(frame, value("identity"), list(columns.values())))
    if rows.validation:
        columns["validation"] = F.coalesce(F.col(value("validation_col")).cast("boolean"), F.lit(False))
    return frame.select(*[column.alias(name) for name, column in columns.items()])
