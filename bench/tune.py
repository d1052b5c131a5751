"""The published search (243 networks, five folds, 2 % of the data) by `sapwood tune`, beside scikit-learn's GridSearchCV over Keras.

    .venv/bin/python bench/tune.py [--epochs 10] [--peer-trials 2]

Two sizes: the sample of the repository, and about as many events as 2 % of the published training set, made by taking the sample's files
many times over. Sapwood's figures are of the whole command, from its start to the page; GridSearchCV's begin when TensorFlow is loaded
and warm. Both use all cores. The results go to bench/results/tune.md.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ROOT / "build/release/bin/sapwood"
GRID = {"units_1": [20, 50, 100], "units_2": [10, 20, 50], "units_3": [5, 10, 20], "batch": [64, 128, 256], "learning_rate": [0.0003, 0.001, 0.003]}
COPIES = 72  # of the sample's files: 68,400 training events
FOLDS = 5


def spent(before=None):
    """Wall and CPU seconds, children included."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    now = (time.perf_counter(), sum(u.ru_utime + u.ru_stime for u in used))
    return now if before is None else (now[0] - before[0], now[1] - before[1])


# ---- Data -----------------------------------------------------------------------------------------------------------


def prepare(folder, copies):
    files = [f"--sample={name}={ROOT}/examples/topology/data/{name}.root" for name in ("qcd", "ttbar", "wjets")] * copies
    subprocess.run([COMMAND, "prepare", *files, "--out", folder, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def read(folder):
    """The scaled features and labels of the training part, as Sapwood feeds them."""
    import numpy as np

    sys.path.insert(0, str(ROOT / "build/release/python"))
    from sapwood import _core

    core = _core.model_open(ROOT / "models/hlf.keras", 0)
    feed = core.feed_dataset(folder, "train", None)
    rows = feed.rows()
    label, chosen = np.empty(rows, np.int32), np.arange(rows)
    feed.labels(label.ctypes.data)
    with tempfile.TemporaryDirectory() as scratch:
        feed.store(chosen.ctypes.data, rows, [(f"{scratch}/x", f"{scratch}/n")])
        return np.fromfile(f"{scratch}/x", np.float32).reshape(rows, -1), label


# ---- The two ----------------------------------------------------------------------------------------------------------


def run_sapwood(data, epochs, folder):
    search = {
        "data": str(data), "model": str(ROOT / "models/hlf.keras"), "folds": FOLDS, "train": {"epochs": epochs},
        "parameters": {"dense.units": GRID["units_1"], "dense_1.units": GRID["units_2"], "dense_2.units": GRID["units_3"],
                       "batch": GRID["batch"], "learning_rate": GRID["learning_rate"]},
    }  # fmt: skip
    (folder / "search.yaml").write_text(json.dumps(search))
    shutil.rmtree(folder / "out", ignore_errors=True)
    before = spent()
    subprocess.run([COMMAND, "tune", folder / "search.yaml", "--out", folder / "out", "--final", "no", "--quiet"], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    wall, cpu = spent(before)
    found = json.loads((folder / "out/search.json").read_text())
    return {"trials": found["trials"], "wall": wall, "cpu": cpu, "best": found["best"]["value"], "training": found["seconds"]}


def run_peer(data, epochs, trials, steps):
    command = [sys.executable, __file__, "--peer", json.dumps([str(data), epochs, trials, steps])]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def peer(data, epochs, trials, steps):
    """GridSearchCV over a Keras model wrapped as an estimator; what SciKeras does, without SciKeras."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import numpy as np
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.model_selection import GridSearchCV

    class Network(ClassifierMixin, BaseEstimator):
        def __init__(self, units_1=50, units_2=20, units_3=10, batch=128, learning_rate=0.001, epochs=1):
            self.units_1, self.units_2, self.units_3 = units_1, units_2, units_3
            self.batch, self.learning_rate, self.epochs = batch, learning_rate, epochs

        def fit(self, x, y):
            layers = [keras.layers.Dense(units, "relu") for units in (self.units_1, self.units_2, self.units_3)]
            self.model_ = keras.Sequential([keras.Input((x.shape[1],)), *layers, keras.layers.Dense(3, "softmax")])
            self.model_.compile(keras.optimizers.Adam(self.learning_rate), "categorical_crossentropy", steps_per_execution=steps)
            self.classes_ = np.arange(3)
            self.model_.fit(x, np.eye(3, dtype=np.float32)[y], batch_size=self.batch, epochs=self.epochs, verbose=0)
            return self

        def predict_proba(self, x):
            return self.model_.predict(x, batch_size=4096, verbose=0)

        def predict(self, x):
            return self.predict_proba(x).argmax(1)

    x, y = read(data)
    Network().fit(x[:512], y[:512]).predict(x[:512])
    grid = {name: [values[-1]] for name, values in GRID.items()} | {"units_1": GRID["units_1"][:trials]}
    before = spent()
    search = GridSearchCV(Network(epochs=epochs), grid, cv=FOLDS, scoring="neg_log_loss", refit=False).fit(x, y)
    wall, cpu = spent(before)
    print(json.dumps({"trials": trials, "wall": wall, "cpu": cpu, "best": -search.best_score_, "events": len(x)}))


# ---- Results ------------------------------------------------------------------------------------------------------------


def rate(one):
    return one["trials"] / one["wall"], one["trials"] / one["cpu"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--peer-trials", type=int, default=2)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        return peer(*json.loads(given.peer))
    about = machine.describe_machine("scikit-learn", "keras", "tensorflow-cpu", "optuna")
    lines, results = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, copies in (("the sample", 1), ("2 % of the published set", COPIES)):
            data = folder / f"data{copies}"
            prepare(data, copies)
            peers = {f"GridSearchCV over Keras{text}": run_peer(data, given.epochs, given.peer_trials, steps)
                     for text, steps in (("", 1), (", 50 steps an execution", 50))}  # fmt: skip
            ours = run_sapwood(data, given.epochs, folder)
            results[name] = {"sapwood": ours, **peers}
            best = [max(rate(one)[k] for one in peers.values()) for k in range(2)]
            events = next(iter(peers.values()))["events"]
            lines += [f"| {name}: {events:,} events, {FOLDS} folds, {given.epochs} epochs | trials | trials/s | trials a CPU second | best loss |",
                      "|---|---|---|---|---|"]  # fmt: skip
            for label, one in {"Sapwood, the whole command": ours, **peers}.items():
                lines.append(f"| {label} | {one['trials']} | {rate(one)[0]:.3g} | {rate(one)[1]:.3g} | {one['best']:.4f} |")
            times = [rate(ours)[k] / best[k] for k in range(2)]
            lines += [f"| **Sapwood, times the best** (asked: 20) | | **{times[0]:.0f}** | **{times[1]:.0f}** | |", ""]
    command = "bench/tune.py " + " ".join(sys.argv[1:])
    head = [f"# Searching for hyperparameters ({about['cpu']}, {about['cores']} cores)", "",
            "The grid of arXiv:1909.10389 (243 networks). Sapwood trains all of it; of GridSearchCV some networks are timed.", ""]  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    text = "\n".join([*head, *lines, f"{command.strip()}; {versions}", ""])
    (machine.RESULTS / "tune.md").write_text(text)
    machine.write_results("tune", about, command.strip(), results)
    print(text)


if __name__ == "__main__":
    main()
