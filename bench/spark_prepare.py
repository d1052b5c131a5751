"""The recipe on Spark beside the command line, and beside a Python function an event: events a second.

    bench/spark_prepare.py [--data FOLDER] [--rounds N] [--copies N]

FOLDER holds qcd.root, ttbar.root, wjets.root; each is read --copies times. Everything runs on the same cores: Spark as local[2] with one thread a task,
the command line with two threads. Spark's times are those of its jobs, once a first one has started workers. Peers: SQL with
higher-order functions and a Python function an event (examples/spark/topology_pyspark.py), over the Spark source `root`. Rounds alternate; medians are reported.
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
BUILD = SOURCE / "build/release"
sys.path[:0] = [str(SOURCE / "bench"), str(SOURCE / "examples/spark"), str(BUILD / "python")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(BUILD / "python"), str(SOURCE / "examples/spark")])
from machine import describe_machine, write_results  # noqa: E402

CLASSES = ("qcd", "ttbar", "wjets")


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("SAPWOOD_DATA", SOURCE.parent / "shared/data")) / "delphes-sample"
    parser.add_argument("--data", type=Path, default=default if default.is_dir() else SOURCE / "examples/topology/data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=20)
    given = parser.parse_args()

    import sapwood
    import sapwood.spark
    import topology_pyspark
    from pyspark.sql import functions as F

    paths = {name: str(given.data / f"{name}.root") for name in CLASSES}
    once = sum(sapwood.open(path)["Delphes"].entries for path in paths.values())
    samples = {name: [path] * given.copies for name, path in paths.items()}
    events = once * given.copies
    spark = sapwood.spark.session(master="local[2]", memory="2g", config={"spark.ui.enabled": "false", "spark.log.level": "ERROR"})
    prepared = sapwood.spark.prepare(samples, spark=spark)
    read = spark.read.format("root").option("tree", "Delphes").load(list(paths.values()))
    rows = read.withColumn("file", F.lit("x")).withColumn("entry", F.lit(0))
    prepared.count()  # starts the workers
    table = {}
    for _ in range(given.rounds):
        for name, rate in (
            ("command line: prepare", lambda: command_line(samples, events)),
            ("command line: features in file order (--raw)", lambda: command_line(samples, events, "--raw")),
            ("Spark: prepare, features thrown away", lambda: timed(prepared, events)),
            ("Spark: prepare and write", lambda: spark_write(prepared, events)),
            ("Spark: SQL with higher-order functions, 14 features", lambda: timed(topology_pyspark.high_level_features_sql(rows), once)),
            ("Spark: a Python function an event", lambda: timed(topology_pyspark.features_udf(rows), once)),
        ):
            table.setdefault(name, []).append(rate())
            print(f"{name:55} {table[name][-1]:12.1f}", flush=True)
    medians = {name: {"events_per_second": statistics.median(rates), "all": rates} for name, rates in table.items()}
    write_results("spark_prepare", describe_machine("pyspark", "pyarrow"), " ".join(["bench/spark_prepare.py", *sys.argv[1:]]), medians)
    print(json.dumps(medians, indent=1))
    spark.stop()


if __name__ == "__main__":
    main()
