"""The HLF and the inclusive classifier on real data, each trained by Sapwood and by Keras, several seeds each.

    python bench/classifiers.py DELPHES_FOLDER… [--epochs 30] [--seeds 3] [--build build/release]

Every folder holds qcd.root, ttbar.root and wjets.root. All see the same events, the same split and the same scaled features; a
seed decides initial weights, shuffling and dropout. What counts is the area under the ROC curve, the mean over the three classes
against the rest, on the test part. Results: bench/results/classifiers.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine as bench_machine
from delphes import CLASSES, ROOT, default_folders, link_samples, run

NETWORKS = {"HLF": "hlf", "inclusive GRU": "inclusive_gru"}
BATCH = 32  # the sample is small: with the 128 of the paper an epoch would have few steps


def areas(scores, label):
    """Area under each class's ROC curve, ties counted half."""
    import numpy as np
    out = []
    for c in range(scores.shape[1]):
        values, inverse, counts = np.unique(scores[:, c], return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
        own = label == c
        n = own.sum()
        out.append((ranks[own].sum() - n * (n + 1) / 2) / (n * (len(label) - n)))
    return out


# ---- Keras, in a process of its own ---------------------------------------------------------------------------------


def read_published(folder, part):
    """Arrays by input, and labels, of the files that the authors' notebooks read."""
    import numpy as np
    import pyarrow.parquet as pq
    table = pq.read_table(f"{folder}/{part}Undersampled_InclusiveClassifier.parquet")

    def dense(name, *shape):
        return np.asarray(table[name].combine_chunks().flatten(), np.float32).reshape(table.num_rows, *shape)

    return {"hlf": dense("HLF_input", 14), "particles": dense("GRU_input", 801, 19)}, dense("encoded_label", len(CLASSES))


def keras_peer(task):
    sys.path.insert(0, str(ROOT / "models"))
    import define
    import keras
    train, test = (read_published(task["folder"], part) for part in ("train", "test"))
    for name, network in NETWORKS.items():
        for seed in range(1, task["seeds"] + 1):
            model = getattr(define, network)()
            keras.utils.set_random_seed(seed)
            model = keras.models.clone_model(model)  # draws the weights anew
            model.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])

            def pick(arrays):
                return [arrays[i.name] for i in model.inputs] if len(model.inputs) > 1 else arrays["hlf"]

            begin = time.perf_counter()
            model.fit(pick(train[0]), train[1], batch_size=BATCH, epochs=task["epochs"], verbose=0)
            seconds = time.perf_counter() - begin
            scores = model.predict(pick(test[0]), batch_size=512, verbose=0)
            print(json.dumps({"engine": "Keras/TensorFlow", "network": name, "seed": seed, "seconds": seconds,
                              "auc": areas(scores, test[1].argmax(1))}), flush=True)


# ---- Sapwood ------------------------------------------------------------------------------------------------------------


def prepare(options, work):
    samples = link_samples(options.folders, work)
    run(options, "prepare", *samples, "--out", f"{work}/data", "--quiet")
    run(options, "prepare", *samples, "--layout", "published", "--out", f"{work}/published", "--quiet")
    return json.loads((Path(work) / "data" / "dataset.json").read_text())


def train_all(options, work):
    for name, network in NETWORKS.items():
        for seed in range(1, options.seeds + 1):
            out = f"{work}/{network}-{seed}"
            begin = time.perf_counter()
            run(options, "train", "--data", f"{work}/data", "--model", ROOT / "models" / f"{network}.keras", "--fresh",
                "--epochs", options.epochs, "--batch", BATCH, "--seed", seed, "--out", out, "--quiet")
            seconds = time.perf_counter() - begin
            evaluation = json.loads(run(options, "evaluate", "--run", out, "--data", f"{work}/data", "--json", "--quiet"))
            yield {"engine": "Sapwood", "network": name, "seed": seed, "seconds": seconds,
                   "auc": [c["auc"] for c in evaluation["classes"]]}


def write_table(path, machine, results, counts, epochs):
    lines = [f"# Classifiers on simulated collisions ({machine['cpu']}, {machine['cores']} cores)", "",
             f"{counts['train']} training events, {counts['test']} test events, {epochs} epochs, batch {BATCH}.", "",
             "| network | engine | mean AUC by seed | median | seconds a training |", "|---|---|---|---|---|"]
    for network in NETWORKS:
        for engine in ("Sapwood", "Keras/TensorFlow"):
            own = [r for r in results if r["network"] == network and r["engine"] == engine]
            if own:
                means = [statistics.mean(r["auc"]) for r in own]
                lines.append(f"| {network} | {engine} | {', '.join(f'{m:.4f}' for m in means)} | "
                             f"{statistics.median(means):.4f} | {statistics.median(r['seconds'] for r in own):.1f} |")
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        keras_peer(json.loads(options.peer))
        return
    options.folders = options.folders or default_folders()
    with tempfile.TemporaryDirectory() as work:
        dataset = prepare(options, work)
        results = list(train_all(options, work))
        task = {"folder": f"{work}/published", "epochs": options.epochs, "seeds": options.seeds}
        env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        peer = subprocess.run([sys.executable, __file__, "--peer", json.dumps(task)], env=env, stdout=subprocess.PIPE,
                              text=True, check=True)
        results += [json.loads(line) for line in peer.stdout.splitlines() if line.startswith("{")]
    machine = bench_machine.describe_machine("tensorflow-cpu", "keras")
    path = bench_machine.write_results("classifiers", machine, " ".join(["bench/classifiers.py", *sys.argv[1:]]), results)
    counts = {split: sum(p["rows"] for p in dataset["parts"] if p["split"] == split) for split in ("train", "test")}
    write_table(path.with_suffix(".md"), machine, results, counts, options.epochs)
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
