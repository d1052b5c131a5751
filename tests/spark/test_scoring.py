"""Scaling constants as a model of Spark ML, and events scored by a trained network, against the command line."""

import numpy as np
import pytest
from conftest import CLASSES, SAMPLE, load_json

SAMPLES = {name: str(SAMPLE / f"{name}.root") for name in CLASSES}
BY = [(name, "ascending") for name in ("sample", "file", "entry")]


@pytest.fixture(scope="module")
def scores(sapwood, trained, tmp_path_factory):
    """What the command line says of all selected events."""
    import pyarrow.parquet

    path = tmp_path_factory.mktemp("scores") / "scores.parquet"
    words = [word for name, file in SAMPLES.items() for word in ("--sample", f"{name}={file}")]
    sapwood("predict", "--run", trained, *words, "--out", path)
    return pyarrow.parquet.read_table(path).sort_by(BY)


def columns(table, names):
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def test_constants_are_those_of_the_dataset(spark, dataset, trained, tmp_path):
    from pyspark.ml import PipelineModel

    import sapwood
    from sapwood.spark import FeatureScaler, FeatureScalerModel, prepare

    prepared = prepare(SAMPLES, spark=spark)
    model = FeatureScaler(seed=1, testFraction=0.2, balance=True).fit(prepared)
    told = {feature["name"]: feature["constants"] for feature in load_json(dataset / "dataset.json")["features"]}
    assert model.constants == told
    assert model.labels == list(CLASSES)
    PipelineModel([model]).save(str(tmp_path / "model"))
    again = PipelineModel.load(str(tmp_path / "model")).stages[0]
    assert isinstance(again, FeatureScalerModel)
    assert again.constants == FeatureScalerModel.of_dataset(trained).constants == told
    table = again.transform(prepared.select("sample", "entry", "hlf", "particles")).limit(40).toArrow()
    hlf, constants = np.array(table["hlf"].to_pylist(), np.float32), told["hlf"]
    expected = (hlf - np.array(constants["shift"])) * np.array(constants["factor"])
    assert np.allclose(table["hlf_scaled"].to_pylist(), expected, rtol=1e-6, atol=1e-6)
    assert set(table["label"].to_pylist()) <= {0, 1, 2}
    rows = [np.array(row, np.float32).reshape(-1, 19) for row in table["particles"].to_pylist()]
    scaled = [np.array(row, np.float32).reshape(-1, 19) for row in table["particles_scaled"].to_pylist()]
    for before, after in zip(rows, scaled, strict=True):
        lepton = (before[0] - told["particles"]["shift"]) * told["particles"]["factor"]
        assert len(before) == len(after) and np.allclose(after[-1], lepton, rtol=1e-5, atol=1e-5)  # it comes last
    assert sapwood.spark.FeatureScaler().fit(prepared.where("sample = 'qcd'")).labels == ["qcd"]


def test_features_are_scored_as_by_predict(spark, trained, scores, tmp_path):
    from sapwood.spark import Scorer, prepare

    Scorer(model=str(trained)).save(str(tmp_path / "scorer"))
    scorer = Scorer.load(str(tmp_path / "scorer"))
    table = scorer.transform(prepare(SAMPLES, spark=spark)).select("sample", "file", "entry", "scores", "prediction").toArrow().sort_by(BY)
    expected = columns(scores, [f"score_{name}" for name in scorer.labels])
    assert table["entry"].equals(scores["entry"])
    assert (np.array(table["scores"].to_pylist(), np.float32) == expected).all()
    assert (table["prediction"].to_numpy() == expected.argmax(axis=1)).all()


def test_events_are_scored_where_the_recipe_selects_them(spark, trained, scores):
    import json

    import pyarrow as pa

    import sapwood
    from sapwood import _core
    from sapwood.spark import Scorer

    names = [wanted["name"] for wanted in json.loads(_core.recipe("topology", None).json())["inputs"]]
    events = sapwood.open(SAMPLES["qcd"])["Delphes"].arrow(names)
    events = events.set_column(names.index("Jet.BTag"), "Jet.BTag", events["Jet.BTag"].cast(pa.list_(pa.int64())))
    frame = spark.createDataFrame(events.append_column("entry", pa.array(range(len(events)))))
    table = Scorer(model=trained / "model.keras").transform(frame).select("entry", "scores", "prediction").toArrow().sort_by("entry")
    mine = scores.filter(pa.compute.equal(scores["sample"], "qcd"))
    expected = dict(zip(mine["entry"].to_pylist(), columns(mine, [f"score_{name}" for name in CLASSES]), strict=True))
    assert 0 < len(expected) < len(events) == len(table)
    for entry, found in zip(table["entry"].to_pylist(), table["scores"].to_pylist(), strict=True):
        assert (found is None) == (entry not in expected)
        assert found is None or (np.array(found, np.float32) == expected[entry]).all()
