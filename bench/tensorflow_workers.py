"""TensorFlow on dataset folders: the input pipeline alone beside what a training step needs, and training by number of workers.

    python bench/tensorflow_workers.py [DELPHES_FOLDER…] [--rounds 5] [--workers 1,2] [--build build/release]

Every folder holds qcd.root, ttbar.root and wjets.root; else the example's sample is used. The pipeline gives batches as fast as it can
to a loop that does nothing; the step trains on batches that are in memory already; both in one process, in turns, on all cores.
Results: bench/results/tensorflow_workers.md.
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
from delphes import ROOT, default_folders, prepare, run

BATCH = 128
NETWORKS = {"HLF": ("hlf", 40, None), "inclusive GRU": ("inclusive_gru", 1, 8)}  # model, passes of the pipeline a turn, steps an epoch


# ---- One network, in a process of its own ------------------------------------------------------------------------------


def measure(task):
    """Events a second of the pipeline and of the step, a line each turn."""
    sys.path.insert(0, str(ROOT / task["build"] / "python"))
    import sapwood.tf
    import tensorflow as tf
    from sapwood._tensorflow_training import Training
    from sapwood._train_options import Settings

    network, passes, steps = NETWORKS[task["name"]]
    model = ROOT / "models" / f"{network}.keras"
    training = Training(Settings([("data", task["data"]), ("model", str(model)), ("out", "unused"), ("engine", "tensorflow"),
                                  ("batch", str(BATCH)), ("validation", "no")]), 0, print, lambda: False)
    feeding = training.feeding
    names = [feature.name for feature in feeding.features]
    held = list(training._stretches(feeding, 1, 1, 0, steps or feeding.steps))
    rows = sum(int(parts[1].numpy().sum()) for parts in held)
    data = sapwood.tf.dataset(task["data"], batch=BATCH, features=names).repeat(passes)

    @tf.function
    def drain(batches):
        count = tf.constant(0, tf.int64)
        for _, label in batches:
            count += tf.shape(label, tf.int64)[0]
        return count

    def train():
        for parts in held:
            training.graph.train(parts, tf.constant(0.0))

    def timed(work):
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    def stretches():
        for epoch in range(passes):
            for _ in training._stretches(feeding, 1, epoch + 1, 0, feeding.steps):
                pass

    drain(data), train()
    for _ in range(task["rounds"]):
        print(json.dumps({"step": rows / timed(train), "pipeline": feeding.rows * passes / timed(lambda: drain(data)),
                          "stretches": feeding.rows * passes / timed(stretches)}), flush=True)


def pipeline_beside_step(options, data, name):
    task = {"name": name, "data": data, "build": options.build, "rounds": options.rounds}
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    out = subprocess.run([sys.executable, __file__, "--measure", json.dumps(task)], env=env, stdout=subprocess.PIPE, text=True, check=True)
    turns = [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]
    medians = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
    return {"network": name, **{key: round(value) for key, value in medians.items()},
            "dataset_times_step": round(statistics.median(t["pipeline"] / t["step"] for t in turns), 1),
            "engine_times_step": round(statistics.median(t["stretches"] / t["step"] for t in turns), 1)}


def training_by_workers(options, data, work, name):
    """Events a second of whole trainings, start-up and first epoch left out."""
    network, _, steps = NETWORKS[name]
    limit = ["--steps-per-epoch", steps] if steps else []
    epochs = 4 if steps else 12
    for workers in map(int, options.workers.split(",")):
        out = f"{work}/{network}-{workers}"
        run(options, "train", "--engine", "tensorflow", "--workers", workers, "--data", data, "--model", ROOT / "models" / f"{network}.keras",
            "--batch", BATCH, "--epochs", epochs, "--validation", "no", "--out", out, *limit)
        history = json.loads(Path(out, "history.json").read_text())[1:]
        about = json.loads(Path(data, "dataset.json").read_text())
        rows = sum(part["rows"] for part in about["parts"] if part["split"] == "train")
        yield {"network": name, "workers": workers, "loss": history[-1]["loss"],
               "samples_per_second": round(min(rows, (steps or rows) * BATCH) / statistics.median(e["seconds"] for e in history))}


def write_tables(path, machine, pipelines, trainings):
    lines = [f"# TensorFlow on dataset folders ({machine['cpu']}, {machine['cores']} cores)", "",
             f"Batches of {BATCH}; medians over turns. *Dataset*: `sapwood.tf.dataset`, batch by batch; *engine*: the same as "
             "`train --engine tensorflow` takes it, some batches at a time.", "",
             "| network | training step, samples/s | dataset alone | times the step (asked: 5) | engine's input alone | times the step |",
             "|---|---|---|---|---|---|"]
    lines += [f"| {p['network']} | {p['step']:,} | {p['pipeline']:,} | **{p['dataset_times_step']}** | {p['stretches']:,} | "
              f"**{p['engine_times_step']}** |" for p in pipelines]
    lines += ["", "| network | workers on this machine | samples/s | loss at the end |", "|---|---|---|---|"]
    lines += [f"| {t['network']} | {t['workers']} | {t['samples_per_second']:,} | {t['loss']:.4f} |" for t in trainings]
    lines += ["", ", ".join(f"{k} {v}" for k, v in machine["packages"].items())]
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(json.loads(options.measure))
        return
    with tempfile.TemporaryDirectory() as work:
        data = prepare(options, options.folders or default_folders(), work)
        pipelines = [pipeline_beside_step(options, data, name) for name in NETWORKS]
        trainings = [one for name in NETWORKS for one in training_by_workers(options, data, work, name)]
    machine = bench_machine.describe_machine("tensorflow-cpu", "keras")
    path = bench_machine.write_results("tensorflow_workers", machine, " ".join(["bench/tensorflow_workers.py", *sys.argv[1:]]),
                                       {"pipeline": pipelines, "training": trainings})
    write_tables(path.with_suffix(".md"), machine, pipelines, trainings)
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
