"""A search file: what is tried, on which data, and how. Read from YAML, or given in Python as a mapping of the same keys."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Settings of a training, by Keras' names where Keras has one: what a trial may change besides the network.
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
OF_OPTIMIZER = ("learning_rate", "weight_decay", "beta_1", "beta_2", "epsilon", "momentum", "clipnorm", "clipvalue",
                "global_clipnorm", "nesterov", "amsgrad")  # fmt: skip
OF_TRAINING = ("batch", "epochs", "optimizer", "loss", *OF_OPTIMIZER)
METRICS = {"val_loss": "minimize", "val_accuracy": "maximize", "val_auc": "maximize"}
STANDARD = {"batch": 128, "epochs": 10}
SAMPLERS = ("grid", "random", "tpe")
KEYS = ("data", "model", "parameters", "train", "final", "sampler", "trials", "folds", "fraction", "metric", "seed", "pruning",
        "parallel")  # fmt: skip


class SearchError(ValueError):
    """The search cannot be done as it was asked for; the message says where, and what was expected."""


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple

    def distribution(self) -> Any:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)


@dataclass(frozen=True)
class Range:
    """A number from low to high, both included; whole numbers when both of them are written so."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def distribution(self) -> Any:
        from optuna.distributions import FloatDistribution, IntDistribution

        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log, step=int(self.step or 1))
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)


@dataclass
class Search:
    """A search as it was asked for, checked."""

    where: str  # for messages
    data: str
    model: Any  # a path, "FILE.py:FUNCTION", or a function
    parameters: dict[str, Choice | Range]
    train: dict[str, Any] = field(default_factory=dict)
    final: dict[str, Any] | None = field(default_factory=dict)  # of the best network's own training; None: it is not trained
    sampler: str = "grid"
    trials: int = 0
    folds: int = 5
    fraction: float = 1.0
    metric: str = "val_loss"
    seed: int = 1
    pruning: dict[str, int] | None = None
    parallel: int = 8

    @property
    def direction(self) -> str:
        return METRICS[self.metric]

    @property
    def adaptive(self) -> bool:
        """Whether a trial depends on what came out of others."""
        return self.sampler == "tpe" or self.pruning is not None

    @property
    def largest_fraction(self) -> float:
        share = self.parameters.get("fraction")
        if share is None:
            return self.fraction
        return max(share.values) if isinstance(share, Choice) else share.high

    def grid(self, number: int) -> dict[str, Any]:
        """The combination of that number, the last parameter changing fastest."""
        values = {}
        for name, choice in reversed(self.parameters.items()):
            number, index = divmod(number, len(choice.values))
            values[name] = choice.values[index]
        return {name: values[name] for name in self.parameters}

    def decisive(self) -> dict[str, Any]:
        """Everything that decides the trials, as JSON has it: what a search that is taken up again is compared by."""
        spaces = {
            name: list(space.values) if isinstance(space, Choice) else
            {"low": space.low, "high": space.high, "log": space.log, "step": space.step}
            for name, space in self.parameters.items()
        }  # fmt: skip
        keys = ("train", "sampler", "folds", "fraction", "metric", "seed", "pruning", "parallel")
        return {"parameters": spaces, **{key: getattr(self, key) for key in keys}}


# ---- Reading YAML ---------------------------------------------------------------------------------------------------


def _scalar(node: Any) -> Any:
    """Plain words are numbers, true, false, or nothing where they look like it (1e-3 is a number, on and yes are words)."""
    text = node.value
    if node.style in ("'", '"', "|", ">"):
        return text
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
        return float(text)
    return {"true": True, "false": False, "null": None, "~": None, "": None}.get(text, text)


class _Places:
    """Where in the file each value stands."""

    def __init__(self, file: str) -> None:
        self.file, self.marks = file, {}

    def read(self, node: Any, path: tuple) -> Any:
        import yaml

        self.marks[path] = node.start_mark
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, i)) for i, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return _scalar(node)
        found = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            self.marks[(*path, name)] = key.start_mark
            if name is None or name in found:
                raise self.error((*path, name), "a key should be a word" if name is None else "this key is given twice")
            found[name] = self.read(value, (*path, name))
            self.marks[(*path, name)] = key.start_mark
        return found

    def error(self, path: tuple, text: str) -> SearchError:
        mark = next((self.marks[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.marks), None)
        place = f"{self.file}:{mark.line + 1}:{mark.column + 1}" if mark else self.file
        words = ": ".join(str(part) for part in path if isinstance(part, str))
        return SearchError(f"{place}: {words}{': ' if words else ''}{text}")


def _load(path: str) -> tuple[dict, _Places]:
    try:
        import yaml
    except ImportError:
        raise SearchError(f"{path}: PyYAML is needed to read it: pip install optuna") from None
    places = _Places(path)
    try:
        with open(path, encoding="utf-8") as file:
            node = yaml.compose(file, Loader=yaml.SafeLoader)
    except OSError as error:
        raise SearchError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SearchError(f"{path}: not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SearchError(f"{path}:{mark.line + 1}:{mark.column + 1}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise SearchError(f"{path}: {error}") from None
    read = places.read(node, ()) if node else {}
    if not isinstance(read, dict):
        raise places.error((), "should be a mapping with the keys model, parameters, …")
    return read, places


# ---- Checking -------------------------------------------------------------------------------------------------------


def nearest(name: str, names: Any) -> str:
    """"; did you mean …?", or all names when they are few."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"; nearest: {', '.join(close)}"
    return f"; there are {', '.join(names)}" if len(names) <= 20 else ""


class _Check:
    def __init__(self, given: Mapping, places: _Places) -> None:
        self.given, self.places = given, places

    def known(self, given: Any, path: tuple, names: tuple) -> Mapping:
        if not isinstance(given, Mapping):
            raise self.places.error(path, f"should be a mapping ({', '.join(names)})")
        for key in given:
            if key not in names:
                raise self.places.error((*path, key), f"no such key{nearest(str(key), names)}")
        return given

    def number(self, value: Any, path: tuple, low: float, high: float, whole: bool) -> Any:
        kind = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            what = f"should be {'a whole number' if whole else 'a number'} from {low:g} to {high:g}, but is {value!r}"
            raise self.places.error(path, what)
        return value

    def whole(self, key: str, standard: int, low: int, high: int) -> int:
        return self.number(self.given.get(key, standard), (key,), low, high, True)

    def one_of(self, value: Any, path: tuple, values: Any) -> Any:
        if value not in values:
            raise self.places.error(path, f"should be one of {', '.join(values)}, but is {value!r}{nearest(str(value), values)}")
        return value

    def setting(self, name: str, value: Any, path: tuple) -> Any:
        """The value of a training's setting."""
        if name in ("batch", "epochs"):
            return self.number(value, path, 1, 1 << 24 if name == "batch" else 1_000_000, True)
        if name == "optimizer":
            return self.one_of(value.lower() if isinstance(value, str) else value, path, tuple(OPTIMIZERS))
        if name in ("nesterov", "amsgrad"):
            if not isinstance(value, bool):
                raise self.places.error(path, f"should be true or false, but is {value!r}")
            return value
        if name == "loss":
            if not isinstance(value, str):
                raise self.places.error(path, f"should be the name of a loss, but is {value!r}")
            return value
        if name == "fraction" or name == "learning_rate":
            return self.number(value, path, 1e-12, 1 if name == "fraction" else 1e6, False)
        return self.number(value, path, 0, 1e12, False)

    def settings(self, key: str, names: tuple) -> dict[str, Any]:
        given = self.known(self.given.get(key) or {}, (key,), names)
        return {name: self.setting(name, value, (key, name)) for name, value in given.items()}

    # ---- Parameters

    def space(self, name: str, given: Any, training: bool) -> Choice | Range:
        path = ("parameters", name)
        if isinstance(given, Mapping):
            return self._range(name, self.known(given, path, ("low", "high", "log", "step")), path, training)
        if not isinstance(given, (list, tuple)) or not given:
            raise self.places.error(path, "should be a list of values, or a mapping with low and high (and log, step)")
        values = []
        for i, value in enumerate(given):
            if not isinstance(value, (bool, int, float, str, type(None))):
                raise self.places.error((*path, i), f"should be a number, a word, true or false, but is {value!r}")
            values.append(self.setting(name, value, (*path, i)) if training else value)
        if len(set(map(repr, values))) != len(values):
            raise self.places.error(path, "a value is listed twice")
        return Choice(tuple(values))

    def _range(self, name: str, given: Mapping, path: tuple, training: bool) -> Range:
        for key in ("low", "high"):
            if key not in given:
                raise self.places.error(path, f"a range needs {key}")
            self.number(given[key], (*path, key), -1e300, 1e300, False)
            if training:
                self.setting(name, given[key], (*path, key))
        low, high, log, step = given["low"], given["high"], given.get("log", False), given.get("step")
        if not isinstance(log, bool):
            raise self.places.error((*path, "log"), f"should be true or false, but is {log!r}")
        if not low < high:
            raise self.places.error(path, f"low ({low:g}) should be below high ({high:g})")
        if log and not low > 0:
            raise self.places.error(path, f"with log, low should be above 0, but is {low:g}")
        if step is not None:
            self.number(step, (*path, "step"), 1e-300, high - low, isinstance(low, int) and isinstance(high, int))
            if log:
                raise self.places.error((*path, "step"), "log and step do not go together")
        return Range(low, high, log, step)

    def pruning(self) -> dict[str, int] | None:
        given = self.given.get("pruning")
        if given is None or given is False:
            return None
        given = {} if given is True else self.known(given, ("pruning",), ("min_epochs", "factor"))
        return {
            "min_epochs": self.number(given.get("min_epochs", 1), ("pruning", "min_epochs"), 1, 1_000_000, True),
            "factor": self.number(given.get("factor", 3), ("pruning", "factor"), 2, 100, True),
        }


def _beside(folder: str, path: str) -> str:
    return path if os.path.isabs(path) else os.path.join(folder, path)


def _sampler(check: _Check, parameters: dict[str, Choice | Range]) -> tuple[str, int]:
    """How trials are chosen, and how many there are."""
    choices = all(isinstance(space, Choice) for space in parameters.values())
    sampler = check.one_of(check.given.get("sampler", "grid" if choices else "tpe"), ("sampler",), SAMPLERS)
    if sampler != "grid":
        return sampler, check.whole("trials", 100, 1, 10_000_000)
    for name, space in parameters.items():
        if isinstance(space, Range):
            raise check.places.error(("parameters", name), "a grid needs lists of values: list some, or take another sampler")
    whole = 1
    for space in parameters.values():
        whole *= len(space.values)
    if whole > 10_000_000:
        raise check.places.error(("parameters",), f"a grid of {whole:,} combinations; more than 10,000,000 are not tried")
    return sampler, min(check.whole("trials", whole, 1, 10_000_000), whole)


def read_search(given: Any, options: Mapping[str, Any]) -> Search:
    """given: the path of a YAML file, or a mapping of its keys. options: what goes before the file's own (data, model, trials, epochs,
    folds, fraction, sampler, seed, metric, final); paths in them are relative to the working folder."""
    if isinstance(given, Mapping):
        read, places, folder = dict(given), _Places("search"), ""
    else:
        path = os.fspath(given)
        read, places = _load(path)
        folder = os.path.dirname(path)
    for key in ("data", "model"):
        if isinstance(read.get(key), (str, Path)):
            read[key] = _beside(folder, os.fspath(read[key]))
    options = {key: value for key, value in options.items() if value is not None}
    if "epochs" in options:
        read["train"] = {**(read.get("train") or {}), "epochs": options.pop("epochs")}
    if options.pop("final", True) is False:
        read["final"] = False
    read.update(options)
    check = _Check(read, places)
    check.known(read, (), KEYS)
    for key, what in (("data", "a dataset, made by `sapwood prepare`"), ("model", "FILE.py:FUNCTION or a .keras file"),
                      ("parameters", "what to try")):  # fmt: skip
        if not read.get(key):
            raise places.error((), f"{key} is missing: {what}")
    if not isinstance(read["parameters"], Mapping):
        raise places.error(("parameters",), "should be a mapping of names to lists or ranges")
    from .networks import open_source

    source = open_source(read["model"], lambda text: places.error(("model",), text))
    parameters = {}
    for name, space in read["parameters"].items():
        try:
            training = not source.takes(name)
        except SearchError as error:
            raise places.error(("parameters", name), str(error)) from None
        if training and name not in (*OF_TRAINING, "fraction"):
            raise places.error(("parameters", name), f"no such parameter of {source.described}, nor of the training"
                               f"{nearest(name, (*source.names, *OF_TRAINING, 'fraction'))}")  # fmt: skip
        parameters[name] = check.space(name, space, training)
    sampler, trials = _sampler(check, parameters)
    train = {**STANDARD, **check.settings("train", OF_TRAINING)}
    final = None if read.get("final") is False else check.settings("final", ("epochs", "batch"))
    for name in train:
        if name in parameters and name in (read.get("train") or {}):
            raise places.error(("train", name), "is among the parameters too")
    return Search(
        where=places.file, data=str(read["data"]), model=source, parameters=parameters, train=train, final=final,
        sampler=sampler, trials=trials, folds=check.whole("folds", 5, 1, 1000),
        fraction=check.number(read.get("fraction", 1.0), ("fraction",), 1e-9, 1, False),
        metric=check.one_of(read.get("metric", "val_loss"), ("metric",), tuple(METRICS)), seed=check.whole("seed", 1, 0, 2**62),
        pruning=check.pruning(), parallel=check.whole("parallel", 8, 1, 100_000),
    )  # fmt: skip
