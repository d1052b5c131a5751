"""Fixtures: Spark sessions with the built jar. A process has one at a time: conftest.py keeps tests of one kind together."""

import os
import sys
from pathlib import Path

import pytest

# Small, and silent but for errors: the machine is shared. The second compiler takes more than it gives back within a minute.
SMALL = {
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "spark.executor.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
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
    """Spark with two executors of one thread each, as processes of their own, each with one of two GPUs that a script makes up."""
    script = Path(__file__).resolve().parent / "spark/gpus.sh"
    return sessions.get("local-cluster[2,1,2048]", **{
        "spark.executor.memory": "1g",
        "spark.worker.resource.gpu.amount": "1",
        "spark.worker.resource.gpu.discoveryScript": str(script),
        "spark.executor.resource.gpu.amount": "1",
        "spark.task.resource.gpu.amount": "1",
    })
