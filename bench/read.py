"""Reading ROOT files beside uproot and ROOT itself, and beside the floor: decompression, byte swap and offsets alone.

    bench/read.py [--rounds N] [--codecs zlib,lz4,…] [--large GIGABYTES] [--data FOLDER]

ROOT writes the files into FOLDER (bench/read_table.py; standard: build/bench). Every reader runs in a process of its own that
repeats the reading and gives the median of its seconds; rounds alternate between all readers, and medians of the rounds are
reported, as are the medians of the ratios inside each round. MB are those of the columns uncompressed. One core is CPU seconds of
the process; two cores are wall time, so the machine must be idle for them. Opening the file counts for everyone but the floor.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SOURCE / "bench"))
from machine import RESULTS, describe_machine, write_results  # noqa: E402

BIN = SOURCE / "build/release/bin"
CODECS = ("zlib", "lz4", "zstd", "none")
FORMATS = ("table", "ntuple")  # the same columns as a TTree and as an RNTuple
WIDE_COLUMNS = ("Coll1_pt", "Coll2_eta", "nColl3", "HLT_Path7_Isolated_v1", "Global9_value")
NANO_COLUMNS = ("Jet_pt", "Muon_eta", "nJet", "MET_pt", "run")
NANO_FILES = ("scikit-hep-testdata/nanoAOD_2015_CMS_Open_Data_ttbar.root", "JuliaHEP_UnROOT.jl/test/samples/NanoAODv5_sample.root")
TARGETS = {"sapwood / floor": 0.85, "sapwood, 2 cores / 1 core": 1.8, "sapwood / uproot": 2, "sapwood with sums / RDataFrame": 3}
REPEATS = 5

UPROOT = """
import json, statistics, sys, time
import uproot
path, name, repeats, *columns = sys.argv[1:]
wall, cpu = [], []
for _ in range(int(repeats)):
    wall.append(time.perf_counter()), cpu.append(time.process_time())
    with uproot.open(path) as file:
        arrays = file[name].arrays(columns or None, library="ak")
    wall[-1], cpu[-1] = time.perf_counter() - wall[-1], time.process_time() - cpu[-1]
print(json.dumps({"wall": statistics.median(wall), "cpu": statistics.median(cpu)}))
"""


def measure(cores, *command):
    """Seconds {"wall", "cpu", …} that the program prints; None when it says that it cannot."""
    command = ["taskset", "-c", ",".join(map(str, range(cores))), *map(str, command)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        print(f"{' '.join(command[3:])}: {result.stderr.strip()}", file=sys.stderr)
        return None
    return json.loads(result.stdout.splitlines()[-1])


def settle(path):
    """Leaves the file in the page cache as reading it from disk does: in larger pages than ROOT's writing does."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(1 << 24):
            pass


def make(folder, what, parameter):
    command = [sys.executable, "-W", "ignore", SOURCE / "bench/read_table.py", folder, what, str(parameter)]
    subprocess.run(command, check=True)


def build_root(folder):
    """bench/read_root.cpp against the ROOT of this Python."""
    program = folder / "read_root"
    source = SOURCE / "bench/read_root.cpp"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    command = [sys.executable, "-W", "ignore", "-c", "import ROOT; print(ROOT.__path__[0])"]
    root = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    libraries = [f"-l{name}" for name in ("Core", "RIO", "Tree", "ROOTVecOps", "ROOTDataFrame", "ROOTNTuple")]
    flags = ["-std=c++17", f"-I{root}/include", f"-L{root}/lib", f"-Wl,-rpath,{root}/lib,-rpath-link,{root.parent}/root.libs", *libraries]
    subprocess.run(["c++", "-O2", "-o", program, source, *flags], check=True)
    return program


def table_readers(path, root):
    """name: (cores, command)."""
    sapwood = (BIN / "read_driver", path, "events")
    floor = (BIN / "floor", path, "events")
    return {
        "floor": (1, *floor, 1, REPEATS),
        "floor, 2 cores": (2, *floor, 2, REPEATS),
        "sapwood": (1, *sapwood, 1, REPEATS),
        "sapwood, 2 cores": (2, *sapwood, 2, REPEATS),
        "sapwood with sums": (1, *sapwood, 1, REPEATS, "--sum"),
        "uproot": (1, sys.executable, "-c", UPROOT, path, "events", REPEATS),
        "RDataFrame": (1, root, "frame", path, 3),
        "ROOT, every entry": (1, root, "entries", path, 3),
    }


def spread(values):
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def over(rounds, numerator, denominator, clock):
    """Median over the rounds of how many times faster `numerator` is."""
    both = [(r[numerator], r[denominator]) for r in rounds if r.get(numerator) and r.get(denominator)]
    return statistics.median(b[clock] / a[clock] for a, b in both) if both else None


def summarise(rounds, megabytes):
    names = list(dict.fromkeys(name for r in rounds for name in r))
    rows = {}
    for name in names:
        got = [r[name] for r in rounds if r.get(name)]
        if got:
            clock = "wall" if "2 cores" in name else "cpu"
            rows[name] = {"clock": clock, "seconds": spread([g[clock] for g in got]), "mb_per_s": megabytes / statistics.median(g[clock] for g in got)}
    ratios = {
        "sapwood / floor": over(rounds, "sapwood", "floor", "cpu"),
        "sapwood, 2 cores / 1 core": over(rounds, "sapwood, 2 cores", "sapwood", "wall"),
        "floor, 2 cores / 1 core": over(rounds, "floor, 2 cores", "floor", "wall"),
        "sapwood / uproot": over(rounds, "sapwood", "uproot", "cpu"),
        "sapwood with sums / RDataFrame": over(rounds, "sapwood with sums", "RDataFrame", "cpu"),
        "sapwood / ROOT, every entry": over(rounds, "sapwood", "ROOT, every entry", "cpu"),
    }
    return {"readers": rows, "ratios": ratios}


def measure_tables(folder, codecs, rounds, root):
    files = {(form, codec): folder / f"{form}-{codec}.root" for form in FORMATS for codec in codecs}
    for codec in codecs:
        make(folder, "table", codec)
    seconds = {key: [] for key in files}
    for round_ in range(rounds):
        for key, path in files.items():
            settle(path)
            seconds[key].append({name: measure(*command) for name, command in table_readers(path, root).items()})
        print(f"tables: round {round_ + 1} of {rounds}", file=sys.stderr)
    megabytes = {form: next((s["sapwood"]["bytes"] / 1e6 for (f, _), r in seconds.items() if f == form for s in r if s["sapwood"]), 0) for form in FORMATS}
    return {f"{form} {codec}": summarise(r, megabytes[form]) for (form, codec), r in seconds.items()}


def measure_wide(folder, rounds):
    """Opening a file of many branches and reading five columns of it."""
    make(folder, "wide", 1300)
    make(folder, "wide", 10000)
    corpus = Path(os.environ.get("SAPWOOD_DATA", SOURCE.parent / "shared/data")) / "corpus"
    files = {f"{n} branches": (folder / f"wide-{n}.root", WIDE_COLUMNS) for n in (1300, 10000)}
    files |= {Path(name).stem: (corpus / name, NANO_COLUMNS) for name in NANO_FILES if (corpus / name).exists()}
    results = {}
    for name, (path, columns) in files.items():
        settle(path)
        got = []
        for _ in range(rounds):
            ours = measure(1, BIN / "read_driver", path, "Events", 1, 15, *columns)
            theirs = measure(1, sys.executable, "-c", UPROOT, path, "Events", 3, *columns)
            got.append({"sapwood": ours, "uproot": theirs})
        results[name] = {reader: {"seconds": spread([g[reader]["cpu"] for g in got])} for reader in ("sapwood", "uproot")}
        results[name]["sapwood / uproot"] = over(got, "sapwood", "uproot", "cpu")
        print(f"wide: {name}", file=sys.stderr)
    return results


def measure_large(folder, gigabytes):
    """Peak memory while a large file streams through; it is removed afterwards."""
    make(folder, "large", gigabytes)
    path = folder / f"large-{gigabytes}.root"
    try:
        got = {f"{threads} cores": measure(threads, BIN / "read_driver", path, "events", threads, 1) for threads in (1, 2)}
        return {"gigabytes": path.stat().st_size / 1e9, **{k: {"peak_mb": g["peak_mb"], "wall": g["wall"]} for k, g in got.items()}}
    finally:
        path.unlink()


def text_of(results):
    """The tables in Markdown."""
    lines = []
    for form in FORMATS:
        parts = {name.split()[1]: part for name, part in results["tables"].items() if name.startswith(form)}
        for title, section, show in (
            (f"{'TTree' if form == 'table' else 'RNTuple'}, MB/s of CPU (two cores: of wall time)", "readers", lambda v: f"{v['mb_per_s']:.0f}"),
            ("times as fast", "ratios", lambda v: f"{v:.2f}"),
        ):
            names = list(dict.fromkeys(n for part in parts.values() for n, v in part[section].items() if v))
            if not names:
                continue
            lines += [f"| {title} | {' | '.join(parts)} |", "|---|" + "---|" * len(parts)]
            for name in names:
                target = f" (asked: {TARGETS[name]})" if section == "ratios" and name in TARGETS else ""
                cells = [show(part[section][name]) if part[section].get(name) else "–" for part in parts.values()]
                lines.append(f"| {name}{target} | {' | '.join(cells)} |")
            lines.append("")
    lines += ["| open + five columns, CPU ms | sapwood | uproot | times as fast (asked: 10) |", "|---|---|---|---|"]
    for name, row in results["wide"].items():
        lines.append(f"| {name} | {1e3 * row['sapwood']['seconds']['median']:.1f} | {1e3 * row['uproot']['seconds']['median']:.0f} | {row['sapwood / uproot']:.0f} |")
    if results.get("large"):
        large = results["large"]
        peaks = ", ".join(f"{large[k]['peak_mb']:.0f} MB on {k}" for k in ("1 cores", "2 cores"))
        lines += ["", f"Peak memory while {large['gigabytes']:.1f} GB stream through (asked: under 250 MB): {peaks}."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--codecs", default=",".join(CODECS))
    parser.add_argument("--large", type=float, default=2.0, help="gigabytes of the file for the peak memory; 0: leave it out")
    parser.add_argument("--data", type=Path, default=SOURCE / "build/bench")
    given = parser.parse_args()
    given.data.mkdir(parents=True, exist_ok=True)
    results = {"tables": measure_tables(given.data, given.codecs.split(","), given.rounds, build_root(given.data)), "wide": measure_wide(given.data, given.rounds)}
    if given.large:
        results["large"] = measure_large(given.data, given.large)
    machine = describe_machine("root", "uproot", "awkward", "numpy")
    command = f"bench/read.py --rounds {given.rounds} --codecs {given.codecs} --large {given.large}"
    write_results("read", machine, command, results)
    text = text_of(results)
    about = f"{machine['cpu']}, {machine['cores']} cores; `{command}`; " + ", ".join(f"{k} {v}" for k, v in machine["packages"].items())
    (RESULTS / "read.md").write_text(f"# Reading ROOT files\n\n{about}\n\n{text}")
    print(text)


if __name__ == "__main__":
    main()
