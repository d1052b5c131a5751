"""The recipe in plain PySpark, as SQL and as a Python function, against the C library: the same events and numbers."""

import json
import sys

import numpy as np
import pytest
from conftest import SAMPLE, SOURCE

EVENTS = 60
COLLECTIONS = ("EFlowTrack", "EFlowPhoton", "EFlowNeutralHadron", "Electron", "MuonTight", "Jet", "MissingET")


@pytest.fixture
def events(spark):
    """Events with collections as array<struct>, of a table of Arrow."""
    import pyarrow as pa

    import sapwood
    from sapwood import _core

    names = [wanted["name"] for wanted in json.loads(_core.recipe("topology", None).json())["inputs"]]
    table = sapwood.open(str(SAMPLE / "ttbar.root"))["Delphes"].arrow(names, 0, EVENTS).combine_chunks()
    columns = {}
    for collection in COLLECTIONS:
        members = {name.partition(".")[2]: table[name].chunk(0) for name in names if name.startswith(collection + ".")}
        values = [array.flatten().cast(pa.int64()) if array.type.value_type == pa.uint32() else array.flatten() for array in members.values()]
        offsets = next(iter(members.values())).offsets
        columns[collection] = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(values, list(members)))
    columns |= {"file": pa.array(["ttbar.root"] * EVENTS), "entry": pa.array(range(EVENTS), pa.int64())}
    return spark.createDataFrame(pa.table(columns))


def test_all_three_agree(spark, events, monkeypatch):
    from sapwood.spark import prepare

    monkeypatch.syspath_prepend(SOURCE / "examples/spark")
    import topology_pyspark
    from pyspark import cloudpickle

    cloudpickle.register_pickle_by_value(topology_pyspark)  # the executors do not have this folder
    native = prepare({"ttbar": events}).toArrow().sort_by("entry")
    sql = topology_pyspark.high_level_features_sql(events).toArrow().sort_by("entry")
    python = topology_pyspark.features_udf(events).toArrow().sort_by("entry")
    assert 0 < len(native) < EVENTS
    expected = np.array(native["hlf"].to_pylist())
    for other in (sql, python):
        assert other["entry"].to_pylist() == native["entry"].to_pylist()
        assert np.allclose(np.array(other["hlf"].to_pylist()), expected, rtol=2e-6, atol=2e-6)
    for mine, his in zip(native["particles"].to_pylist(), python["particles"].to_pylist(), strict=True):
        assert len(mine) == len(his) and np.allclose(mine, his, rtol=2e-6, atol=2e-6)
    sys.modules.pop("topology_pyspark")


class Row:
    """As Spark gives one to a Python function."""

    def __init__(self, fields):
        self.__dict__.update(fields)

    def __getitem__(self, name):
        return self.__dict__[name]


def rows_of_events(names, table):
    """Events whose collections are lists of rows."""
    for event in table.to_pylist():
        fields = {}
        for collection in COLLECTIONS:
            members = {name.partition(".")[2]: event[name] for name in names if name.startswith(collection + ".")}
            fields[collection] = [Row(dict(zip(members, values, strict=True))) for values in zip(*members.values(), strict=True)]
        yield Row(fields | {"Electron_size": len(fields["Electron"]), "MuonTight_size": len(fields["MuonTight"])})


def test_the_published_notebooks(monkeypatch):
    """What the benchmark of the recipe on Spark has beside it computes the convention "paper"."""
    import sapwood
    from sapwood import _core
    from sapwood.spark.tasks import record_batch

    monkeypatch.syspath_prepend(SOURCE / "bench")
    import published_notebooks

    recipe, path = _core.recipe("topology", "paper"), str(SAMPLE / "ttbar.root")
    names = [wanted["name"] for wanted in json.loads(recipe.json())["inputs"]]
    native = {row["entry"]: row for row in record_batch(recipe.open(path, None, 0, 1).next()).slice(0, EVENTS).to_pylist()}
    selected = 0
    for entry, event in enumerate(rows_of_events(names, sapwood.open(path)["Delphes"].arrow(names, 0, EVENTS // 3))):
        found = published_notebooks.event_features(event)
        assert (found is not None) == (entry in native)
        if found is None:
            continue
        selected += 1
        assert np.allclose(found[0], native[entry]["hlf"], rtol=2e-6, atol=2e-6)
        assert len(found[1]) == 801
        filled = np.array([row for row in found[1] if any(row)])
        assert np.allclose(filled, np.reshape(native[entry]["particles"], (-1, 19)), rtol=2e-6, atol=2e-5)
    assert 0 < selected < EVENTS // 3
    sys.modules.pop("published_notebooks")
