"""sapwood.tf.dataset: the events that the part files hold, scaled, in the order of Sapwood's own engine, as tf.data wants them."""

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import SOURCE, load_json

tf = pytest.importorskip("tensorflow")
import sapwood.tf  # noqa: E402 (needs TensorFlow)

BATCH = 100


def stored(folder, split):
    """Scaled features, padded, and labels, in stored order, by way of pyarrow."""
    about = load_json(folder / "dataset.json")
    tables = [pq.read_table(folder / part["file"]) for part in about["parts"] if part["split"] == split]
    arrays = {}
    for feature in about["features"]:
        constants, width = feature["constants"], feature["width"]
        rows = [np.asarray(row.as_py(), np.float32).reshape(-1, width) for table in tables for row in table[feature["name"]]]
        assert feature["scaling"] in ("minmax", "standard")
        shift, factor = (np.asarray(constants[name]) for name in ("shift", "factor"))
        rows = [(row - shift) * factor for row in rows]
        if feature["sequence"]:
            rows = [np.pad(row, ((0, feature["pad_rows"] - len(row)), (0, 0))) for row in rows]
        arrays[feature["name"]] = np.stack(rows) if feature["sequence"] else np.concatenate(rows)
    return arrays, np.concatenate([table["label"].to_numpy() for table in tables])


@pytest.fixture(scope="module")
def train(dataset):
    return stored(dataset, "train")


def collect(data):
    """All batches as one."""
    batches = list(data)
    inputs = {name: np.concatenate([x[name].numpy() for x, *_ in batches]) for name in batches[0][0]}
    return inputs, *(np.concatenate([batch[i].numpy() for batch in batches]) for i in range(1, len(batches[0])))


def test_holds_what_the_part_files_hold_in_stored_order(dataset, train):
    data = sapwood.tf.dataset(dataset, batch=BATCH, shuffle=False)
    inputs, labels = collect(data)
    expected, label = train
    assert data.cardinality().numpy() == -(-len(label) // BATCH) and set(inputs) == set(expected)
    for name in expected:
        np.testing.assert_allclose(inputs[name], expected[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels, np.eye(3)[label])
    (spec, labels) = data.element_spec
    assert spec["hlf"].shape.as_list() == [None, 14] and spec["particles"].shape.as_list() == [None, 801, 19]
    assert labels.shape.as_list() == [None, 3]


def test_each_pass_is_an_epoch_in_the_order_of_the_engine(dataset, train):
    """The order of an epoch is that of `sapwood.keras.fit` and `train`, which the feed's own order tells."""
    from sapwood import _core

    data = sapwood.tf.dataset(dataset, batch=BATCH, seed=7, features=["hlf"], one_hot=False)
    first, second = collect(data), collect(data)
    feed = _core.feed_open(str(dataset), "train", ["hlf"], None, False, 0, 0, 1, None)
    for epoch, (inputs, labels) in enumerate((first, second), start=1):
        feed.epoch(7, epoch)
        _, _, ((values, _, _),), label, _ = feed.next(1, len(train[1]))
        np.testing.assert_array_equal(inputs["hlf"], np.frombuffer(values, np.float32).reshape(-1, 14))
        np.testing.assert_array_equal(labels, np.frombuffer(label, np.int32))
        assert sorted(map(tuple, inputs["hlf"].round(4))) == sorted(map(tuple, train[0]["hlf"].astype(np.float32).round(4)))
    assert not np.array_equal(first[0]["hlf"], second[0]["hlf"])
    again, _ = collect(sapwood.tf.dataset(dataset, batch=33, seed=7, features=["hlf"], epoch=2))
    np.testing.assert_array_equal(again["hlf"], second[0]["hlf"])  # whatever the batches


def test_ragged_sequences_are_the_padded_ones(dataset):
    padded = sapwood.tf.dataset(dataset, "test", batch=50)
    ragged = sapwood.tf.dataset(dataset, "test", batch=50, ragged=True, one_hot=False)
    for (x, y), (u, v) in zip(padded, ragged, strict=True):
        assert isinstance(u["particles"], tf.RaggedTensor)
        np.testing.assert_array_equal(u["particles"].to_tensor(shape=(None, 801, 19)), x["particles"])
        np.testing.assert_array_equal(u["hlf"], x["hlf"])
        np.testing.assert_array_equal(v, np.argmax(y, 1))


@pytest.mark.parametrize("ragged", [False, True])
def test_shards_are_shares_of_each_batch(dataset, ragged):
    def batches(shard, **more):
        data = sapwood.tf.dataset(dataset, "test", batch=70, ragged=ragged, shard=shard, **more)
        return [[(*features.tolist(), *particles, label.argmax()) for features, particles, label in
                 zip(x["hlf"].numpy(), _sums(x["particles"]), y.numpy())] for x, y in data]

    shares = [batches((rank, 3)) for rank in range(3)]
    for whole, *parts in zip(batches((0, 1)), *shares, strict=True):
        assert sorted(event for part in parts for event in part) == sorted(whole)
        assert max(map(len, parts)) < 0.6 * len(whole)  # near a third each
        for part in parts:  # in the order of the batch
            assert part == [event for event in whole if event in part]
    own = [batches((rank, 3), shuffle=False) for rank in range(3)]
    stored = [event for batch in batches((0, 1), shuffle=False) for event in batch]
    assert [event for mine in own for batch in mine for event in batch] == stored
    assert all(len(batch) == 70 for mine in own for batch in mine[:-1])


def _sums(particles):
    """A number or two of each event that tell whether its particles are right."""
    steps = particles.to_tensor(shape=(None, 801, 19)) if isinstance(particles, tf.RaggedTensor) else particles
    weights = np.arange(1, 802)[:, None] * np.arange(1, 20)
    return [(float(event.sum()), float((event * weights).sum())) for event in steps.numpy().astype(np.float64)]


def test_keras_fits_it_and_ends_where_sapwood_does(dataset, tmp_path):
    import sapwood

    model = keras.models.load_model(SOURCE / "models/hlf.keras")
    history = model.fit(sapwood.tf.dataset(dataset, features=["hlf"], seed=5), epochs=3, verbose=0,
                        validation_data=sapwood.tf.dataset(dataset, "test", features=["hlf"], shuffle=False)).history
    ours = sapwood.train(data=dataset, model=SOURCE / "models/hlf.keras", seed=5, epochs=3, out=tmp_path / "run", progress=None)["history"]
    assert history["loss"] == pytest.approx([entry["loss"] for entry in ours], abs=1e-4)
    assert history["val_loss"] == pytest.approx([entry["validation_loss"] for entry in ours], abs=1e-4)


def test_what_is_not_there_is_named(dataset, tmp_path):
    with pytest.raises(KeyError, match="'jets'.*'hlf', 'particles'"):
        sapwood.tf.dataset(dataset, features=["jets"])
    with pytest.raises(ValueError, match="split 'validation'"):
        sapwood.tf.dataset(dataset, "validation")
    with pytest.raises(ValueError, match="shard"):
        sapwood.tf.dataset(dataset, shard=(2, 2))
    with pytest.raises(FileNotFoundError, match="dataset.json"):
        sapwood.tf.dataset(tmp_path)
    data = iter(sapwood.tf.dataset(dataset, batch=1, features=["hlf"]).repeat())
    assert next(data)[0]["hlf"].shape == (1, 14)
