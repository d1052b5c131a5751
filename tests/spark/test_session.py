"""The jar, its native library, and the sessions that have it."""

import zipfile
from pathlib import Path

import pytest


def test_jar_holds_all_but_spark(spark):
    import sapwood.spark

    names = zipfile.ZipFile(sapwood.spark.jar()).namelist()
    classes = {name.rsplit("/", 1)[0] for name in names if name.endswith(".class")}
    assert classes <= {"sapwood/spark", "sapwood/hadoop", "org/apache/arrow/c", "org/apache/arrow/c/jni"}
    assert any(Path(name).name == "libsapwood-jni.so" for name in names)
    assert not any(name.endswith((".dll", ".dylib")) for name in names)


def test_library_is_loaded(spark):
    import sapwood

    natives = spark._jvm.sapwood.spark.Natives
    assert natives.version() == sapwood.__version__
    parts = dict(line.split("\t") for line in natives.parts().splitlines())
    assert {"xrootd", "http"} <= set(parts)


def test_jar_that_is_missing_is_named(monkeypatch, tmp_path):
    import sapwood.spark

    monkeypatch.setenv("SAPWOOD_SPARK_JAR", str(tmp_path / "none.jar"))
    with pytest.raises(FileNotFoundError, match="none.jar"):
        sapwood.spark.jar()
