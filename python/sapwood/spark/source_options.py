"""Options of the Python data source: those of the jar's, with the same meanings. docs/spark.md describes them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

_UNITS = {"": 0, "b": 0, "k": 10, "kb": 10, "m": 20, "mb": 20, "g": 30, "gb": 30, "t": 40, "tb": 40, "p": 50, "pb": 50}


@dataclass(frozen=True)
class Options:
    """The options of a read, checked."""

    paths: tuple[str, ...]  # names, patterns and folders
    tree: str | None = None
    merge_schema: bool = False
    skip_bad_files: bool = False
    target_size: int = 0  # stored bytes of a partition; 0: what Spark's own readers of files take
    batch_size: int = 0  # decompressed bytes; 0: the library's choice
    memory_limit: int = 2 << 30  # bytes of a batch
    where: str | None = None
    identity: bool = False  # two columns more: file and entry
    columns: tuple[str, ...] = ()  # paths of columns and fields; none: all

    @staticmethod
    def of(options: Mapping[str, str]) -> Options:
        """options: texts, found by names in any case."""
        return Options(
            paths=_paths(options),
            tree=options.get("tree"),
            merge_schema=_choice(options, "mergeSchema", "false", "true"),
            skip_bad_files=_choice(options, "badFiles", "fail", "skip"),
            target_size=parse_size("option targetSize", options.get("targetSize", "0")),
            batch_size=parse_size("option batchSize", options.get("batchSize", "0")),
            memory_limit=parse_size("option memoryLimit", options.get("memoryLimit", "2g")),
            where=options.get("where"),
            identity=_choice(options, "identity", "false", "true"),
            columns=_list(options, "columns", options.get("columns", "")),
        )


def _paths(options: Mapping[str, str]) -> tuple[str, ...]:
    """What load() was given: one path, or a list of them as JSON; tables of a catalog have a location."""
    paths = _list(options, "paths", options.get("paths", "[]"))
    path = options.get("path") or options.get("location")
    if not paths and not path:
        raise ValueError('root: no path is given: load("events.root"), or option path; tables of a catalog need the jar')
    return (*paths, path) if path else paths


def _list(options: Mapping[str, str], name: str, text: str) -> tuple[str, ...]:
    """A list as JSON, or with commas."""
    if not text.lstrip().startswith("["):
        return tuple(word.strip() for word in text.split(",") if word.strip())
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"option {name}: a JSON list of texts is expected, but it is {text}")
    return tuple(words)


def _choice(options: Mapping[str, str], name: str, no: str, yes: str) -> bool:
    value = options.get(name, no).lower()
    if value not in (no, yes):
        raise ValueError(f'option {name}: "{no}" or "{yes}", but it is "{value}"')
    return value == yes


def parse_size(what: str, text: str) -> int:
    """Bytes of "64m", as Spark reads sizes: powers of 1024."""
    found = re.fullmatch(r"([0-9]+)([a-z]*)", text.strip().lower())
    if not found or found[2] not in _UNITS:
        raise ValueError(f'{what}: a size such as "64m" is expected, but it is "{text}"')
    return int(found[1]) << _UNITS[found[2]]
