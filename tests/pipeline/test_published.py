"""Published data sets as they are: files of scaled values without dataset.json train a network to the same losses as the
dataset that they were made beside, whatever form the columns have; and can be evaluated.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SOURCE, load_json, sample_options

HLF = SOURCE / "models/hlf.keras"


@pytest.fixture(scope="session")
def published(sapwood, tmp_path_factory):
    """Folder by format, without dataset.json."""
    folders = {}
    for name in ("parquet", "tfrecord"):
        folders[name] = tmp_path_factory.mktemp("published") / name
        sapwood("prepare", *sample_options(), "--layout", "published", "--format", name, "--out", folders[name])
        (folders[name] / "dataset.json").unlink()
    return folders


@pytest.fixture(scope="session")
def two_inputs(tmp_path_factory):
    """A small network of both inputs, its weights fixed."""
    import keras

    keras.utils.set_random_seed(1)
    particles, hlf = keras.Input((801, 19), name="particles"), keras.Input((14,), name="hlf")
    x = keras.layers.Concatenate()([keras.layers.Flatten()(particles), hlf])
    path = tmp_path_factory.mktemp("model") / "two.keras"
    keras.Model([particles, hlf], keras.layers.Dense(3, activation="softmax")(x)).save(path)
    return path


def losses(sapwood, tmp_path, data, model, *options):
    """History of two epochs, and the run's folder."""
    run = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
    sapwood("train", "--data", data, "--model", model, "--out", run, "--epochs", 2, "--batch", 64, *options)
    keys = ("loss", "accuracy", "validation_loss", "validation_accuracy")
    return [[epoch[k] for k in keys] for epoch in load_json(run / "history.json")], run


@pytest.mark.parametrize("files", ["parquet", "tfrecord"])
def test_published_files_train_to_the_same_losses(sapwood, dataset, published, two_inputs, tmp_path, files):
    for model in (HLF, two_inputs):
        own, _ = losses(sapwood, tmp_path, dataset, model)
        theirs, run = losses(sapwood, tmp_path, published[files], model)
        assert own == theirs
        assert load_json(run / "dataset.json")["label_column"] == "encoded_label"
    evaluated = []
    for data in (published[files], published[files] / f"testUndersampled_InclusiveClassifier.{files}"):
        sapwood("evaluate", "--run", run, "--data", data, "--out", tmp_path / "evaluation.json")
        evaluated.append(load_json(tmp_path / "evaluation.json"))
    assert evaluated[0]["accuracy"] == pytest.approx(theirs[-1][3], abs=1e-6)
    for key in ("events", "accuracy", "loss", "classes"):
        assert evaluated[0][key] == evaluated[1][key]


def test_one_road_for_both(sapwood, dataset, published, tmp_path):
    """A network trained on the dataset is evaluated on the published files alike; the other way round is refused."""
    _, run = losses(sapwood, tmp_path, dataset, HLF)
    results = []
    for data in (dataset, published["parquet"]):
        sapwood("evaluate", "--run", run, "--data", data, "--out", tmp_path / "evaluation.json")
        results.append(load_json(tmp_path / "evaluation.json"))
    assert results[0]["classes"] == results[1]["classes"]
    _, run = losses(sapwood, tmp_path, published["parquet"], HLF)
    refused = sapwood("evaluate", "--run", run, "--data", dataset, check=False)
    assert refused.returncode != 0 and "nothing is known of how to scale" in refused.stderr
    refused = sapwood("train", "--data", dataset, "--validation-data", dataset, "--model", HLF, "--out", tmp_path / "x",
                      check=False)
    assert refused.returncode != 0 and "leave --validation-data out" in refused.stderr


# ---- Columns in other forms ---------------------------------------------------------------------------------------


def vectors(rows, sparse):
    """Spark's VectorUDT: dense and sparse rows in turns."""
    items = []
    for i, row in enumerate(np.asarray(rows, float)):
        if sparse and i % 2:
            at = np.flatnonzero(row)
            items.append({"type": 0, "size": row.size, "indices": at.tolist(), "values": row[at].tolist()})
        else:
            items.append({"type": 1, "size": None, "indices": None, "values": row.tolist()})
    fields = [("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float64()))]
    return pa.array(items, pa.struct(fields))


def nested(rows):
    return pa.array(np.asarray(rows).reshape(-1, 801, 19).tolist(), pa.list_(pa.list_(pa.float64())))


def fixed(rows):
    rows = np.asarray(rows, np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


FORMS = {
    "flat": (lambda r: pa.array(np.asarray(r).tolist(), pa.large_list(pa.float32())),) * 3,
    "nested": (nested, fixed, lambda r: pa.array(np.asarray(r, np.int64).tolist())),
    "numbers": (nested, fixed, lambda r: pa.array(np.argmax(np.asarray(r), axis=1).astype(np.int8))),
    "vectors": (lambda r: vectors(r, True), lambda r: vectors(r, False), lambda r: vectors(r, True)),
}


@pytest.mark.parametrize("form", FORMS)
def test_columns_in_any_form(sapwood, published, two_inputs, tmp_path, form):
    """One file each, with columns of other names, one of them of the same size as another."""
    data = tmp_path / "data"
    data.mkdir()
    reference, same = {}, {}
    for split in ("train", "test"):
        table = pq.read_table(published["parquet"] / f"{split}Undersampled_InclusiveClassifier.parquet").slice(0, 200)
        particles, hlf, label = (table[c].to_pylist() for c in ("GRU_input", "HLF_input", "encoded_label"))
        reference[split] = data / f"{split}_reference.parquet"
        pq.write_table(table, reference[split])
        same[split] = data / f"{split}_{form}.parquet"
        makers = FORMS[form]
        pq.write_table(pa.table({"event": [str(i) for i in range(len(hlf))], "GRU": makers[0](particles),
                                 "HLF": makers[1](hlf), "old_HLF": makers[1](np.zeros_like(hlf)),
                                 "truth": makers[2](label), "one": np.ones(len(hlf), np.int32)}), same[split])
    expected, _ = losses(sapwood, tmp_path, reference["train"], two_inputs, "--validation-data", reference["test"])
    missing = sapwood("train", "--data", same["train"], "--model", two_inputs, "--out", tmp_path / "x", "--label-column",
                      "truth", check=False)
    assert missing.returncode != 0 and "--inputs hlf=COLUMN" in missing.stderr
    options = ("--inputs", "hlf=HLF", "--label-column", "truth", "--validation-data", same["test"])
    got, run = losses(sapwood, tmp_path, same["train"], two_inputs, *options)
    assert got == expected
    weighted, _ = losses(sapwood, tmp_path, same["train"], two_inputs, *options, "--weight", "one")
    assert weighted == expected
    for pattern in (same["test"], data / f"test_{form[:3]}*.parquet"):
        sapwood("evaluate", "--run", run, "--data", pattern, "--out", tmp_path / "e.json")
        assert load_json(tmp_path / "e.json")["accuracy"] == pytest.approx(got[-1][3], abs=1e-6)


def test_bad_vectors_are_refused(sapwood, two_inputs, tmp_path):
    fields = [("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float64()))]
    good = {"type": 1, "size": None, "indices": None, "values": [0.0] * 14}
    label = {"type": 1, "size": None, "indices": None, "values": [1.0, 0.0, 0.0]}
    bad = {
        "an index outside": {"type": 0, "size": 14, "indices": [14], "values": [1.0]},
        "sizes that do not agree": {"type": 0, "size": 14, "indices": [1, 2], "values": [1.0]},
        "no size": {"type": 0, "size": None, "indices": [1], "values": [1.0]},
        "a null inside": {"type": 1, "size": None, "indices": None, "values": [None] * 14},
        "another length": {"type": 1, "size": None, "indices": None, "values": [0.0] * 13},
        "nothing": None,
    }
    for name, row in bad.items():
        path = tmp_path / "bad.parquet"
        pq.write_table(pa.table({"hlf": pa.array([good] * 5 + [row], pa.struct(fields)),
                                 "encoded_label": pa.array([label] * 6, pa.struct(fields))}), path)
        refused = sapwood("train", "--data", path, "--model", HLF, "--out", tmp_path / "x", check=False)
        assert refused.returncode == 1, name
        assert "bad.parquet" in refused.stderr and '"hlf"' in refused.stderr, refused.stderr
