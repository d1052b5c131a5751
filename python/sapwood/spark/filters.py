"""Spark's filters in the language of the C library's conditions, as the jar's connector says them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql.datasource import Filter
    from pyspark.sql.types import DataType, StructType


def translate(schema: StructType, filter: Filter) -> str | None:
    """A condition that holds wherever the filter is true, and where it is null may hold or not; None: it cannot be said. So negations, which
    exchange true and false and leave null alone, keep to that too."""
    from pyspark.sql import datasource as D

    if isinstance(filter, D.Not):
        inside = translate(schema, filter.child)
        return None if inside is None else f"!{inside}"
    if isinstance(filter, D.In):
        parts = [_compare(schema, "==", filter.attribute, value) for value in filter.value]
        return None if not parts or None in parts else f"({' || '.join(parts)})"
    operators = {D.EqualTo: "==", D.EqualNullSafe: "==", D.LessThan: "<", D.LessThanOrEqual: "<=", D.GreaterThan: ">", D.GreaterThanOrEqual: ">="}
    operator = operators.get(type(filter))
    return _compare(schema, operator, filter.attribute, filter.value) if operator else None


def _compare(schema: StructType, operator: str, attribute: Sequence[str], value: Any) -> str | None:
    from pyspark.sql import types as T

    kind = _type_of(schema, attribute)
    literal = _literal(value, kind)
    path = ".".join(attribute)
    if literal is None or "`" in path or "\0" in path:
        return None
    if isinstance(kind, (T.FloatType, T.DoubleType)) and operator in (">", ">="):  # to Spark, NaN is larger than all numbers
        return f"!(`{path}` {'<=' if operator == '>' else '<'} {literal})"
    return f"(`{path}` {operator} {literal})"


def _type_of(kind: DataType, attribute: Sequence[str]) -> DataType | None:
    """Of a field of the table or of a struct in it; None: another kind of place."""
    from pyspark.sql import types as T

    for name in attribute:
        if not isinstance(kind, T.StructType) or name not in kind.names:
            return None
        kind = kind[name].dataType
    return kind


def _literal(value: Any, kind: DataType | None) -> str | None:
    """The literal as text; None: it cannot be said, or compared with such a column."""
    from pyspark.sql import types as T

    if isinstance(kind, T.StringType):
        return _quoted(value) if isinstance(value, str) else None
    if isinstance(kind, T.BooleanType) or isinstance(value, bool):
        return str(value).lower() if isinstance(kind, T.BooleanType) and isinstance(value, bool) else None
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if isinstance(value, int) and isinstance(kind, T.NumericType):
        return str(value) if abs(value) < 1 << 63 else None
    return repr(value) if isinstance(value, float) and isfinite(value) and isinstance(kind, T.NumericType) else None


def _quoted(text: str) -> str | None:
    quote = '"' if "'" in text else "'"
    return None if quote in text or "\0" in text else f"{quote}{text}{quote}"
