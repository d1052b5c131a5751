"""A worker: trains trials, one after another, on one thread. It opens the data once and a network for each trial.

    python -m sapwood.tuning.worker DESCRIPTOR FOLDER      (started by crews.py; DESCRIPTOR: a socket to the conductor)

Messages are JSON. In: {"trial", "network", "train", "folds", "fraction", "metric", "seed", "rungs"}, or {"end"}. Out: {"hello"}, then
{"trial", "epoch", "value"} at each rung, answered by {"go": true or false}, and at last {"trial", "value", …} or {"trial", "failed"}.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from .. import _core
from .samples import Samples
from .search import SearchError


class Trainer:
    """Trains networks on folds of the samples."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.rows: dict[tuple, Any] = {}
        self.scratch = tempfile.TemporaryDirectory(prefix="sapwood-tune-")

    def _open(self, text: str, seed: int) -> Any:
        path = Path(self.scratch.name, "network.json")
        path.write_text(text, encoding="utf-8")
        core = _core.model_open(path, 1, seed)
        about = core.describe()
        if about["unknown"]:
            raise SearchError(about["unknown"])
        _, shape = about["outputs"][0]
        classes = len(self.samples.about["labels"])
        if len(about["outputs"]) != 1 or len(shape) != 1 or shape[0] not in (classes, 1 if classes == 2 else classes):
            raise SearchError(f"the network should have one output of {classes} numbers, a class each")
        return core

    def _fold(self, core: Any, names: list[str], fold: int, task: dict[str, Any]) -> tuple[Any, Any]:
        key = (fold, task["folds"], task["fraction"])
        if key not in self.rows:
            self.rows[key] = self.samples.split(*key)
        return tuple(self.samples.feed(core, names, rows) for rows in self.rows[key])

    def run(self, task: dict[str, Any], report: Callable[[int, float], bool]) -> dict[str, Any]:
        """Trains on all folds. With rungs they go on side by side from rung to rung, else one after another in one network.
        report(epoch, value): whether to go on."""
        begun = time.perf_counter()
        metric, epochs, batch = task["metric"], task["train"]["epochs"], task["train"]["batch"]
        stops = [rung for rung in task["rungs"] if rung < epochs] + [epochs]
        auc, folds = metric == "val_auc", range(task["folds"])
        names: list[str] = []
        cores: list[Any] = []
        histories: list[list[dict[str, float]]] = [[] for _ in folds]
        done, pruned = 0, False
        for stop in stops:
            for fold in folds:
                seed = task["seed"] * 1000003 + fold
                if fold >= len(cores):
                    cores.append(self._open(task["network"], seed) if fold == 0 or len(stops) > 1 else cores[0])
                    names = names or [name for name, _ in cores[0].describe()["inputs"]]
                core = cores[fold]
                if done == 0:
                    core.reset(seed)
                feeds = self._fold(core, names, fold, task)
                histories[fold] += core.fit(*feeds, done, stop, batch, seed, auc, None)
            done = stop
            if stop < epochs and not report(stop, _mean(histories, metric, stop - 1)):
                pruned = True
                break
        last = {name: [history[-1][name] for history in histories] for name in histories[0][-1]}
        return {
            "trial": task["trial"], "value": fmean(last[metric]), "pruned": pruned, "epochs": done,
            "folds": last[metric], "spread": pstdev(last[metric]), "means": {name: fmean(values) for name, values in last.items()},
            "curve": [_mean(histories, metric, epoch) for epoch in range(0, done, -(-done // 100))],
            "weights": sum(_count(shape) for _, shape, _, _ in cores[0].describe()["weights"]),
            "seconds": time.perf_counter() - begun,
        }  # fmt: skip


def _mean(histories: list[list[dict[str, float]]], metric: str, epoch: int) -> float:
    return fmean(history[epoch][metric] for history in histories)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def serve(connection: Connection, samples: Samples) -> None:
    """Trains what comes over the connection until that ends."""

    def send(message: dict[str, Any]) -> None:
        connection.send_bytes(json.dumps(message).encode())

    def receive() -> dict[str, Any]:
        return json.loads(connection.recv_bytes())

    trainer = Trainer(samples)
    send({"hello": f"{socket.gethostname()}:{os.getpid()}"})
    while True:
        try:
            task = receive()
        except (EOFError, ConnectionResetError):
            return
        if "end" in task:
            return

        def report(epoch: int, value: float, trial: int = task["trial"]) -> bool:
            send({"trial": trial, "epoch": epoch, "value": value})
            return receive()["go"]

        try:
            answer = trainer.run(task, report)
        except (_core.Error, ValueError, MemoryError) as error:
            answer = {"trial": task["trial"], "failed": str(error) or type(error).__name__}
        except (EOFError, ConnectionResetError):
            return
        send(answer)


def main() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a worker outlives no conductor, however that ends
    if os.getppid() != parent:
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the conductor's to handle
    serve(Connection(int(sys.argv[1])), Samples.open(Path(sys.argv[2])))


if __name__ == "__main__":
    main()
