"""ROOT files in Spark beside the same data as zstd Parquet in Spark's own reader, and beside our Python data source: counting, sums of one column, rows, and ten thousand batches.

    bench/spark_source.py [--rounds N] [--large GB] [--codec NAME] [--folder FOLDER] [--out FOLDER]

Figures are bytes, uncompressed, of the column by the CPU time of the tasks, as Spark counts it (so that other work on the machine takes
little from them), the best of the rounds, which alternate; and wall seconds, which alone tell of the Python source, whose workers' CPU time
Spark does not count. Prints and writes bench/results/spark_source.md.
"""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "build/release/python"))
sys.path.append(str(HERE))
from machine import describe_machine  # noqa: E402

QUERIES = {  # SQL, uncompressed bytes an entry of what it reads, its columns
    "count()": ("count(*)", 0, "n"),
    "sum of a float": ("sum(met)", 4, "met"),
    "sum of an integer of 64 bits": ("sum(event)", 8, "event"),
    "sums of five columns": ("sum(met), sum(met_phi), sum(weight), sum(n), sum(run)", 20, "met,met_phi,weight,n,run"),
    "items of a list": ("sum(size(pt))", 4 + 4 * 4.6667, "pt"),
    "sum over a list": ("sum(aggregate(pt, 0D, (a, x) -> a + x))", 4 + 4 * 4.6667, "pt"),
}
PYTHON = ("Python source", "Python source, columns named")


def make(folder, *what):
    subprocess.run([sys.executable, str(HERE / "read_table.py"), str(folder), *map(str, what)], check=True)


class Clock:
    """Runs a query; returns wall seconds and the CPU seconds of its tasks."""

    def __init__(self, spark):
        self.context, self.runs = spark.sparkContext, 0

    def time(self, frame):
        self.runs += 1
        group = f"bench{self.runs}"
        self.context.setJobGroup(group, group)
        begin = time.perf_counter()
        frame.collect()
        wall = time.perf_counter() - begin
        inside = self.context._jsc.sc()
        inside.listenerBus().waitUntilEmpty()
        tracker, store = self.context.statusTracker(), inside.statusStore()
        stages = {stage for job in tracker.getJobIdsForGroup(group) for stage in tracker.getJobInfo(job).stageIds}
        cpu = 0
        for stage in stages:
            try:
                cpu += store.lastStageAttempt(stage).executorCpuTime()
            except Exception:  # noqa: BLE001 - a stage that was not needed
                continue
        return wall, cpu * 1e-9


def compare(clock, frames, queries, rounds):
    """{query: {source: (wall, cpu)}}, the best of the rounds after one to warm up. frames: functions of a query's columns."""
    out = {name: {} for name in queries}
    for turn in range(rounds + 1):
        for name, (sql, _, columns) in queries.items():
            for source, frame in frames.items():
                wall, cpu = clock.time(frame(columns).selectExpr(*split(sql)))
                if turn:
                    before = out[name].get(source, (wall, cpu))
                    out[name][source] = (min(wall, before[0]), min(cpu, before[1]))
    return out


def split(sql):
    """Expressions at the commas that stand outside of parentheses."""
    depth, parts = 0, [""]
    for letter in sql:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def resident(spark):
    pid = spark._jvm.java.lang.ProcessHandle.current().pid()
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def leak(spark, path):
    """Resident MB after a first pass over about ten thousand batches and after three more, and how many batches."""
    frame = spark.read.format("root").option("batchSize", "100k").load(path).selectExpr("sum(met)", "sum(aggregate(pt, 0D, (a, x) -> a + x))")
    sizes = []
    for _ in range(4):
        frame.collect()
        spark._jvm.System.gc()
        sizes.append(resident(spark))
    return sizes, Path(path).stat().st_size / 100e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=float, default=1.0, help="GB, for the ten thousand batches; 0: not measured")
    parser.add_argument("--codec", default="zstd")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "sapwood-bench-spark")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    make(folder, "table", arguments.codec)

    import sapwood.spark

    config = {"spark.ui.enabled": False, "spark.log.level": "ERROR", "spark.sql.parquet.compression.codec": "zstd", "spark.sql.ansi.enabled": False}
    spark = sapwood.spark.session(master="local[2]", app="bench", memory="2g", config=config)
    read = spark.read.format("root")
    tree = read.load(str(folder / f"table-{arguments.codec}.root"))
    parquet = folder / "table.parquet"
    if not parquet.exists():
        tree.write.parquet(str(parquet))
    sapwood.spark.register(spark, name="root_python")
    python = spark.read.format("root_python")
    path = str(folder / f"table-{arguments.codec}.root")
    whole = {
        "TTree": tree,
        "RNTuple": read.load(str(folder / f"ntuple-{arguments.codec}.root")),
        "Parquet": spark.read.parquet(str(parquet)),
        PYTHON[0]: python.load(path),
    }
    frames = {name: lambda columns, frame=frame: frame for name, frame in whole.items()}
    frames[PYTHON[1]] = functools.cache(lambda columns: python.option("columns", columns).load(path))
    entries = tree.count()
    clock = Clock(spark)
    found = compare(clock, frames, QUERIES, arguments.rounds)

    lines = ["# ROOT files in Spark", "", f"{describe_machine()['cpu']}, {len(os.sched_getaffinity(0))} cores; `bench/spark_source.py --rounds {arguments.rounds} --large {arguments.large}`; Spark {spark.version}, local[2], zstd; {entries:,} entries", ""]
    counted = [source for source in frames if source not in PYTHON]
    lines += ["| MB/s of the tasks' CPU, uncompressed | " + " | ".join(counted) + " | TTree / Parquet (asked: 1) | RNTuple / Parquet |", "|---" * (len(counted) + 3) + "|"]
    for name, (_, width, _) in QUERIES.items():
        if width:
            speed = {source: entries * width / found[name][source][1] / 1e6 for source in counted}
            lines.append(f"| {name} | " + " | ".join(f"{speed[source]:.0f}" for source in counted) + f" | {speed['TTree'] / speed['Parquet']:.2f} | {speed['RNTuple'] / speed['Parquet']:.2f} |")
    lines += ["", "| wall seconds | " + " | ".join(frames) + " |", "|---" * (len(frames) + 1) + "|"]
    for name in QUERIES:
        lines.append(f"| {name} | " + " | ".join(f"{found[name][source][0]:.3f}" for source in frames) + " |")
    if arguments.large:
        make(folder, "large", arguments.large)
        sizes, batches = leak(spark, str(folder / f"large-{arguments.large}.root"))
        lines += ["", f"{batches:,.0f} batches of 100 kB from a file of {arguments.large} GB, four times over: the JVM's resident memory is " + ", ".join(f"{size:.0f}" for size in sizes) + " MB after each."]
    spark.stop()
    text = "\n".join(lines) + "\n"
    print(text)
    (arguments.out / "spark_source.md").write_text(text)


if __name__ == "__main__":
    main()
