"""A model of what a whole analysis costs, its constants measured here, what it predicts for other machines, and how far it is from right on
this one.

    .venv/bin/python bench/scale.py [--cores 32] [--network 3.1] [--storage 20] [--latency 20] [--meeting 10]

cores: of a node; network: GB/s of a node; storage: GB/s that the data's store gives to all nodes together; latency: µs of a message between
nodes; meeting: µs that a node's cores lose to each other in a step. The results go to bench/results/scale.md; docs/cost.md explains the model.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / "build/release/bin"
FILES = [ROOT / f"examples/topology/data/{name}.root" for name in ("qcd", "ttbar", "wjets")]
EVENTS, BYTES = 54.5e6, 4.5e12  # of arXiv:1909.10389: events, and bytes of their files
TRAINING = 3.43e6  # events of the published training part
NODES = (1, 10, 100)
COPIES = (4, 16)  # of the sample, in the two preparations whose difference is the cost of an event
READ = ("EFlowTrack", "EFlowPhoton", "EFlowNeutralHadron", "Electron", "MuonTight", "Jet.PT", "Jet.Eta", "Jet.BTag", "MissingET")


def run(command, threads=1, **options):
    """CPU seconds and wall seconds of a command."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    output = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                            **options).stdout  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - begun, output


# ---- Constants ------------------------------------------------------------------------------------------------------


def measure_events():
    """CPU seconds of an event's reading and features; bytes of it that are read; the share that is selected."""
    text = run([BIN / "prepare_driver", 1, 8, *FILES])[2]
    found = json.loads(text)
    stored = entries = 0
    for file in FILES:
        about = json.loads(run([BIN / "sapwood", "show", "--json", file])[2].splitlines()[0])
        entries += about["entries"]
        stored += sum(column["stored_bytes"] for column in about["columns"] if column["name"].startswith(READ))
    return {
        "read": found["read_cpu"] / found["events"], "features": found["features_cpu"] / found["events"],
        "bytes_read": stored / entries, "selected": found["selected"] / found["events"],
    }  # fmt: skip


def prepare(folder, copies, threads):
    samples = [f"--sample={file.stem}={file}" for file in FILES] * copies
    return run([BIN / "sapwood", "prepare", *samples, "--threads", threads, "--quiet", "--out", folder])


def measure_writing(folder, events):
    """CPU seconds of a selected event's way into the dataset, and its bytes there; seconds that every preparation takes."""
    costs = [prepare(folder / f"data{copies}", copies, 1)[0] for copies in COPIES]
    read = 2310 * (COPIES[1] - COPIES[0])
    slope = (costs[1] - costs[0]) / read
    run([BIN / "sapwood", "prepare", *(f"--sample={file.stem}={file}" for file in FILES), "--raw", "--quiet", "--out", folder / "raw"])
    stored = sum(file.stat().st_size for file in (folder / "raw").rglob("*.parquet"))  # of one copy: equal events would pack too well
    return {
        "write": max(slope - events["read"] - events["features"], 0) / events["selected"],
        "bytes_written": stored / (2310 * events["selected"]), "start": costs[0] - slope * 2310 * COPIES[0],
        "data": folder / f"data{COPIES[1]}",
    }  # fmt: skip


def measure_training(data, folder):
    """CPU seconds of a sample, forward, backward and Adam, at batch 128 on one thread; weights."""
    found = {}
    for name, rows, more in (("hlf", 100, 81), ("inclusive_gru", 4, 3)):  # steps an epoch, and epochs of the longer one
        costs = []
        for epochs in (1, more):
            out = folder / f"{name}{epochs}"
            cpu, _, text = run([BIN / "sapwood", "train", "--data", data, "--model", ROOT / f"models/{name}.keras", "--epochs", epochs,
                                "--batch", 128, "--steps-per-epoch", rows, "--validation", "no", "--threads", 1, "--out", out,
                                "--quiet", "--json"])  # fmt: skip
            costs.append(cpu)
            about = json.loads(text)
        steps = min(rows, -(-about["events"] // 128))
        found[name] = {"sample": (costs[1] - costs[0]) / ((more - 1) * steps * 128), "weights": about["parameters"]}
    return found


def measure_disk(folder):
    """GB/s of a file that is written to disk, and read from it again."""
    path, block = folder / "block", os.urandom(1 << 24)
    begun = time.perf_counter()
    with open(path, "wb") as file:
        for _ in range(16):
            file.write(block)
        os.fsync(file.fileno())
        written = time.perf_counter() - begun
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begun = time.perf_counter()
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass
    return {"write": 2**28 / written / 1e9, "read": 2**28 / (time.perf_counter() - begun) / 1e9}


# ---- The model ------------------------------------------------------------------------------------------------------


def predict_preparation(c, nodes, given, events=EVENTS, measured_bytes=None):
    """Seconds by what takes them. They overlap: the largest counts."""
    read = measured_bytes or c["bytes_read"]
    cpu = events * (c["read"] + c["features"] + c["selected"] * c["write"]) / (nodes * given.cores)
    into, out = events * read / 1e9, events * c["selected"] * c["bytes_written"] / 1e9
    return {"cores": cpu, "network": (into + 2 * out) / (nodes * given.network), "storage": (into + out) / given.storage}


def predict_epoch(c, name, nodes, given, batch):
    """Seconds of an epoch with so many samples a step on each node, and the share in it of the sum of gradients over the nodes: a ring of
    four bytes a weight, and messages in a tree."""
    one, steps = c["training"][name], TRAINING / (batch * nodes)
    compute = batch * one["sample"] / given.cores + given.meeting * 1e-6
    ring = 2 * (nodes - 1) / nodes * 4 * one["weights"] / (given.network * 1e9)
    ring += 2 * math.ceil(math.log2(nodes)) * given.latency * 1e-6
    return steps * (compute + ring), ring / (compute + ring)


def clock(seconds):
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min" if seconds < 36000 else f"{seconds / 3600:.1f} h"


def tables(c, given):
    lines = ["| preparation of 54.5 M events | cores | network | storage | takes |", "|---|---|---|---|---|"]
    for what, size in (("columns that the recipe reads", c["bytes_read"]), ("whole files, 4.5 TB", BYTES / EVENTS)):
        for nodes in NODES:
            t = predict_preparation(c, nodes, given, measured_bytes=size)
            limit = max(t, key=t.get)
            lines.append(f"| {nodes} node{'s' * (nodes > 1)}, {what} | {' | '.join(clock(t[k]) for k in t)} | **{clock(t[limit])}**: {limit} |")
    lines += ["", "| an epoch, 3.43 M events | samples a node and step | 1 node | 10 nodes | 100 nodes |", "|---|---|---|---|---|"]
    for name, batches in (("hlf", (128, 16384)), ("inclusive_gru", (128, 4096))):
        for batch in batches:
            cells = []
            for nodes in NODES:
                seconds, share = predict_epoch(c, name, nodes, given, batch)
                cells.append(f"{clock(seconds)}" + (f" ({100 * share:.0f} % sum)" if nodes > 1 else ""))
            lines.append(f"| {name} | {batch} | {' | '.join(cells)} |")
    return lines


# ---- How right it is here -------------------------------------------------------------------------------------------


def compare(c, folder):
    """Wall seconds of preparing the larger data on one and two cores, beside what the model says; it knows of no other load."""
    events, lines = 2310 * COPIES[1], []
    lines += [f"| preparation of {events:,} events here | predicted | measured | CPU seconds predicted | measured |", "|---|---|---|---|---|"]
    cpu = events * (c["read"] + c["features"] + c["selected"] * c["write"])
    walls = []
    for threads in (1, 2):
        used, wall, _ = prepare(folder / f"again{threads}", COPIES[1], threads)
        walls.append(wall)
        predicted = c["start"] + cpu / threads
        lines.append(f"| {threads} core{'s' * (threads > 1)} | {clock(predicted)} | {clock(wall)} | {c['start'] + cpu:.1f} | {used:.1f} |")
    predicted = (c["start"] + cpu) / (c["start"] + cpu / 2)
    lines.append(f"| 2 cores, times as fast | {predicted:.2f} | {walls[0] / walls[1]:.2f} | | |")
    return lines


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", type=int, default=32)
    parser.add_argument("--network", type=float, default=3.1)
    parser.add_argument("--storage", type=float, default=20)
    parser.add_argument("--latency", type=float, default=20)
    parser.add_argument("--meeting", type=float, default=10)
    given = parser.parse_args()
    about, load = machine.describe_machine(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        folder = Path(scratch)
        c = measure_events()
        c.update(measure_writing(folder, c))
        c["training"] = measure_training(c.pop("data"), folder)
        c["disk"] = measure_disk(folder)
        rest = compare(c, folder)
    names = [
        ("reading an event", f"{c['read'] * 1e6:.1f} µs of a core"), ("its features", f"{c['features'] * 1e6:.1f} µs of a core"),
        ("a selected event into the dataset", f"{c['write'] * 1e6:.1f} µs of a core"), ("events that are selected", f"{100 * c['selected']:.0f} %"),
        ("read of an event", f"{c['bytes_read'] / 1e3:.1f} kB (of {BYTES / EVENTS / 1e3:.0f} kB in the published files)"),
        ("written of a selected event", f"{c['bytes_written'] / 1e3:.1f} kB"),
        *((f"a step's sample, {name}", f"{one['sample'] * 1e6:.2f} µs of a core; {one['weights']:,} weights") for name, one in c["training"].items()),
        ("disk", f"{c['disk']['write']:.2f} GB/s written, {c['disk']['read']:.2f} GB/s read"),
    ]  # fmt: skip
    lines = [f"# What it costs ({about['cpu']}, {about['cores']} cores, load {load:.1f})", "", "| measured here | |", "|---|---|",
             *(f"| {name} | {value} |" for name, value in names), "",
             f"Nodes of {given.cores} such cores, {given.network:g} GB/s of network each, {given.latency:g} µs a message, {given.meeting:g} µs that its cores lose in a step; a store of {given.storage:g} GB/s.", "",
             *tables(c, given), "", *rest, "", f"`bench/scale.py {' '.join(sys.argv[1:])}`".replace(" `", "`"), ""]  # fmt: skip
    text = "\n".join(lines)
    (machine.RESULTS / "scale.md").write_text(text)
    machine.write_results("scale", about, "bench/scale.py " + " ".join(sys.argv[1:]), {"constants": c, "load": load, "node": vars(given)})
    print(text)


if __name__ == "__main__":
    main()
