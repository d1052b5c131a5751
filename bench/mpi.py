"""Weak scaling of training with mpirun: a batch of 128 a rank, of the inclusive GRU network, on one core a rank.

    python bench/mpi.py --data DATASET [--build build/release] [--epochs 4] [--launchers mpich,openmpi] [--out bench/results/mpi.md]

Two independent processes, started together, tell what two cores of this machine give at once; two ranks are compared with one process
alone, and with those. What counts is the median over the epochs, after the first, of the samples a second that `train` reports for its
steps; validation is left out. The share of sums is what rank 0 spends in them, waiting for the other rank included.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import machine as bench_machine

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = {"mpich": ["mpiexec.mpich"], "openmpi": ["mpiexec.openmpi", "--oversubscribe"]}
ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def start(options, folder, name, before, batch):
    command = [*before, ROOT / options.build / "bin/sapwood", "train", "--data", options.data, "--model",
               ROOT / "models/inclusive_gru.keras", "--out", Path(folder) / name, "--epochs", options.epochs, "--batch",
               batch, "--steps-per-epoch", options.steps, "--validation", "no", "--threads", 1]
    return subprocess.Popen([str(word) for word in command], env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


def finish(process):
    """Samples a second, and the share of the sums in per cent or None."""
    said = process.communicate()[1]
    if process.returncode != 0:
        sys.exit(said)
    lines = [line for line in said.splitlines() if line.startswith("epoch ")][1:]
    rates = [float(re.search(r"([\d.e+]+) samples/s", line)[1]) for line in lines]
    shares = [float(found[1]) for line in lines if (found := re.search(r"([\d.]+) % of it in sums", line))]
    return statistics.median(rates), statistics.median(shares) if shares else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--launchers", default="mpich,openmpi")
    parser.add_argument("--out")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        one = finish(start(options, folder, "one", [], 128))[0]
        rows.append(("one process", one, None))
        both = [start(options, folder, f"both-{i}", [], 128) for i in range(2)]
        two = sum(finish(process)[0] for process in both)
        rows.append(("two independent processes", two, None))
        for launcher in options.launchers.split(","):
            process = start(options, folder, launcher, [*LAUNCHERS[launcher], "-n", "2"], 256)
            rows.append((f"two ranks, {launcher}", *finish(process)))
    lines = ["| | samples/s | times one process | of two independent ones | in sums |", "|---|---|---|---|---|"]
    for name, rate, share in rows:
        lines.append(f"| {name} | {rate:.1f} | {rate / one:.2f} | {rate / two:.2f} | {'' if share is None else f'{share:.1f} %'} |")
    print("\n".join(lines))
    if options.out:
        machine = json.dumps(bench_machine.describe_machine(), ensure_ascii=False)
        command = " ".join(["python bench/mpi.py", *sys.argv[1:]])
        Path(options.out).write_text("# Training with two ranks\n\n" + f"`{command}` on {machine}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
