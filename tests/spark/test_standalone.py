"""The page "on your cluster", tried with a standalone master and two workers as processes of their own: spark-submit as it is written
there, ROOT files and Parquet on an XRootD server, prepare and trainings in the executors."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "access"))
import servers  # noqa: E402
from conftest import BUILD, CLASSES, COMMAND, SAMPLE, SOURCE, load_json, sample_options  # noqa: E402

pyspark = pytest.importorskip("pyspark")
MPIEXEC = shutil.which("mpiexec.mpich") or shutil.which("mpiexec.hydra")
pytestmark = [
    pytest.mark.skipif(
        bool(servers.missing("xrootd", "setpriv"))
        or not MPIEXEC
        or not (BUILD / "lib/libsapwood-xrootd.so").exists()
        or not (BUILD / "spark/sapwood-spark.jar").exists(),
        reason="needs the Spark connector, MPICH, Debian's xrootd-server, and a build with libxrootd-client-dev",
    ),
    pytest.mark.skipif(os.environ.get("SAPWOOD_SOAK") != "1", reason="six JVMs: ./run soak standalone"),
]

HOME = Path(pyspark.__file__).parent
QUICK = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"  # to start, which is most of what six JVMs do here
TRAININGS = {"hlf": {"epochs": 3, "validation_split": 0.2}, "inclusive_gru": {"epochs": 2, "validation_split": 0.2, "options": {"steps_per_epoch": 4}}}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of Spark's daemons and of spark-submit."""
    work = tmp_path_factory.mktemp("standalone")
    return {
        **os.environ,
        "SPARK_HOME": str(HOME),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_WORKER_DIR": str(work),
        "SPARK_LOG_DIR": str(work),
        "SPARK_DAEMON_JAVA_OPTS": QUICK,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.environ.get("PYTHONPATH", str(BUILD / "python")),
        "SAPWOOD_COMMAND": COMMAND,
    }


@pytest.fixture(scope="module")
def master(environment):
    """spark://… of a master with two workers of one core each."""
    port = servers.free_port()
    url = f"spark://127.0.0.1:{port}"
    start = [HOME / "bin/spark-class"]
    deploy = "org.apache.spark.deploy"
    worker = [*start, f"{deploy}.worker.Worker", "--cores", 1, "--memory", "1g", "--host", "127.0.0.1", "--webui-port", 0, url]
    commands = [[*start, f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", port, "--webui-port", 0], worker, worker]
    log = (Path(environment["SPARK_LOG_DIR"]) / "daemons.log").open("w")
    processes = [subprocess.Popen([*map(str, command)], env=environment, stdout=log, stderr=log) for command in commands]
    yield url
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def server():
    folder = servers.Folder()
    served = folder.make("data")
    for name in CLASSES:
        shutil.copy(SAMPLE / f"{name}.root", served)
    server = servers.Xrootd(folder, "storage", served, writable=True).start()
    yield server
    server.kill()
    folder.remove()


def test_submitted_to_a_master_with_two_workers(master, environment, server, sapwood, tmp_path):
    import sapwood as python_sapwood

    job = Path(__file__).with_name("standalone_job.py")
    settings = {
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.log.level": "ERROR",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.executorEnv.PYTHONPATH": environment["PYTHONPATH"],
        "spark.executor.extraJavaOptions": QUICK,
        "spark.driver.extraJavaOptions": QUICK,
        "spark.sql.shuffle.partitions": "2",
    }
    command = [HOME / "bin/spark-submit", "--master", master, "--jars", BUILD / "spark/sapwood-spark.jar"]
    command += ["--driver-memory", "600m", "--executor-memory", "600m"]
    command += [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
    command += [job, server.url()[:-1], SOURCE / "models", json.dumps(TRAININGS)]
    run = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr[-5000:]
    found = json.loads(run.stdout.splitlines()[-1])
    trees = [python_sapwood.open(SAMPLE / f"{name}.root")["Delphes"] for name in CLASSES]
    assert found["events"] == sum(tree.entries for tree in trees)
    assert found["jets"] == sum(int(tree["Jet_size"].array().to_numpy().sum()) for tree in trees)
    assert found["executors"] == 2
    folder = tmp_path / "dataset"
    sapwood("prepare", *sample_options(), "--balance", "no", "--out", folder)
    assert found["selected"] == selected(folder)
    for model, params in TRAININGS.items():
        epochs = mpirun(folder, model, params, tmp_path / model)
        for ours, theirs in (("loss", "loss"), ("val_loss", "validation_loss")):
            assert found["trained"][model][ours] == pytest.approx([epoch[theirs] for epoch in epochs], abs=1e-5)


def selected(folder):
    """Events that pass the selection, by sample, as the command line counts them."""
    steps = {sample["sample"]: sample["steps"] for sample in load_json(folder / "dataset.json")["selection"]}
    return {name: next(step["events"] for step in of if step["step"] == "selected") for name, of in steps.items()}


def mpirun(folder, model, params, out):
    """History of the same training by two ranks without Spark."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in params.get("options", {}).items()]
    command = [MPIEXEC, "-n", "2", COMMAND, "train", "--data", folder, "--model", SOURCE / f"models/{model}.keras", "--out", out]
    run = subprocess.run([*map(str, command), "--epochs", str(params["epochs"]), "--threads", "1", "--quiet", *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return load_json(out / "history.json")
