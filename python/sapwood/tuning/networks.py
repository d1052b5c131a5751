"""Networks of a search: from a Python function that builds them with Keras, or from a Keras file some of whose layers' settings are
replaced, which takes no Keras. Either gives config.json with what the trial trains it with."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._files import write_whole
from .search import OF_OPTIMIZER, OPTIMIZERS, SearchError, nearest


class Template:
    """A Keras file. Its parameters are "LAYER.SETTING", what stands in the configuration of that layer: "dense_1.units"."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    text = archive.read("config.json")
            else:
                text = Path(path).read_bytes()
            self.config = json.loads(text)
            self.layers = {layer.get("name") or layer["config"]["name"]: layer["config"] for layer in self.config["config"]["layers"]}
        except OSError as error:
            raise SearchError(f"{path}: {error.strerror}") from None
        except (KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile):
            raise SearchError(f"{path}: holds no configuration of a Keras network") from None
        self.digest = hashlib.sha256(text).hexdigest()
        self.described = os.path.basename(path)
        self.names = [f"{layer}.{key}" for layer, config in self.layers.items() for key, value in config.items()
                      if key not in ("name", "dtype", "trainable", "batch_shape") and not isinstance(value, (dict, list))]  # fmt: skip

    def takes(self, name: str) -> bool:
        if "." not in name:
            return False
        self._find(self.layers, name)
        return True

    def _find(self, layers: dict[str, dict], name: str) -> tuple[dict, str]:
        """The dictionary and the key that a name stands for; inner layers are gone through ("td.layer.units")."""
        layer, *path = name.split(".")
        if layer not in layers:
            raise SearchError(f"{self.path}: no layer is called {layer!r}{nearest(layer, layers)}")
        place = layers[layer]
        for i, key in enumerate(path):
            if key not in place and isinstance(place.get("config"), dict):
                place = place["config"]
            if key not in place:
                raise SearchError(f"{self.path}: layer {layer!r} has no {key!r}{nearest(key, place)}")
            if i + 1 < len(path):
                place = place[key]
            if not isinstance(place, dict):
                raise SearchError(f"{self.path}: layer {layer!r}: {key!r} has nothing inside")
        return place, path[-1]

    def make(self, values: dict[str, Any]) -> dict[str, Any]:
        config = copy.deepcopy(self.config)
        layers = {layer.get("name") or layer["config"]["name"]: layer["config"] for layer in config["config"]["layers"]}
        for name, value in values.items():
            place, key = self._find(layers, name)
            place[key] = value
        _forget_shapes(config["config"])
        return config


def _forget_shapes(config: Any) -> None:
    """Shapes that layers were built for: they follow from what was replaced, and Keras works them out anew."""
    for layer in config.get("layers", []):
        layer.pop("build_config", None)
        inner = layer.get("config", {})
        if isinstance(inner.get("layer"), dict):
            inner["layer"].pop("build_config", None)
        if "layers" in inner:
            _forget_shapes(inner)
    config.pop("build_input_shape", None)


class Builder:
    """A function that takes parameters by their names and returns a Keras model, compiled or not."""

    def __init__(self, function: Callable | None, path: str | None, name: str) -> None:
        self.function, self.path, self.name = function, path, name
        self.described = f"{os.path.basename(path)}:{name}" if path else name
        if path:
            text = Path(path).read_bytes()
        else:
            try:
                text = inspect.getsource(function).encode()
            except (OSError, TypeError):
                text = f"{getattr(function, '__module__', '')}.{name}".encode()
        self.digest = hashlib.sha256(text).hexdigest()
        self.names, self.any = self._parameters(text)

    def _parameters(self, text: bytes) -> tuple[list[str], bool]:
        """Names that the function takes, and whether it takes any; of a file without running it, for Keras takes seconds to load."""
        if self.function:
            kinds = inspect.signature(self.function).parameters.values()
            return [p.name for p in kinds if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)], any(p.kind == p.VAR_KEYWORD for p in kinds)
        import ast

        try:
            tree = ast.parse(text, self.path)
        except SyntaxError as error:
            raise SearchError(f"{self.path}:{error.lineno}:{error.offset}: {error.msg}") from None
        functions = {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}
        if self.name not in functions:
            raise SearchError(f"{self.path}: no function is called {self.name!r}{nearest(self.name, functions)}")
        taken = functions[self.name]
        return [a.arg for a in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)], taken.kwarg is not None

    def takes(self, name: str) -> bool:
        return self.any or name in self.names

    def _load(self) -> Callable:
        if self.function is None:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # building is nothing for a GPU
            sys.path.insert(0, os.path.dirname(os.path.abspath(self.path)))
            try:
                spec = importlib.util.spec_from_file_location(f"sapwood_search_{self.digest[:8]}", self.path)
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
            finally:
                sys.path.pop(0)
            self.function = getattr(module, self.name)
        return self.function

    def make(self, values: dict[str, Any]) -> dict[str, Any]:
        model = self._load()(**values)
        if not hasattr(model, "to_json"):
            raise SearchError(f"{self.described} returned a {type(model).__name__}, not a Keras model")
        return json.loads(model.to_json())


def open_source(model: Any, fail: Callable[[str], Exception]) -> Template | Builder:
    """Where networks come from. fail: makes the exception for something that is no model."""
    if callable(model):
        return Builder(model, None, getattr(model, "__name__", "model"))
    text = os.fspath(model)
    found = re.fullmatch(r"(.+\.py):(\w+)", text)
    try:
        if found:
            return Builder(None, found[1], found[2])
        if text.endswith(".py"):
            raise fail("should be FILE.py:FUNCTION: which function builds the network?")
        return Template(text)
    except OSError as error:
        raise fail(f"{text}: {error.strerror}") from None


# ---- What a trial trains --------------------------------------------------------------------------------------------


def _as_objects(config: dict[str, Any], train: dict[str, Any], classes: int) -> None:
    """Sets compile_config: the network's own where it was compiled, changed by the trial's settings."""
    compiled = config.get("compile_config") or {}
    before = compiled.get("optimizer")
    if isinstance(before, str):
        before = {"class_name": OPTIMIZERS.get(before.lower(), before), "config": {}}
    wanted = train.get("optimizer")
    if wanted or not before:
        kind = OPTIMIZERS[wanted or "adam"]
        same = before and before.get("class_name") == kind
        before = {"class_name": kind, "config": before["config"] if same else {}}
    settings = dict(before.get("config") or {})
    settings.update({name: train[name] for name in OF_OPTIMIZER if name in train})
    settings.setdefault("name", before["class_name"].lower())
    optimizer = {"module": "keras.optimizers", "class_name": before["class_name"], "config": settings, "registered_name": None}
    loss = train.get("loss") or compiled.get("loss") or ("categorical_crossentropy" if classes > 1 else "binary_crossentropy")
    config["compile_config"] = {
        "loss_weights": None, "metrics": ["accuracy"], "weighted_metrics": None, "run_eagerly": False, "steps_per_execution": 1,
        "jit_compile": False, **compiled, "optimizer": optimizer, "loss": loss,
    }  # fmt: skip


class Networks:
    """Networks by parameters. What a builder made is kept in a folder too, so that nobody who shares it builds it again."""

    def __init__(self, source: Template | Builder, folder: Path | None) -> None:
        self.source, self.folder, self.made = source, folder, {}

    def _base(self, values: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps(values, sort_keys=True)
        if key in self.made:
            return self.made[key]
        path = None
        if self.folder and isinstance(self.source, Builder):
            path = self.folder / (hashlib.sha256((self.source.digest + key).encode()).hexdigest()[:32] + ".json")
        if path and path.exists():
            config = json.loads(path.read_text())
        else:
            config = self.source.make(values)
            if path:
                write_whole(path, json.dumps(config))
        self.made[key] = config
        return config

    def text(self, values: dict[str, Any], train: dict[str, Any], classes: int) -> str:
        """config.json of the network with these parameters, compiled with these settings."""
        config = dict(self._base({name: value for name, value in values.items() if self.source.takes(name)}))
        _as_objects(config, train, classes)
        return json.dumps(config)
