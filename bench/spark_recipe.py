"""The recipe on Spark beside the command line, beside plain PySpark, and beside the published notebooks: events a second.

    bench/spark_recipe.py [--data FOLDER] [--rounds N] [--copies N] [--slow-rounds N] [--slow-share N]

FOLDER holds qcd.root, ttbar.root, wjets.root; each is read --copies times by what is quick, once by what is not; and what takes minutes, a Python
function an event and the published notebooks, has --slow-rounds rounds, of every --slow-share-th event. Everything runs on the same cores:
Spark as local[2] with one thread a task, the command line with two threads. Spark's times are those of its jobs, once a first one has started
workers. Beside Sapwood, all of them over the Spark source `root`: SQL with higher-order functions and a Python function an event
(examples/spark/topology_pyspark.py), and the notebooks of arXiv:1909.10389 written anew (bench/published_notebooks.py). Rounds alternate;
medians are reported, of ratios too. Prints and writes bench/results/spark_recipe.md and .json.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
BUILD = SOURCE / "build/release"
sys.path[:0] = [str(SOURCE / "bench"), str(SOURCE / "examples/spark"), str(BUILD / "python")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(BUILD / "python"), str(SOURCE / "examples/spark"), str(SOURCE / "bench")])
from delphes import CLASSES  # noqa: E402
from machine import RESULTS, describe_machine, write_results  # noqa: E402


def command_line(samples, events, *options):
    """Events/s of `sapwood prepare`, start-up and writing included."""
    out = tempfile.mkdtemp()
    words = [word for name, paths in samples.items() for path in paths for word in ("--sample", f"{name}={path}")]
    start = time.perf_counter()
    command = [BUILD / "bin/sapwood", "prepare", *words, "--threads", "2", "--quiet", *options, "--out", f"{out}/data"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    return events / seconds


def spark_write(prepared, events):
    import sapwood.spark

    out = tempfile.mkdtemp()
    start = time.perf_counter()
    sapwood.spark.write(prepared, f"{out}/data")
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    return events / seconds


def timed(frame, events):
    """Events/s of computing every column of every row, and throwing them away."""
    start = time.perf_counter()
    frame.write.format("noop").mode("overwrite").save()
    return events / (time.perf_counter() - start)


def notebooks(spark, frames, events):
    """Events/s of the published notebooks, from ROOT files to their training and test set; of the first of them alone."""
    import published_notebooks

    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        published_notebooks.ingest(frames, f"{out}/ingested")
        middle = time.perf_counter()
        published_notebooks.prepare(spark, f"{out}/ingested", f"{out}/prepared")
        return events / (time.perf_counter() - start), events / (middle - start)


COMMAND, RAW = "command line: prepare", "command line: features in file order (--raw)"
FEATURES, WRITE = "Spark: prepare, features thrown away", "Spark: prepare and write"
SQL, PYTHON = "plain PySpark: SQL with higher-order functions, 14 features", "plain PySpark: a Python function an event"
INGESTION, NOTEBOOKS = "published notebooks: ingestion", "published notebooks: ingestion and preparation"
RATIOS = (  # what, beside what, asked
    (WRITE, COMMAND, 0.7),
    (FEATURES, RAW, 0.7),
    (WRITE, NOTEBOOKS, 50),
    (FEATURES, INGESTION, 50),
    (FEATURES, PYTHON, None),
    (FEATURES, SQL, None),
)


def ratio(table, ours, theirs):
    """The median over the rounds that both have."""
    return statistics.median(a / b for a, b in zip(table[ours], table[theirs]))


def write_page(machine, command, table, events):
    lines = ["# The recipe on Spark", "", f"{machine['cpu']}, {machine['cores']} cores; `{command}`; Spark {machine['packages']['pyspark']}, local[2]; {events:,} events", ""]
    lines += ["| | events/s | rounds |", "|---|---|---|"]
    lines += [f"| {name} | {statistics.median(rates):,.0f} | {', '.join(f'{rate:,.0f}' for rate in rates)} |" for name, rates in table.items()]
    lines += ["", "| | ratio | asked |", "|---|---|---|"]
    lines += [f"| {ours} / {theirs} | **{ratio(table, ours, theirs):.2f}** | {asked or ''} |" for ours, theirs, asked in RATIOS if theirs in table]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "spark_recipe.md").write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("SAPWOOD_DATA", SOURCE.parent / "shared/data")) / "delphes-sample"
    parser.add_argument("--data", type=Path, default=default if default.is_dir() else SOURCE / "examples/topology/data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=40)
    parser.add_argument("--slow-rounds", type=int, default=1, help="of what takes minutes; 0: none")
    parser.add_argument("--slow-share", type=int, default=2, help="what takes minutes sees every such event")
    given = parser.parse_args()

    import sapwood
    import sapwood.spark
    import topology_pyspark

    paths = {name: str(given.data / f"{name}.root") for name in CLASSES}
    once = sum(sapwood.open(path)["Delphes"].entries for path in paths.values())
    samples = {name: [path] * given.copies for name, path in paths.items()}
    events = once * given.copies
    spark = sapwood.spark.session(master="local[2]", memory="2g", config={"spark.ui.enabled": "false", "spark.log.level": "ERROR"})
    prepared = sapwood.spark.prepare(samples, spark=spark)
    reader = spark.read.format("root").option("tree", "Delphes").option("identity", "true")
    rows = reader.load(list(paths.values()))
    few = f"entry % {given.slow_share} = 0"
    frames = [reader.load(path).where(few).drop("file", "entry") for path in paths.values()]
    slow = rows.where(few).count()
    prepared.count()  # starts the workers
    table = {}

    def note(name, rate):
        table.setdefault(name, []).append(rate)
        print(f"{name:62} {rate:12.1f}", file=sys.stderr, flush=True)

    for turn in range(given.rounds):
        note(COMMAND, command_line(samples, events))
        note(WRITE, spark_write(prepared, events))
        note(RAW, command_line(samples, events, "--raw"))
        note(FEATURES, timed(prepared, events))
        note(SQL, timed(topology_pyspark.high_level_features_sql(rows), once))
        if turn < given.slow_rounds:
            note(PYTHON, timed(topology_pyspark.features_udf(rows.where(few)), slow))
            whole, ingestion = notebooks(spark, frames, slow)
            note(NOTEBOOKS, whole)
            note(INGESTION, ingestion)
    spark.stop()
    machine, command = describe_machine("pyspark", "pyarrow"), " ".join(["bench/spark_recipe.py", *sys.argv[1:]])
    medians = {name: {"events_per_second": statistics.median(rates), "all": rates} for name, rates in table.items()}
    write_results("spark_recipe", machine, command, medians)
    write_page(machine, command, table, events)


if __name__ == "__main__":
    main()
