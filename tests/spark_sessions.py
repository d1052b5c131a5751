"""Fixtures: Spark sessions with the built jar. A process has one at a time: conftest.py keeps tests of one kind together."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

# Small, and silent but for errors: the machine is shared.
SMALL = {
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC",
    "spark.executor.extraJavaOptions": "-XX:+UseSerialGC",
}


class Sessions:
    """The one session of this process; another master takes its place."""

    def __init__(self):
        self.running = self.master = None

    def get(self, master, **more):
        if self.master != master:
            self.stop()
            self.running, self.master = start_session(master, **more), master
        return self.running

    def stop(self):
        if self.running:
            self.running.stop()
        self.running = self.master = None


def start_session(master, **more):
    from conftest import BUILD

    pyspark = pytest.importorskip("pyspark")
    if not (BUILD / "spark/sapwood-spark.jar").exists():
        pytest.skip("the Spark connector is not built: it needs a JDK and Maven")
    import sapwood.spark

    os.environ["SPARK_HOME"] = str(Path(pyspark.__file__).parent)  # the workers of a local cluster start from there
    os.environ["PYSPARK_PYTHON"] = sys.executable
    return sapwood.spark.session(master=master, app="tests", config={**SMALL, **more}, memory="1g")


@pytest.fixture(scope="session")
def sessions():
    sessions = Sessions()
    yield sessions
    sessions.stop()


@pytest.fixture
def spark(sessions):
    """Spark inside one JVM, with two threads."""
    return sessions.get("local[2]")


@pytest.fixture
def cluster(sessions):
    """Spark with two executors of one thread each, as processes of their own."""
    return sessions.get("local-cluster[2,1,2048]", **{"spark.executor.memory": "1g"})


def spark_class(name, *arguments):
    """A daemon of Spark's, as its scripts start it."""
    import pyspark

    home = Path(pyspark.__file__).parent
    environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_DAEMON_MEMORY": "256m", "SPARK_NO_DAEMONIZE": "1"}
    command = [home / "bin/spark-class", f"org.apache.spark.deploy.{name}", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def standalone(sessions, tmp_path):
    """Spark on a standalone master with two workers, each a process of its own with one core."""
    pytest.importorskip("pyspark")
    sessions.stop()
    master = spark_class("master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
    started = [master]
    try:
        url = next(found.group() for line in master.stderr if (found := re.search(r"spark://127.0.0.1:\d+", line)))
        threading.Thread(target=master.stderr.read, daemon=True).start()
        for number in range(2):
            worker = spark_class("worker.Worker", "--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--webui-port", "0",
                                 "--work-dir", tmp_path / f"worker{number}", url)  # fmt: skip
            threading.Thread(target=worker.stderr.read, daemon=True).start()
            started.append(worker)
        yield sessions.get(url, **{"spark.executor.memory": "512m"})
    finally:
        sessions.stop()
        for process in started:
            process.terminate()
            process.wait()
