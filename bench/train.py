"""Trains the HLF network (14-50-20-10-3, Adam) side by side with Keras and PyTorch, in one sitting, on one core.

    python bench/train.py [--rounds 5] [--rows 204800] [--core 0] [--build build/release]

Every program is started, warmed up and then told to train one epoch at a time, in turn, so that all of them see the same
noise of the machine. All draw their batches in random order from arrays in memory. What counts is the median over the rounds
of samples a CPU second; samples a wall second stand beside it. TensorFlow comes from the interpreter that runs this, PyTorch and
JAX from a virtual environment of their own, which is made in build/bench-venv on the first run.
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

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (14, 50, 20, 10, 3)
BY_HAND = "JAX by hand, an epoch an execution"  # what one can get with expert work for this network alone
PEERS = {  # name: (interpreter, backend, options)
    "Keras/TensorFlow": ("main", "tensorflow", {"jit_compile": False}),
    "Keras/TensorFlow, XLA": ("main", "tensorflow", {"jit_compile": True}),
    "Keras/TensorFlow, 50 steps an execution": ("main", "tensorflow", {"jit_compile": False, "steps_per_execution": 50}),
    "Keras/TensorFlow, XLA, 50 steps an execution": ("main", "tensorflow",
                                                     {"jit_compile": True, "steps_per_execution": 50}),
    "Keras/JAX": ("bench", "jax", {}),
    "Keras/JAX, 50 steps an execution": ("bench", "jax", {"steps_per_execution": 50}),
    BY_HAND: ("bench", "jax", None),
    "PyTorch, eager": ("bench", "torch", {"compile": False}),
    "PyTorch, compiled": ("bench", "torch", {"compile": "loss"}),
    "PyTorch, optimizer compiled too": ("bench", "torch", {"compile": "step"}),
}


# ---- Peers: each in a process of its own -------------------------------------------------------------------------


def serve(train_epoch):
    """Warms up, then trains an epoch for every line on stdin."""
    train_epoch()
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        loss = train_epoch()
        print(time.perf_counter() - wall, time.process_time() - cpu, loss, flush=True)


def load(folder, rows):
    import numpy as np
    x = np.fromfile(f"{folder}/x.f32", np.float32).reshape(rows, WIDTHS[0])
    return x, np.fromfile(f"{folder}/label.i32", np.int32)


def keras_peer(folder, rows, batch, options):
    import keras
    import numpy as np
    x, label = load(folder, rows)
    y = np.eye(WIDTHS[-1], dtype=np.float32)[label]
    layers = [keras.layers.Dense(w, activation="relu") for w in WIDTHS[1:-1]]
    model = keras.Sequential([keras.Input((WIDTHS[0],)), *layers, keras.layers.Dense(WIDTHS[-1], activation="softmax")])
    model.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", **options)
    serve(lambda: model.fit(x, y, batch_size=batch, epochs=1, shuffle=True, verbose=0).history["loss"][0])


def torch_peer(folder, rows, batch, options):
    import torch
    torch.set_num_threads(1)
    x, label = (torch.from_numpy(a) for a in load(folder, rows))
    label = label.long()
    layers = []
    for a, b in zip(WIDTHS[:-1], WIDTHS[1:]):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    fused = options["compile"] != "step"
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-7, fused=fused, foreach=not fused)

    def loss_of(inputs, target):
        return torch.nn.functional.cross_entropy(model(inputs), target)

    step = optimizer.step
    if options["compile"]:
        loss_of = torch.compile(loss_of)
    if options["compile"] == "step":
        step = torch.compile(optimizer.step)

    def train_epoch():
        order, loss = torch.randperm(rows), None
        inputs, target = x[order], label[order]  # at once: cheaper than batch by batch
        for i in range(0, rows, batch):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(inputs[i:i + batch], target[i:i + batch])
            loss.backward()
            step()
        return float(loss.detach())

    serve(train_epoch)


def jax_peer(folder, rows, batch, _):
    """By hand: the whole epoch is one compiled scan, so nothing is left of Python's overhead."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    shuffler = np.random.default_rng(1)
    x, label = load(folder, rows)
    keys = jax.random.split(jax.random.key(1), len(WIDTHS))
    weights = [(jax.nn.initializers.glorot_uniform()(k, (a, b)), jnp.zeros(b))
               for k, a, b in zip(keys, WIDTHS[:-1], WIDTHS[1:])]
    steps = rows // batch

    def loss_of(weights, inputs, target):
        for kernel, bias in weights[:-1]:
            inputs = jax.nn.relu(inputs @ kernel + bias)
        scores = jax.nn.log_softmax(inputs @ weights[-1][0] + weights[-1][1])
        return -jnp.mean(jnp.take_along_axis(scores, target[:, None], 1))

    def step(state, data):
        weights, m, v, n = state
        loss, gradients = jax.value_and_grad(loss_of)(weights, *data)
        m = jax.tree.map(lambda a, g: a + 0.1 * (g - a), m, gradients)
        v = jax.tree.map(lambda a, g: a + 0.001 * (g * g - a), v, gradients)
        alpha = 1e-3 * jnp.sqrt(1 - 0.999**n) / (1 - 0.9**n)
        weights = jax.tree.map(lambda w, a, b: w - alpha * a / (jnp.sqrt(b) + 1e-7), weights, m, v)
        return (weights, m, v, n + 1), loss

    @jax.jit
    def epoch(state, inputs, target):
        return jax.lax.scan(step, state, (inputs, target))

    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = [(weights, zeros, zeros, jnp.float32(1))]

    def train_epoch():
        order = shuffler.permutation(rows)[:steps * batch]
        inputs, target = x[order].reshape(steps, batch, -1), label[order].reshape(steps, batch)
        state[0], losses = epoch(state[0], inputs, target)
        return float(losses.mean())

    serve(train_epoch)


# ---- The sitting ----------------------------------------------------------------------------------------------------


class Program:
    """A training program that takes its turns."""

    def __init__(self, name, command, environment, core, own):
        self.name, self.own, self.times = name, own, []
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        self.first = True
        self.read()  # its warm-up

    def read(self):
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"{self.name} ended with {self.process.wait()}")
            words = line.split()
            if words == ["ready"] or len(words) == 3:
                return words

    def turn(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        wall, cpu, loss = (float(w) for w in self.read())
        self.times.append((wall, cpu, loss))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def environment(backend):
    """One thread each; and none of what steers a BLAS, which would favour or hinder somebody."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    env |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "OMP_NUM_THREADS": "1",
            "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "MKL_NUM_THREADS": "1",
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    return env


def peers_python():
    """The interpreter with PyTorch and JAX. PyTorch's wheel does not import without its CUDA packages: 6 GB in all."""
    folder = ROOT / "build" / "bench-venv"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "torch", "jax", "keras", "numpy", "setuptools"], check=True)
        (folder / "complete").touch()
    return python


def versions(python, names):
    code = ("import json, sys; from importlib import metadata; "
            "print(json.dumps({n: metadata.version(n) for n in sys.argv[1:]}))")
    return json.loads(subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True).stdout)


def start_programs(options, folder, batch):
    driver = ROOT / options.build / "bin" / "train_driver"
    python = {"main": sys.executable, "bench": peers_python()}
    yield Program("Sapwood", [driver, ROOT / "models" / "hlf.keras", f"{folder}/x.f32", f"{folder}/label.i32",
                              str(options.rows), str(batch), str(options.rounds + 2), "1"],
                  environment("tensorflow"), options.core, own=True)
    for name, (interpreter, backend, settings) in PEERS.items():
        if options.only and options.only not in name:
            continue
        task = json.dumps({"backend": backend, "folder": folder, "rows": options.rows, "batch": batch,
                           "options": settings})
        try:
            yield Program(name, [python[interpreter], __file__, "--peer", task], environment(backend), options.core,
                          own=False)
        except RuntimeError as error:
            print(f"left out: {error}", file=sys.stderr)


def sit(options, folder, batch):
    """Samples a second of every program, and how many times its peers' Sapwood's are."""
    programs = list(start_programs(options, folder, batch))
    for _ in range(options.rounds):
        for program in programs:
            program.turn()
    results = []
    for program in programs:
        program.close()
        cpu = statistics.median(t[1] for t in program.times)
        wall = statistics.median(t[0] for t in program.times)
        results.append({"program": program.name, "samples_per_cpu_second": round(options.rows / cpu),
                        "samples_per_second": round(options.rows / wall), "loss": program.times[-1][2]})
    sitting = {"batch": batch, "programs": results}
    frameworks = [r for r in results[1:] if r["program"] != BY_HAND]
    for name, rivals in (("frameworks", frameworks), ("by_hand", [r for r in results if r["program"] == BY_HAND])):
        for clock in ("samples_per_cpu_second", "samples_per_second"):
            if rivals:
                sitting[f"times_{name}_{clock}"] = round(results[0][clock] / max(r[clock] for r in rivals), 2)
    return sitting


def make_data(folder, rows):
    import numpy as np
    rng = np.random.default_rng(1)
    label = rng.integers(0, WIDTHS[-1], rows)
    centres = rng.normal(0, 0.5, (WIDTHS[-1], WIDTHS[0]))
    (rng.normal(size=(rows, WIDTHS[0])) + centres[label]).astype(np.float32).tofile(f"{folder}/x.f32")
    label.astype(np.int32).tofile(f"{folder}/label.i32")


def write_table(path, machine, sittings):
    lines = [f"# HLF training on one core ({machine['cpu']}, {', '.join(machine['vector']) or 'no AVX2'})", "",
             "Samples a CPU second (a wall second), forward, backward and Adam; medians over alternating rounds.", "",
             "| program | " + " | ".join(f"batch {s['batch']}" for s in sittings) + " |", "|---|" + "---|" * len(sittings)]
    for row in range(len(sittings[0]["programs"])):
        cells = [s["programs"][row] for s in sittings]
        lines.append(f"| {cells[0]['program']} | " + " | ".join(
            f"{c['samples_per_cpu_second']:,} ({c['samples_per_second']:,})" for c in cells) + " |")
    for name, title in (("frameworks", "the best framework"), ("by_hand", "JAX by hand")):
        key = f"times_{name}_samples_per_cpu_second"
        if key in sittings[0]:
            lines.append(f"| **Sapwood, times {title}** | " + " | ".join(str(s[key]) for s in sittings) + " |")
    lines += ["", ", ".join(f"{k} {v}" for k, v in machine["packages"].items())]
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=204800)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--only", help="peers whose name holds this")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        task = json.loads(options.peer)
        run = torch_peer if task["backend"] == "torch" else keras_peer if task["options"] is not None else jax_peer
        run(task["folder"], task["rows"], task["batch"], task["options"])
        return
    import machine as bench_machine
    with tempfile.TemporaryDirectory() as folder:
        make_data(folder, options.rows)
        sittings = [sit(options, folder, batch) for batch in (128, 4096)]
    machine = bench_machine.describe_machine("tensorflow-cpu", "keras")
    machine["packages"] |= versions(peers_python(), ["torch", "jax"])
    path = bench_machine.write_results("train", machine, " ".join(["bench/train.py", *sys.argv[1:]]), sittings)
    write_table(path.with_suffix(".md"), machine, sittings)
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
