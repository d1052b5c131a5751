"""SapwoodEstimator beside `mpirun -n 2 sapwood train`: seconds from `fit` to the first step, and samples a second.

    python bench/spark_estimator.py [--rounds 3] [--networks hlf,inclusive_gru]

Both train the same rows, made by `sapwood prepare --balance no` of the sample (copied, under other file names, so that an epoch takes long
enough: NETWORKS says how often), with two ranks of one thread. Spark is local-cluster[2,1,2048]: two executors, processes of their own; its
DataFrame is made of the same ROOT files, of the columns that the network takes, and cached. The first fit of a session finds cold JVMs and
says so in the table; the later ones are the rule. Rates are medians over the epochs but the first, the two in alternating rounds. Prints and
writes bench/results/spark_estimator.md and .json.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import machine as bench_machine
from delphes import CLASSES, ROOT

BUILD = Path(os.environ.get("SAPWOOD_BUILD", ROOT / "build/release"))
COMMAND = BUILD / "bin/sapwood"
SAMPLE = ROOT / "examples/topology/data"
NETWORKS = {"hlf": (64, 40, ["hlf"]), "inclusive_gru": (2, 3, ["hlf", "particles"])}  # copies of the sample, epochs, columns
MPIEXEC = shutil.which("mpiexec.mpich") or shutil.which("mpiexec.hydra") or "mpiexec"


def copies(folder, count):
    """--sample options for so many copies of the sample's files."""
    for name in CLASSES:
        for number in range(count):
            os.symlink(SAMPLE / f"{name}.root", folder / f"{name}{number}.root")
    return {name: f"{folder}/{name}*.root" for name in CLASSES}


def rate(rows, seconds):
    return statistics.median(rows / s for s in seconds[1:])


def train_by_mpirun(data, network, epochs, out):
    subprocess.run([MPIEXEC, "-n", "2", COMMAND, "train", "--data", data, "--model", ROOT / f"models/{network}.keras", "--epochs", str(epochs),
                    "--threads", "1", "--quiet", "--out", out], check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    return [epoch["seconds"] for epoch in json.loads((out / "history.json").read_text())]


def start_session():
    import pyspark

    sys.path.insert(0, str(BUILD / "python"))
    os.environ.update(SPARK_HOME=str(Path(pyspark.__file__).parent), PYSPARK_PYTHON=sys.executable, SAPWOOD_COMMAND=str(COMMAND))
    import sapwood.spark

    config = {"spark.executor.memory": "1g", "spark.ui.enabled": "false", "spark.log.level": "ERROR", "spark.sql.shuffle.partitions": "2"}
    return sapwood.spark.session(master="local-cluster[2,1,2048]", app="bench", config=config, memory="1g")


def write_page(machine, command, results):
    lines = ["# Training inside Spark", "", f"{machine['cpu']}, {machine['cores']} cores; `{command}`; two ranks of one thread, batches of 128, Spark "
             f"{machine['packages']['pyspark']}, local-cluster[2,1,2048]", "",
             "| network | rows | from `fit` to the first step, s: cold | warm (asked: under 5) | Estimator, samples/s | mpirun -n 2 | ratio (asked: 0.9) |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for network, found in results.items():
        cold, *warm = found["startup_seconds"]
        rates = {name: statistics.median(values) for name, values in found["samples_per_second"].items()}
        lines.append(f"| {network} | {found['rows']:,} | {cold:.1f} | {', '.join(f'{seconds:.1f}' for seconds in warm)} | {rates['estimator']:,.0f} | "
                     f"{rates['mpirun']:,.0f} | **{found['ratio']:.2f}** |")  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    (bench_machine.RESULTS / "spark_estimator.md").write_text(text)


def compare(spark, network, rounds, work):
    from sapwood.spark import SapwoodEstimator, prepare

    copied, epochs, columns = NETWORKS[network]
    samples = copies(work, copied)
    options = [word for sample, files in samples.items() for word in ("--sample", f"{sample}={files}")]
    subprocess.run([COMMAND, "prepare", *options, "--balance", "no", "--out", work / "data", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    rows = sum(part["rows"] for part in json.loads((work / "data/dataset.json").read_text())["parts"] if part["split"] == "train")
    frame = prepare(samples, spark=spark).select("sample", "file", "entry", "label", *columns).cache()
    frame.count()
    estimator = SapwoodEstimator(model=ROOT / f"models/{network}.keras", num_workers=2, epochs=epochs, validation_split=0.2, verbose=0, threads=1)
    startups, ratios, rates = [], [], {"estimator": [], "mpirun": []}
    for turn in range(rounds):
        model = estimator.fit(frame)
        startups.append(model.startup)
        rates["estimator"].append(rate(rows, model.history["seconds"]))
        rates["mpirun"].append(rate(rows, train_by_mpirun(work / "data", network, epochs, work / f"{network}{turn}")))
        ratios.append(rates["estimator"][-1] / rates["mpirun"][-1])
        print(f"{network}: first step after {startups[-1]:.2f} s; {rates['estimator'][-1]:,.0f} samples/s, mpirun {rates['mpirun'][-1]:,.0f}",
              file=sys.stderr, flush=True)  # fmt: skip
    frame.unpersist()
    return {"rows": rows, "startup_seconds": startups, "samples_per_second": rates, "ratio": statistics.median(ratios)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    given = parser.parse_args()
    results = {}
    spark = start_session()
    for network in given.networks.split(","):
        with tempfile.TemporaryDirectory() as work:
            results[network] = compare(spark, network, given.rounds, Path(work))
    spark.stop()
    command = " ".join(["bench/spark_estimator.py", *sys.argv[1:]])
    machine = bench_machine.describe_machine("pyspark", "pyarrow")
    bench_machine.write_results("spark_estimator", machine, command, results)
    write_page(machine, command, results)


if __name__ == "__main__":
    main()
