"""Trains the published networks side by side with Keras, PyTorch and JAX, in one sitting, on one core.

    python bench/train.py [--networks "HLF;GRU, 801"] [--rounds 5] [--core 0] [--build build/release] [--only PEERS]

Every program is started, warmed up and then told to train one epoch at a time, in turn, so that all of them see the same
noise of the machine. All draw their batches in random order from arrays in memory. What counts is the median over the rounds
of samples a CPU second; samples a wall second stand beside it. Sapwood also takes turns with two threads on two cores, and the float32
peak of the core is measured at every turn beside recurrent networks. TensorFlow comes from the interpreter that runs this, PyTorch and
JAX from a virtual environment of their own, which is made in build/bench-venv on the first run (6 GB).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import machine as bench_machine

ROOT = Path(__file__).resolve().parents[1]
BY_HAND = "JAX by hand, an epoch an execution"  # what one can get with expert work for the HLF network alone
HLF, INCLUSIVE = {"hlf": 14}, {"particles": 19, "hlf": 14}  # inputs and their widths
SITTINGS = {  # name: network, inputs, rows an epoch, batch, mean particles an event, asked for: times the best peer
    "HLF, batch 128": ("hlf", HLF, 204800, 128, 0, 10),
    "HLF, batch 4096": ("hlf", HLF, 204800, 4096, 0, None),
    "inclusive GRU, 801 particles, batch 128": ("inclusive_gru", INCLUSIVE, 512, 128, 801, 4.5),
    "inclusive GRU, 430 particles on average, batch 128": ("inclusive_gru", INCLUSIVE, 1024, 128, 430, None),
    "inclusive LSTM, 801 particles, batch 128": ("inclusive_lstm", INCLUSIVE, 512, 128, 801, 3),
    "inclusive transformer, 801 particles, batch 32": ("inclusive_transformer", INCLUSIVE, 32, 32, 801, 3),
    "inclusive transformer, 430 particles on average, batch 32": ("inclusive_transformer", INCLUSIVE, 32, 32, 430, 3),
}
GATES = {"inclusive_gru": 3, "inclusive_lstm": 4}
TWO = "Sapwood, two threads"
MANY = {"steps_per_execution": 50}
PEERS = {  # name: (framework, interpreter, Keras' backend, options)
    "Keras/TensorFlow": ("keras", "main", "tensorflow", {"jit_compile": False}),
    "Keras/TensorFlow, XLA": ("keras", "main", "tensorflow", {"jit_compile": True}),
    "Keras/TensorFlow, 50 steps an execution": ("keras", "main", "tensorflow", {"jit_compile": False} | MANY),
    "Keras/TensorFlow, XLA, 50 steps an execution": ("keras", "main", "tensorflow", {"jit_compile": True} | MANY),
    "Keras/JAX": ("keras", "bench", "jax", {}),
    "Keras/JAX, 50 steps an execution": ("keras", "bench", "jax", MANY),
    BY_HAND: ("jax", "bench", "jax", {}),
    "PyTorch, eager": ("torch", "bench", "torch", {"compile": False}),
    "PyTorch, compiled": ("torch", "bench", "torch", {"compile": "loss"}),
    "PyTorch, optimizer compiled too": ("torch", "bench", "torch", {"compile": "step"}),
}
HLF_ONLY = {BY_HAND, "Keras/TensorFlow, 50 steps an execution", "Keras/TensorFlow, XLA, 50 steps an execution",
            "Keras/JAX, 50 steps an execution", "PyTorch, optimizer compiled too"}  # an epoch is a few steps elsewhere
SLOW = {("inclusive_transformer", "Keras/TensorFlow, XLA")}  # a tenth of the speed without XLA: minutes a turn


class Program:
    """A training program that takes its turns."""

    def __init__(self, name, command, environment, *cores):
        self.name, self.times = name, []
        self.process = subprocess.Popen([str(c) for c in command], env=environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True,
                                        preexec_fn=lambda: os.sched_setaffinity(0, cores))
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


def start_own(options, folder, network, rows, batch):
    """Sapwood on one core, on two where there are two, and the peak of the core beside recurrent networks."""
    binaries = ROOT / options.build / "bin"
    task = [binaries / "train_driver", ROOT / "models" / f"{network}.keras", folder, rows, batch, options.rounds + 2]
    other = next((core for core in sorted(os.sched_getaffinity(0)) if core != options.core), None)
    yield Program("Sapwood", [*task, 1], environment("tensorflow"), options.core)
    if other is not None:
        yield Program(TWO, [*task, 2], environment("tensorflow"), options.core, other)
    if network in GATES:
        yield Program("peak", [binaries / "peak_driver"], environment("tensorflow"), options.core)


def start_peers(options, folder, network, inputs, rows, batch):
    python = {"main": sys.executable, "bench": peers_python()}
    for name, (framework, interpreter, backend, settings) in PEERS.items():
        if (options.only and options.only not in name) or (network != "hlf" and name in HLF_ONLY) or (network, name) in SLOW:
            continue
        task = json.dumps({"framework": framework, "network": network, "inputs": inputs, "folder": folder, "rows": rows,
                           "batch": batch, "options": settings})
        try:
            yield Program(name, [python[interpreter], ROOT / "bench" / "peers.py", task], environment(backend), options.core)
        except RuntimeError as error:
            print(f"left out: {error}", file=sys.stderr)


def recurrent_gflop(network, steps):
    """Of the products of an event's recurrent layer, 50 units over 19 values, 2 a multiplication: forward, gradients of both kernels and of the state."""
    units, values = 50, 19
    return 2e-9 * steps * GATES[network] * units * (2 * values + 3 * units)


def sit(options, name):
    """Samples a second of every program, and how many times its peers' Sapwood's are."""
    network, inputs, rows, batch, particles, asked = SITTINGS[name]
    with tempfile.TemporaryDirectory() as folder:
        make_data(folder, inputs, rows, particles)
        programs = [*start_own(options, folder, network, rows, batch), *start_peers(options, folder, network, inputs, rows, batch)]
        for _ in range(options.rounds):
            for program in programs:
                program.turn()
    results, sitting = [], {"name": name, "asked": asked}
    for program in programs:
        program.close()
        wall, cpu, told = (statistics.median(t[k] for t in program.times) for k in range(3))
        if program.name == "peak":
            sitting["peak_gflops"] = round(told, 1)
        else:
            results.append({"program": program.name, "samples_per_cpu_second": round(rows / cpu),
                            "samples_per_second": round(rows / wall), "loss": program.times[-1][2]})
    own, peers = results[0], [r for r in results if not r["program"].startswith("Sapwood")]
    sitting["programs"] = results
    if results[1:] and results[1]["program"] == TWO:
        sitting["two_cores"] = round(results[1]["samples_per_second"] / own["samples_per_second"], 2)
    if "peak_gflops" in sitting:
        sitting["share_of_peak"] = round(own["samples_per_cpu_second"] * recurrent_gflop(network, particles) / sitting["peak_gflops"], 3)
    frameworks = [r for r in peers if r["program"] != BY_HAND]
    for who, rivals in (("frameworks", frameworks), ("by_hand", [r for r in peers if r["program"] == BY_HAND])):
        for clock in ("samples_per_cpu_second", "samples_per_second"):
            if rivals:
                sitting[f"times_{who}_{clock}"] = round(own[clock] / max(r[clock] for r in rivals), 2)
    return sitting


def make_data(folder, inputs, rows, particles):
    """Classes that can be told apart. Sequences of 801, or of uniform lengths around the mean."""
    import numpy as np
    rng = np.random.default_rng(1)
    label = rng.integers(0, 3, rows)
    label.astype(np.int32).tofile(f"{folder}/label.i32")
    for name, width in inputs.items():
        centres = rng.normal(0, 0.5, (3, width))
        if name != "particles":
            (rng.normal(size=(rows, width)) + centres[label]).astype(np.float32).tofile(f"{folder}/{name}.f32")
            continue
        spread = 801 - particles
        length = rng.integers(particles - spread, 802, rows)
        offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        offsets.tofile(f"{folder}/{name}.i64")
        steps = rng.normal(size=(offsets[-1], width)) + centres[np.repeat(label, length)] * 0.1
        steps.astype(np.float32).tofile(f"{folder}/{name}.f32")


def write_tables(path, machine, sittings):
    lines = [f"# Training on one core ({machine['cpu']}, {', '.join(machine['vector']) or 'no AVX2'})", "",
             "Samples a CPU second (a wall second), forward, backward and Adam; medians over alternating rounds.", ""]
    for sitting in sittings:
        lines += [f"| {sitting['name']} | samples a CPU second (a wall second) |", "|---|---|"]
        lines += [f"| {r['program']} | {r['samples_per_cpu_second']:,} ({r['samples_per_second']:,}) |"
                  for r in sitting["programs"]]
        for who, title in (("frameworks", "the best framework"), ("by_hand", "JAX by hand")):
            key = f"times_{who}_samples_per_cpu_second"
            asked = f" (asked: {sitting['asked']})" if who == "frameworks" and sitting["asked"] else ""
            if key in sitting:
                lines.append(f"| **Sapwood, times {title}**{asked} | **{sitting[key]}** |")
        if "two_cores" in sitting:
            lines.append(f"| Sapwood, two cores, times one, wall (asked: 1.8) | {sitting['two_cores']} |")
        if "peak_gflops" in sitting:
            lines.append(f"| float32 peak of the core; recurrent products of Sapwood, share of it (asked of the GRU: 40 %) | "
                         f"{sitting['peak_gflops']} GFLOP/s; {100 * sitting['share_of_peak']:.0f} % |")
        lines.append("")
    lines.append(", ".join(f"{k} {v}" for k, v in machine["packages"].items()))
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", help="sittings whose names hold one of these, with ; between them; all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--only", help="peers whose name holds this")
    options = parser.parse_args()
    wanted = (options.networks or "").split(";")
    machine = bench_machine.describe_machine("tensorflow-cpu", "keras")
    machine["packages"] |= versions(peers_python(), ["torch", "jax"])
    command, sittings = " ".join(["bench/train.py", *sys.argv[1:]]), []
    for name in SITTINGS:
        if any(w in name for w in wanted):
            sittings.append(sit(options, name))  # minutes to half an hour: what is done is written
            path = bench_machine.write_results("train", machine, command, sittings)
            write_tables(path.with_suffix(".md"), machine, sittings)
            print(f"{name}: {sittings[-1]['programs'][0]['samples_per_cpu_second']:,} samples a CPU second", file=sys.stderr, flush=True)
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
