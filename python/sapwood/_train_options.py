"""The options of `sapwood train`, as they were given and with their standard values, for the engine in Python."""

from __future__ import annotations

from typing import Any

from . import _core


class Settings:
    """What was given, and the standard values of the rest. Names are those of the command line."""

    def __init__(self, given: list[tuple[str, str]]) -> None:
        _core.check_stage("train", given)
        self.values: dict[str, Any] = {}
        for name, _, repeats, standard in _core.stage_options("train"):
            values = [value for key, value in given if key == name]
            if values or standard is not None:
                self.values[name] = values if repeats else values[-1] if values else standard
        self._refuse()

    def _refuse(self) -> None:
        """What TensorFlow's Keras has no counterpart for."""
        for name in ("inputs", "label-column", "validation-data"):
            if self.has(name):
                raise ValueError(f"--{name} does not go with --engine tensorflow, which reads datasets made by prepare")
        for name in ("deterministic", "bf16", "float32", "tf32", "timeout", "warmup"):
            if self.values.get(name, "false") != "false":
                raise ValueError(f"--{name} does not go with --engine tensorflow")
        if self.text("optimizer") == "radam":
            raise ValueError("--optimizer radam does not go with --engine tensorflow: Keras has none")
        if self.has("warmup-steps") and self.text("schedule") != "cosine":
            raise ValueError("--warmup-steps goes with --schedule cosine only, with --engine tensorflow")

    def has(self, name: str) -> bool:
        return name in self.values

    def text(self, name: str) -> str | None:
        return self.values.get(name)

    def real(self, name: str, standard: float | None = None) -> float | None:
        return float(self.values[name]) if name in self.values else standard

    def count(self, name: str, standard: int = 0) -> int:
        return int(self.values.get(name, standard))

    def switch(self, name: str) -> bool:
        return self.values.get(name) in ("true", "yes")
