"""TensorFlow's workers as tasks of a barrier stage: the losses of Sapwood's own engine on both networks, and errors that come back."""

import pytest
from conftest import CLASSES, SAMPLE, SOURCE, load_json

pytest.importorskip("tensorflow")


def test_workers_in_executors_train_as_one_process(cluster, small_inclusive, tmp_path):
    import sapwood.spark
    from sapwood._tensorflow import WorkerError

    data = tmp_path / "dataset"
    sapwood.spark.write(sapwood.spark.prepare({name: SAMPLE / f"{name}.root" for name in CLASSES}, spark=cluster), data)
    hlf = {"data": data, "model": SOURCE / "models/hlf.keras", "epochs": 2, "batch": 64}
    inclusive = {"data": data, "model": small_inclusive, "epochs": 2, "batch": 64, "steps_per_epoch": 3}
    for name, options in (("hlf", hlf), ("inclusive", inclusive)):
        result = sapwood.spark.tensorflow_fit(cluster, num_workers=2, out=tmp_path / name, **options)
        expected = sapwood.train(**options, out=tmp_path / f"{name}-expected", progress=None)
        for measured in ("loss", "validation_loss", "accuracy"):
            assert [e[measured] for e in result["history"]] == pytest.approx([e[measured] for e in expected["history"]], abs=1e-4)
        assert load_json(tmp_path / name / "history.json") == result["history"]
    with pytest.raises(WorkerError, match="worker 0 of 2 on .*: .*hlf exists already"):
        sapwood.spark.tensorflow_fit(cluster, num_workers=2, out=tmp_path / "hlf", **hlf)
    with pytest.raises(RuntimeError, match=r"num_workers=3.* room for 2 tasks"):
        sapwood.spark.tensorflow_fit(cluster, num_workers=3, out=tmp_path / "none", **hlf)
