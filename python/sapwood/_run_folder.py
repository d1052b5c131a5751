"""The folder of a training: RUN.partial with its checkpoint while it is at work, RUN when it is whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FREE = ("out", "resume", "checkpoint-every", "workers")  # may be others when an interrupted run is taken up again


class Interrupted(Exception):
    """Ctrl-C or a signal; the checkpoint is written."""


def _store(path: Path, data: bytes) -> None:
    """Aside, to disk, then renamed."""
    aside = path.with_name(path.name + ".new")
    with open(aside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


class RunFolder:
    """Only the chief touches the disk."""

    def __init__(self, settings: Any, is_chief: bool) -> None:
        self.settings, self.is_chief, self.lock = settings, is_chief, -1
        self.out = Path(settings.values["out"].rstrip("/") or "/")
        self.partial = self.out.with_name(self.out.name + ".partial")
        self.path = self.partial / "checkpoint"
        self.written = time.monotonic()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        if self.lock >= 0:
            os.close(self.lock)

    def _options(self) -> dict[str, Any]:
        options = {name: value for name, value in self.settings.values.items() if name not in _FREE}
        for name, path in (("data-hash", Path(options["data"], "dataset.json")), ("model-hash", Path(options["model"]))):
            options[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        return options

    def open(self) -> None:
        """Makes the folder, or finds it as an interrupted run with the same options left it."""
        if not self.is_chief:
            return
        if self.out.exists():
            raise FileExistsError(f"{self.out} exists already: choose another --out, or remove it")
        if self.settings.switch("resume") and not self.partial.exists():
            raise FileNotFoundError(f"{self.partial}: there is no interrupted training to go on with")
        self.partial.mkdir(parents=True, exist_ok=True)
        self.lock = os.open(self.partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"{self.partial}: another training is at work there") from None
        except OSError:
            pass  # a file system without locks
        options, path = self._options(), self.partial / "options.json"
        before = json.loads(path.read_text()) if path.exists() else options
        other = [name for name in {**options, **before} if options.get(name) != before.get(name)]
        if other:
            raise ValueError(f"{self.partial} holds an interrupted run with other options ({other[0]} differs): give the same ones to "
                             "take it up again, or remove that folder to start over")
        _store(path, _json(options))

    def read(self) -> bytes:
        """The checkpoint to go on from; empty where there is none, or where another worker has it."""
        return self.path.read_bytes() if self.is_chief and self.path.exists() else b""

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint within an epoch."""
        every = self.settings.real("checkpoint-every", 300.0)
        return every > 0 and time.monotonic() - self.written >= every

    def checkpoint(self, pack: Callable[[], bytes]) -> None:
        if self.is_chief:
            _store(self.path, pack())
            self.written = time.monotonic()

    def finish(self, model: Any, history: list[dict[str, Any]]) -> None:
        """All that a run holds, and then its name. The checkpoint goes last."""
        if not self.is_chief:
            return
        model.save(self.partial / "model.new.keras")
        os.replace(self.partial / "model.new.keras", self.partial / "model.keras")
        _store(self.partial / "history.json", _json(history))
        shutil.copyfile(Path(self.settings.values["data"], "dataset.json"), self.partial / "dataset.json")
        self.path.unlink(missing_ok=True)
        os.replace(self.partial, self.out)
