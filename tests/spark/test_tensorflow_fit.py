"""TensorFlow's workers as tasks of a barrier stage: the losses of Sapwood's own engine, and errors that come back."""

import pytest
from conftest import SOURCE, load_json

pytest.importorskip("tensorflow")


def test_workers_in_executors_train_as_one_process(cluster, dataset, tmp_path):
    import sapwood.spark
    from sapwood._tensorflow import WorkerError

    options = {"data": dataset, "model": SOURCE / "models/hlf.keras", "epochs": 2, "batch": 64, "out": tmp_path / "run"}
    result = sapwood.spark.tensorflow_fit(cluster, num_workers=2, **options)
    expected = sapwood.train(**options | {"out": tmp_path / "expected"}, progress=None)
    for name in ("loss", "validation_loss", "accuracy"):
        assert [e[name] for e in result["history"]] == pytest.approx([e[name] for e in expected["history"]], abs=1e-5)
    assert load_json(tmp_path / "run/history.json") == result["history"]
    with pytest.raises(WorkerError, match="worker 0 of 2 on .*: .*run exists already"):
        sapwood.spark.tensorflow_fit(cluster, num_workers=2, **options)
    with pytest.raises(RuntimeError, match=r"num_workers=3.* room for 2 tasks"):
        sapwood.spark.tensorflow_fit(cluster, num_workers=3, **options)
