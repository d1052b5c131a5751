"""Trains on one GPU side by side with PyTorch (cuDNN): the HLF network, the inclusive GRU and LSTM, at several batches.

    python bench/gpu.py [--only NAME] [--epochs 5] [--build build/release]

Needs a GPU, its driver, a build with the GPU plug-in (`sapwood version`), and PyTorch with CUDA, which bench/train.py's virtual environment has.
Whole training steps: forward, loss, backward, Adam, with the training set on the GPU for both. What counts is the median over the epochs after
the first of samples a second. PyTorch runs each network as its best setting has it: cuDNN's layer in float32 with TF32 and under bf16
autocast, packed sequences where lengths differ, and the small dense network in a CUDA graph. Writes bench/results/gpu.md and gpu.json.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import machine as bench_machine
import train

ROOT = Path(__file__).resolve().parents[1]
# name: (network, cell, batch, rows, mean particles, samples a second that are asked for)
SITTINGS = {
    "HLF, batch 128": ("hlf", None, 128, 1_280_000, None, 5_000_000),
    "HLF, batch 4,096": ("hlf", None, 4096, 4_096_000, None, None),
    "GRU, 801 particles, batch 128": ("inclusive_gru", "GRU", 128, 4_096, 801, 200_000),
    "GRU, 801 particles, batch 1,024": ("inclusive_gru", "GRU", 1024, 16_384, 801, None),
    "GRU, 801 particles, batch 4,096": ("inclusive_gru", "GRU", 4096, 32_768, 801, 2_000_000),
    "GRU, 801 particles, batch 16,896": ("inclusive_gru", "GRU", 16896, 67_584, 801, None),
    "GRU, 59 to 801 particles, batch 4,096": ("inclusive_gru", "GRU", 4096, 65_536, 430, None),
    "LSTM, 801 particles, batch 128": ("inclusive_lstm", "LSTM", 128, 4_096, 801, None),
    "LSTM, 801 particles, batch 4,096": ("inclusive_lstm", "LSTM", 4096, 32_768, 801, 15 * 78_000),
}
PROGRAMS = ("Sapwood", "Sapwood, TF32", "Sapwood, float32", "PyTorch, TF32", "PyTorch, bf16")
INPUTS = {"hlf": {"hlf": 14}, "inclusive_gru": {"hlf": 14, "particles": 19}, "inclusive_lstm": {"hlf": 14, "particles": 19}}
LOOK = "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"


def gpu_count():
    """As the driver says, before PyTorch is installed to no end."""
    count = ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def what_is_missing(build):
    """None: all is there that a sitting needs."""
    if not gpu_count():
        return "no GPU is here (the NVIDIA driver finds none)"
    for path in (build / "bin" / "train_driver", build / "lib" / "libsapwood-cuda.so"):
        if not path.exists():
            return f"{path} is not there: build with `cmake --preset cuda` (requirements/cuda.txt has the compiler), or name the build with --build"
    return None


def gpu_name(python):
    return subprocess.run([python, "-c", LOOK], capture_output=True, text=True, check=True).stdout.strip()


# ---- PyTorch, in a process of its own ------------------------------------------------------------------------------


def torch_peer(task):
    """Prints the seconds of each epoch."""
    import time

    import numpy as np
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    folder, rows, batch, network = task["folder"], task["rows"], task["batch"], task["network"]
    cell, half, graph = task["cell"], task["half"], task["cell"] is None
    label = torch.from_numpy(np.fromfile(f"{folder}/label.i32", np.int32)).long().cuda()
    hlf = torch.from_numpy(np.fromfile(f"{folder}/hlf.f32", np.float32).reshape(rows, 14)).cuda()
    particles, lengths = None, None
    if cell:
        offsets = np.fromfile(f"{folder}/particles.i64", np.int64)
        lengths = torch.from_numpy(np.diff(offsets))
        flat = torch.from_numpy(np.fromfile(f"{folder}/particles.f32", np.float32).reshape(-1, 19))
        particles = torch.nn.utils.rnn.pad_sequence(torch.split(flat, lengths.tolist()), batch_first=True).cuda()

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            if cell:
                self.layer = getattr(torch.nn, cell)(19, 50, batch_first=True)
                self.head = torch.nn.Linear(50 + 14, 3)
            else:
                sizes = [14, 50, 20, 10]
                dense = [m for a, b in zip(sizes, sizes[1:]) for m in (torch.nn.Linear(a, b), torch.nn.ReLU())]
                self.head = torch.nn.Sequential(*dense, torch.nn.Linear(10, 3))

        def forward(self, hlf, particles, lengths):
            if not cell:
                return self.head(hlf)
            if lengths is not None:
                particles = torch.nn.utils.rnn.pack_padded_sequence(particles, lengths, batch_first=True,
                                                                    enforce_sorted=False)
            _, state = self.layer(particles)
            last = state[0] if cell == "LSTM" else state
            return self.head(torch.cat([last[0], hlf], 1))

    net = Net().cuda()
    optimizer = torch.optim.Adam(net.parameters(), capturable=graph, fused=True)
    ragged = cell is not None and bool((lengths != lengths[0]).any())

    def step(hlf_rows, particle_rows, length_rows, label_rows):
        optimizer.zero_grad(set_to_none=not graph)
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            loss = torch.nn.functional.cross_entropy(net(hlf_rows, particle_rows, length_rows), label_rows)
        loss.backward()
        optimizer.step()

    still = [hlf[:batch].clone(), label[:batch].clone()]
    captured = None
    if graph:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step(still[0], None, None, still[1])
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            step(still[0], None, None, still[1])
    for _ in range(task["epochs"]):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        order = torch.randperm(rows, device="cuda")
        host = order.cpu() if ragged else None
        for first in range(0, rows - batch + 1, batch):
            index = order[first:first + batch]
            if graph:
                torch.index_select(hlf, 0, index, out=still[0])
                torch.index_select(label, 0, index, out=still[1])
                captured.replay()
            else:
                step(hlf[index], particles[index], lengths[host[first:first + batch]] if ragged else None, label[index])
        torch.cuda.synchronize()
        print(time.perf_counter() - begin, flush=True)


# ---- A sitting -----------------------------------------------------------------------------------------------------


def seconds_of(command, env):
    """The median of the epochs behind the first; each of the driver's lines begins with wall seconds."""
    run = subprocess.run(command, input="\n" * 1000, capture_output=True, text=True, env=env)
    lines = [float(line.split()[0]) for line in run.stdout.splitlines() if line.strip()]
    if run.returncode != 0 or len(lines) < 2:
        return None, (run.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    return statistics.median(lines[1:]), None


def sit(options, name, python):
    network, cell, batch, rows, particles, asked = SITTINGS[name]
    driver = ROOT / options.build / "bin" / "train_driver"
    results = []
    with tempfile.TemporaryDirectory() as folder:
        train.make_data(folder, INPUTS[network], rows, particles)
        for who, device in (("Sapwood", "cuda"), ("Sapwood, TF32", "cuda-tf32"), ("Sapwood, float32", "cuda-float32")):
            if cell is None and device != "cuda":
                continue
            command = [driver, ROOT / "models" / f"{network}.keras", folder, rows, batch, options.epochs, 1, device]
            results.append((who, *seconds_of([str(c) for c in command], os.environ)))
        for who, half in (("PyTorch, TF32", False), ("PyTorch, bf16", True)):
            task = {"folder": folder, "rows": rows, "batch": batch, "network": network, "cell": cell, "half": half,
                    "epochs": options.epochs}
            results.append((who, *seconds_of([str(python), __file__, "--peer", json.dumps(task)], os.environ)))
    programs = [{"program": who, "samples_per_second": round(rows / seconds) if seconds else None, "problem": problem}
                for who, seconds, problem in results]
    peers = [p["samples_per_second"] for p in programs if p["program"].startswith("PyTorch") and p["samples_per_second"]]
    own = [p["samples_per_second"] for p in programs if p["program"].startswith("Sapwood") and p["samples_per_second"]]
    return {"name": name, "asked": asked, "programs": programs,
            "times_pytorch": round(max(own) / max(peers), 1) if own and peers else None}


def write_tables(path, gpu, sittings):
    lines = [f"# Training on one {gpu}", "", "Samples a second, whole training steps; medians over the epochs after the first.", "",
             "| | " + " | ".join(PROGRAMS) + " | times PyTorch | asked |",
             "|---|---|---|---|---|---|---|---|"]
    for sitting in sittings:
        figures = {p["program"]: p for p in sitting["programs"]}
        cells = []
        for who in PROGRAMS:
            p = figures.get(who)
            cells.append("" if not p else f"{p['samples_per_second']:,}" if p["samples_per_second"] else p["problem"])
        asked = f"{sitting['asked']:,}" if sitting["asked"] else ""
        lines.append(f"| {sitting['name']} | " + " | ".join(cells) + f" | {sitting['times_pytorch'] or ''} | {asked} |")
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="sittings whose name holds this")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        torch_peer(json.loads(options.peer))
        return
    names = [name for name in SITTINGS if not options.only or options.only in name]
    if not names:
        parser.error(f"no sitting's name holds {options.only!r}; there are: {'; '.join(SITTINGS)}")
    if options.epochs < 2:
        parser.error("--epochs: at least 2, since the first does not count")
    missing = what_is_missing(ROOT / options.build)
    if missing:
        sys.exit(f"bench/gpu.py: {missing}")
    python = train.peers_python()
    gpu = gpu_name(python)
    if not gpu:
        sys.exit("bench/gpu.py: PyTorch finds no GPU here, though the driver does")
    sittings = [sit(options, name, python) for name in names]
    machine = bench_machine.describe_machine("numpy")
    machine["gpu"] = gpu
    machine["packages"] |= train.versions(python, ["torch"])
    path = bench_machine.write_results("gpu", machine, " ".join(["bench/gpu.py", *sys.argv[1:]]), sittings)
    write_tables(path.with_suffix(".md"), gpu, sittings)
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
