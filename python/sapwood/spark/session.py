"""A SparkSession with Sapwood's jar, and settings that suit it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import python_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def jar() -> Path:
    """The connector's jar: $SAPWOOD_SPARK_JAR, else the one of the installed package, else that of the build folder."""
    named = os.environ.get("SAPWOOD_SPARK_JAR")
    # Not resolved: in a build folder the files of the package are links into the sources, the package itself is not.
    package = Path(__file__).absolute().parent
    places = [Path(named)] if named else [package / "sapwood-spark.jar", package.parents[2] / "spark/sapwood-spark.jar"]
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(
        f"Sapwood's jar for Spark is not at {' or '.join(map(str, places))}: build it (`ninja spark`, with a JDK and Maven), or name it in SAPWOOD_SPARK_JAR"
    )


# Barrier stages (ranks of a training) fail within seconds where there are too few slots; Spark's own default waits for 10 minutes.
_SETTINGS = {
    "spark.ui.showConsoleProgress": "false",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "3",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
}


def session(
    master: str | None = None,
    app: str = "sapwood",
    config: Mapping[str, Any] | None = None,
    *,
    memory: str | None = None,
) -> SparkSession:
    """A SparkSession in which `spark.read.format("root")` works; the running one, if there is one.

    master: as Spark spells it, "local[*]" for this machine; None: what the environment (spark-submit) says, else this machine.
    app: the name under which Spark shows it.
    config: further settings of Spark; they win over those made here.
    memory: of the driver, as "4g"; None: Spark's default. It counts only where this starts the driver's JVM.
    """
    from pyspark.sql import SparkSession

    # Said with every result that becomes a pandas frame; what is made here is the same with either.
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = dict(_SETTINGS)
    # Executors on machines that see the same folders find this package there, also when it is not installed.
    settings["spark.executorEnv.PYTHONPATH"] = python_path()
    if memory:
        settings["spark.driver.memory"] = memory
    settings.update({key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in (config or {}).items()})
    jars = [name for name in settings.get("spark.jars", "").split(",") if name]
    settings["spark.jars"] = ",".join([*jars, str(jar())])
    builder = SparkSession.builder.appName(app)
    if master or not os.environ.get("PYSPARK_GATEWAY_PORT"):  # not under spark-submit, which has its own
        builder = builder.master(master or "local[*]")
    for key, value in settings.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()
