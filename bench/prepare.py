"""Reading, selection and features of full Delphes files: events a second on one core and on two, and which part takes what share.

    bench/prepare.py [--data FOLDER] [--rounds N]

FOLDER holds qcd.root, ttbar.root, wjets.root (Delphes output with all leaves); without it the example's sample is used. Peers: the
straightforward Python implementation of the same recipe in tests/recipe/reference.py, features alone and uproot with it. Rounds
alternate between all of them; medians and their spread are reported.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(SOURCE / "bench"), str(SOURCE / "tests/recipe")]
import dump  # noqa: E402
from machine import describe_machine, write_results  # noqa: E402

BUILD = SOURCE / "build/release"
CLASSES = ("qcd", "ttbar", "wjets")
REPEATS = 4


def driver(files, threads, core_list):
    command = ["taskset", "-c", core_list, BUILD / "bin/prepare_driver", threads, REPEATS, *files]
    return json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)


def whole(files, threads, core_list, *options):
    """`sapwood prepare`, start-up and writing included: every file REPEATS times."""
    out = tempfile.mkdtemp(dir=os.environ.get("TMPDIR", "/tmp"))
    samples = [w for name, file in zip(CLASSES, files) for _ in range(REPEATS) for w in ("--sample", f"{name}={file}")]
    command = ["taskset", "-c", core_list, BUILD / "bin/sapwood", "prepare", *samples, "--quiet", "--json", "--threads", threads, *options, "--out", f"{out}/d"]
    start = time.perf_counter()
    result = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    events = sum(sample["steps"][0]["events"] for sample in json.loads(result.stdout)["dataset"]["selection"])
    size = sum(path.stat().st_size for path in Path(out).rglob("*.parquet"))
    shutil.rmtree(out)
    return events / seconds, size / events


def python_peer(files, events_each):
    """The same recipe in plain Python (tests/recipe/reference.py): (events/s with reading by uproot, features alone)."""
    code = f"""
import sys, time
import uproot
sys.path.insert(0, {str(SOURCE / "tests/recipe")!r})
import reference
names = {dump.NAMES!r}
start, feature_seconds, events = time.process_time(), 0, 0
for path in {list(map(str, files))!r}:
    with uproot.open(path) as file:
        columns = {{n: file["Delphes"][n.split(".")[0] + "/" + n].array(entry_stop={events_each}) for n in names}}
    for i in range({events_each}):
        event = {{n: columns[n][i].to_numpy() for n in names}}
        middle = time.process_time()
        reference.event_features(event, "paper")
        feature_seconds += time.process_time() - middle
        events += 1
print(events / (time.process_time() - start), events / feature_seconds)
"""
    result = subprocess.run(["taskset", "-c", "0", sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return tuple(map(float, result.stdout.split()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("SAPWOOD_DATA", SOURCE.parent / "shared/data")) / "delphes"
    parser.add_argument("--data", type=Path, default=default if default.is_dir() else SOURCE / "examples/topology/data")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    files = [given.data / f"{name}.root" for name in CLASSES]
    rows = {}

    def note(name, value):
        rows.setdefault(name, []).append(value)

    for round_ in range(given.rounds):
        for cores, core_list in ((1, "0"), (2, "0,1")):
            r = driver(files, cores, core_list)
            note(f"read, {cores} core", r["events"] / r["read_wall"])
            note(f"features, {cores} core", r["events"] / r["features_wall"])
            note(f"read + select + features, {cores} core", r["events"] / (r["read_wall"] + r["features_wall"]))
            note(f"share of reading, {cores} core", r["read_wall"] / (r["read_wall"] + r["features_wall"]))
            rate, size = whole(files, cores, core_list, "--raw")
            note(f"prepare --raw whole, {cores} core", rate)
            inside = (r["read_wall"] + r["features_wall"]) / r["events"] * rate
            note(f"share of start-up and writing in prepare --raw, {cores} core", 1 - inside)
            note(f"prepare whole, {cores} core", whole(files, cores, core_list)[0])
        note("peak memory MB, 2 cores", r["peak_mb"])
        note("raw Parquet bytes an event", size)
        if round_ < 3:
            both, alone = python_peer(files, 60)
            note("plain Python, read + features, 1 core", both)
            note("plain Python, features alone, 1 core", alone)
        print(f"round {round_ + 1} of {given.rounds}", file=sys.stderr)

    table = {name: {"median": statistics.median(v), "lowest": min(v), "highest": max(v)} for name, v in rows.items()}
    write_results("prepare", describe_machine(), f"bench/prepare.py --rounds {given.rounds}", table)
    for name, row in table.items():
        print(f"{name:58} {row['median']:12.2f}   ({row['lowest']:.2f} to {row['highest']:.2f})")


if __name__ == "__main__":
    main()
