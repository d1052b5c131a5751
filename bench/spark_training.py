"""SapwoodEstimator beside `mpirun -n 2 sapwood train`: seconds from `fit` to the first step, and samples a second.

    python bench/spark_training.py [--rounds 3] [--copies 40]

Both train the same rows, made by `sapwood prepare --balance no` of the sample (copied, under other file names, so that an epoch takes long enough), with two ranks of one thread.
Spark is local-cluster[2,1,2048]: two executors, processes of their own. The first fit of a session finds cold JVMs; the later ones are the rule. Rates are medians over the epochs but the first, the two
in alternating rounds.
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

ROOT = Path(__file__).resolve().parents[1]
BUILD = Path(os.environ.get("SAPWOOD_BUILD", ROOT / "build/release"))
COMMAND = BUILD / "bin/sapwood"
SAMPLE = ROOT / "examples/topology/data"
CLASSES = ("qcd", "ttbar", "wjets")
NETWORKS = {"hlf": 40, "inclusive_gru": 3}  # epochs
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=40)
    given = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        samples = copies(work, given.copies)
        options = [word for sample, files in samples.items() for word in ("--sample", f"{sample}={files}")]
        subprocess.run([COMMAND, "prepare", *options, "--balance", "no", "--out", work / "data", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        spark = start_session()
        from sapwood.spark import SapwoodEstimator, prepare

        frame = prepare(samples, spark=spark).cache()
        frame.count()
        for network, epochs in NETWORKS.items():
            estimator = SapwoodEstimator(model=ROOT / f"models/{network}.keras", num_workers=2, epochs=epochs, validation_split=0.2, verbose=0, threads=1)
            startups, ratios, rates = [], [], {"estimator": [], "mpirun": []}
            rows = sum(part["rows"] for part in json.loads((work / "data/dataset.json").read_text())["parts"] if part["split"] == "train")
            for turn in range(given.rounds):
                model = estimator.fit(frame)
                startups.append(model.startup)
                rates["estimator"].append(rate(rows, model.history["seconds"]))
                rates["mpirun"].append(rate(rows, train_by_mpirun(work / "data", network, epochs, work / f"{network}{turn}")))
                ratios.append(rates["estimator"][-1] / rates["mpirun"][-1])
            results[network] = {"rows": rows, "startup_seconds": startups, "samples_per_second": rates, "ratio": statistics.median(ratios)}
            print(network, json.dumps(results[network]), flush=True)
        spark.stop()
    command = "python bench/spark_training.py " + " ".join(sys.argv[1:])
    bench_machine.write_results("spark_training", bench_machine.describe_machine("pyspark", "pyarrow"), command.strip(), results)


if __name__ == "__main__":
    main()
