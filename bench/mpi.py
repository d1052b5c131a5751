"""Weak scaling of training with mpirun: a batch of so many events a rank, one core (or GPU) a rank.

    python bench/mpi.py [--data DATASET] [--model inclusive_gru] [--batch 512] [--ranks 1,2] [--launchers mpich,openmpi] [--device cpu|cuda]
                        [--epochs 6] [--steps 3] [--build build/release] [--out bench/results/mpi.md]

Independent processes, started together, tell what as many cores of this machine give at once; ranks are compared with one process alone,
and with those. What counts is the median over the epochs, after the first, of the samples a second that `train` reports for its
steps; validation is left out. The share of sums is what rank 0 spends in them, waiting for the other ranks included.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import machine as bench_machine
from delphes import ROOT, prepare

SAMPLE = ROOT / "examples/topology/data"
LAUNCHERS = {"mpich": ["mpiexec.mpich"], "openmpi": ["mpiexec.openmpi", "--oversubscribe"]}
ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def start(options, folder, name, before, ranks):
    command = [*before, ROOT / options.build / "bin/sapwood", "train", "--data", options.data, "--model",
               ROOT / f"models/{options.model}.keras", "--out", Path(folder) / name, "--epochs", options.epochs, "--batch",
               options.batch * ranks, "--steps-per-epoch", options.steps, "--validation", "no", "--threads", 1, "--device",
               options.device]
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


def sit(options, folder):
    """(what, processes, samples a second, share of sums) of one process, independent ones, and ranks under each launcher."""
    rows = [("one process", 1, *finish(start(options, folder, "one", [], 1)))]
    for ranks in (n for n in options.ranks if n > 1):
        if options.device == "cpu":
            together = [start(options, folder, f"independent-{ranks}-{i}", [], 1) for i in range(ranks)]
            rows.append((f"{ranks} independent processes", ranks, sum(finish(process)[0] for process in together), None))
        for launcher in options.launchers:
            if not shutil.which(LAUNCHERS[launcher][0]):
                print(f"{LAUNCHERS[launcher][0]} is not installed: left out", file=sys.stderr)
                continue
            process = start(options, folder, f"{launcher}-{ranks}", [*LAUNCHERS[launcher], "-n", str(ranks)], ranks)
            rows.append((f"{ranks} ranks, {launcher}", ranks, *finish(process)))
    return rows


def table(rows):
    one = rows[0][2]
    independent = {count: rate for name, count, rate, _ in rows if "independent" in name}
    lines = ["| | samples/s | times one process | of independent ones | in sums |", "|---|---|---|---|---|"]
    for name, count, rate, share in rows:
        of = f"{rate / independent[count]:.2f}" if count in independent else ""
        lines.append(f"| {name} | {rate:,.1f} | {rate / one:.2f} | {of} | {'' if share is None else f'{share:.1f} %'} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a dataset folder; the example's sample, prepared")
    parser.add_argument("--model", default="inclusive_gru", help="of models/")
    parser.add_argument("--batch", type=int, default=512, help="events a rank")
    parser.add_argument("--ranks", type=lambda text: [int(word) for word in text.split(",")], default=[1, 2])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--launchers", type=lambda text: text.split(","), default=list(LAUNCHERS))
    parser.add_argument("--out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.data = options.data or prepare(options, [SAMPLE], folder)
        text = table(sit(options, folder))
    print(text)
    if options.out:
        machine = json.dumps(bench_machine.describe_machine(), ensure_ascii=False)
        command = " ".join(["python bench/mpi.py", *sys.argv[1:]])
        Path(options.out).write_text("# Training with several ranks\n\n" + f"`{command}` on {machine}\n\n" + text + "\n")


if __name__ == "__main__":
    main()
