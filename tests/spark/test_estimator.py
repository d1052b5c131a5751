"""SapwoodEstimator: trainings in Spark beside the same trainings under mpirun, with executors lost, with too few of them."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import BUILD, CLASSES, COMMAND, SAMPLE, SOURCE, sample_options

pytest.importorskip("pyspark")

MPIEXEC = shutil.which("mpiexec.mpich") or shutil.which("mpiexec.hydra")
needs_mpich = pytest.mark.skipif(not MPIEXEC, reason="MPICH is not installed")
os.environ["SAPWOOD_COMMAND"] = COMMAND  # which executors inherit


@pytest.fixture(scope="module")
def folder(sapwood, tmp_path_factory) -> Path:
    """The sample as a dataset, with all selected events."""
    out = tmp_path_factory.mktemp("estimator") / "dataset"
    sapwood("prepare", *sample_options(), "--balance", "no", "--out", out)
    return out


def frame_of(spark):
    """The same events, from ROOT files in this application."""
    from sapwood.spark import prepare

    return prepare({name: SAMPLE / f"{name}.root" for name in CLASSES}, spark=spark)


def estimator(model="hlf", **params):
    from sapwood.spark import SapwoodEstimator

    given = {"validation_split": 0.2, "num_workers": 2, "epochs": 3, "verbose": 0, **params}
    return SapwoodEstimator(model=SOURCE / f"models/{model}.keras", **given)


def mpirun(folder, model, out, *options):
    """History of the training that two ranks do without Spark."""
    command = [COMMAND, "train", "--data", folder, "--model", SOURCE / f"models/{model}.keras", "--epochs", "3", "--threads", "1", "--out", out]
    done = subprocess.run([MPIEXEC, "-n", "2", *command, *options], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "history.json").read_text())


def expect_same(history, model):
    assert len(history) == len(model.history["loss"])
    for ours, epoch in zip(zip(model.history["loss"], model.history["val_loss"], strict=True), history, strict=True):
        assert ours == pytest.approx((epoch["loss"], epoch["validation_loss"]), abs=1e-5)


# ---- Rows on their way, without Spark -----------------------------------------------------------------------------------


def rows_and_batches(folder, size):
    """A dataset's rows as Spark would hand them over, in no order of their own."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sapwood.spark.sharding import Feature, Rows

    about = json.loads((folder / "dataset.json").read_text())
    table = pa.concat_tables([pq.read_table(folder / part["file"]) for part in about["parts"]])
    for feature in about["features"]:
        index, column = table.column_names.index(feature["name"]), table.column(feature["name"])
        table = table.set_column(index, feature["name"], column.cast(pa.list_(pa.float32())))
        feature["constants"] = None if feature["name"] == "hlf" else feature["constants"]
    table = table.take(np.random.default_rng(size).permutation(len(table))).combine_chunks()
    rows = Rows([Feature(**feature) for feature in about["features"]], about["labels"], about["seed"], about["test_fraction"])
    return about, rows, table.to_batches(max_chunksize=size)


def test_rows_find_the_places_that_prepare_gives_them(folder, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sapwood.spark.sharding import cut, describe, join

    texts = []
    for size in (100, 900):
        about, rows, batches = rows_and_batches(folder, size)
        halves = (batches[::2], batches[1::2])  # two tasks cut them
        pieces = pa.Table.from_batches([piece for half in halves for piece in cut(iter(half), rows)]).sort_by("bucket")
        out = tmp_path / str(size)
        texts.append(describe(rows, [join(iter(pieces.to_batches()), rows, out)]))
    assert texts[0] == texts[1]
    made = json.loads(texts[0])
    hlf = next(i for i, feature in enumerate(about["features"]) if feature["name"] == "hlf")
    assert made["features"][hlf]["constants"] == json.loads((folder / "dataset.json").read_text())["features"][hlf]["constants"]
    assert len(made["parts"]) == len(about["parts"])
    for ours, theirs in zip(made["parts"], about["parts"], strict=True):
        assert (tmp_path / "100" / ours["file"]).read_bytes() == (tmp_path / "900" / ours["file"]).read_bytes()
        written = pa.ipc.open_file(tmp_path / "100" / ours["file"]).read_all()
        stored = pq.read_table(folder / theirs["file"])
        assert written["entry"].equals(stored["entry"])
        assert written["file"].cast(pa.string()).equals(stored["file"])


def test_rows_that_cannot_be_trained_on(folder):
    import pyarrow as pa
    from sapwood.spark.sharding import Feature, cut

    _, rows, batches = rows_and_batches(folder, 1000)
    batch = batches[0]

    def changed(name, column):
        return batch.set_column(batch.schema.get_field_index(name), name, column)

    def said(batch, rows=rows):
        with pytest.raises(ValueError) as told:
            list(cut(iter([batch]), rows))
        return str(told.value)

    labels = batch.column("label").to_pylist()
    assert "label 7: the network has 3 classes" in said(changed("label", pa.array([7, *labels[1:]])))
    assert "label 0.5" in said(changed("label", pa.array([0.5, *labels[1:]])))
    assert "'label' has nulls" in said(changed("label", pa.array([None, *labels[1:]])))
    hlf = batch.column("hlf").to_pylist()
    assert "13 numbers in a row, not 14" in said(changed("hlf", pa.array([hlf[0][1:], *hlf[1:]], pa.list_(pa.float32()))))
    hlf[0][3] = float("nan")
    assert "'hlf' has values that are not finite" in said(changed("hlf", pa.array(hlf, pa.list_(pa.float32()))))
    assert Feature("x", 2, True).values == ["0", "1"]


def test_padding_is_trimmed():
    from sapwood.spark.sharding import _trim

    values = np.array([1, 0, 0, 0, 0, 0, 2, 3, 0, 0, 4, 0, 0, 0, 0, 0], np.float32)
    offsets, kept = _trim(np.array([0, 4, 6, 12, 16]), values, 2)  # rows: (1 0) (0 0) | (0 0) | (2 3) (0 0) (4 0) | (0 0) (0 0)
    assert offsets.tolist() == [0, 2, 2, 8, 8]
    assert kept.tolist() == [1, 0, 2, 3, 0, 0, 4, 0]


# ---- In one JVM ------------------------------------------------------------------------------------------------------------


def test_too_few_slots(spark):
    frame = spark.range(1).selectExpr("array_repeat(1f, 14) AS hlf", "0 AS label")
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match=r"num_workers=3.* room for 2 tasks"):
        estimator(num_workers=3).fit(frame)
    assert time.monotonic() - begun < 5


def test_wrong_arguments(spark, tmp_path):
    from sapwood.spark import SapwoodEstimator

    with pytest.raises(TypeError, match="no parameter 'epoch'"):
        estimator(epoch=3)
    with pytest.raises(ValueError, match="'epochs' is not an option"):
        estimator(options={"epochs": 3})
    with pytest.raises(ValueError, match="no model"):
        SapwoodEstimator().fit(spark.range(1))
    frame = spark.range(1).selectExpr("array_repeat(1f, 14) AS hlf", "'qcd' AS label")
    with pytest.raises(ValueError, match="StringIndexer"):
        estimator().fit(frame)
    with pytest.raises(ValueError, match="no column 'jets'; it has hlf, label"):
        estimator(features="jets").fit(frame)


def test_estimator_is_kept(spark, tmp_path):
    from sapwood.spark import SapwoodEstimator

    made = estimator(features={"hlf": "HLF_input"}, options={"clip_norm": 1.5}, learning_rate=0.01)
    made.save(str(tmp_path / "estimator"))
    found = SapwoodEstimator.load(str(tmp_path / "estimator"))
    assert found.uid == made.uid
    assert found._bytes == made._bytes
    assert {param.name: value for param, value in found.extractParamMap().items()} == {
        param.name: value for param, value in made.extractParamMap().items()}  # fmt: skip


@needs_mpich
def test_columns_of_many_kinds(spark, tmp_path):
    """Vectors, one-hot labels, rows without an identity, weights, a column that says who is for validation; a model that Keras compiled and
    callbacks of Keras."""
    import keras
    from pyspark.ml.feature import VectorAssembler
    from pyspark.sql import functions as F
    from sapwood.spark import SapwoodEstimator, SapwoodModel

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,), name="point"), keras.layers.Dense(8, "tanh"), keras.layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.Adam(0.02), "categorical_crossentropy", metrics=["accuracy"])
    frame = spark.range(0, 2000, 1, 3).select(*[F.rand(seed).alias(name) for seed, name in enumerate("xyz")])
    frame = VectorAssembler(inputCols=list("xyz"), outputCol="v").transform(frame)
    frame = frame.withColumn("label", F.expr("if(x + y > z + 0.5, array(0d, 1d), array(1d, 0d))")).withColumn("w", F.lit(1.0)).withColumn("late", F.expr("z > 0.9"))

    class Watch(keras.callbacks.Callback):
        seen = []

        def on_epoch_end(self, epoch, logs=None):
            self.seen.append((epoch, float(np.abs(self.model.get_weights()[0]).sum())))
            self.model.stop_training = epoch == 5

    made = SapwoodEstimator(model=model, features="v", weight="w", validation_col="late", num_workers=1, epochs=50, batch_size=64, verbose=0,
                            callbacks=[Watch(), keras.callbacks.ReduceLROnPlateau(patience=3)])  # fmt: skip
    trained = made.fit(frame)
    assert [epoch for epoch, _ in Watch.seen] == [0, 1, 2, 3, 4, 5]
    assert len({weights for _, weights in Watch.seen}) == 6
    assert len(trained.history["val_loss"]) == 6
    assert trained.history["loss"][-1] < 0.7 * trained.history["loss"][0]
    trained.save(str(tmp_path / "model"))
    found = SapwoodModel.load(str(tmp_path / "model"))
    assert found.history == trained.history
    live = found.to_keras()
    points = np.array(frame.select("x", "y", "z").limit(50).toPandas(), np.float32)
    assert np.abs(live.get_weights()[0]).sum() == pytest.approx(Watch.seen[-1][1], rel=1e-6)
    scored = found.transform(frame)
    assert scored.columns == [*frame.columns, "scores", "prediction"]
    assert scored.schema["v"] == frame.schema["v"]
    rows = scored.limit(50).collect()
    assert np.array([row.scores for row in rows]) == pytest.approx(live.predict(points, verbose=0), abs=1e-6)
    assert [row.prediction for row in rows] == np.argmax([row.scores for row in rows], axis=1).tolist()


# ---- With executors that are processes of their own -----------------------------------------------------------------------


@needs_mpich
@pytest.mark.parametrize("model", ["hlf", "inclusive_gru"])
def test_same_losses_as_mpirun(cluster, folder, tmp_path, model):
    trained = estimator(model).setParams(label_names=list(CLASSES)).fit(frame_of(cluster).repartition(3))
    expect_same(mpirun(folder, model, tmp_path / "run"), trained)
    test = [row.prediction == row.label for row in trained.transform(frame_of(cluster)).select("label", "prediction").collect()]
    assert np.mean(test) > 0.4  # three classes, three epochs
    assert trained.labels == list(CLASSES)
    assert trained.restarts == 0
    assert trained.startup is not None


@needs_mpich
def test_folder_that_all_executors_see(cluster, folder, tmp_path):
    trained = estimator().fit(folder)
    expect_same(mpirun(folder, "hlf", tmp_path / "run"), trained)


@needs_mpich
def test_executors_with_gpus(cluster, folder):
    """Each rank sees the GPU that Spark gave its task, and no other: emulated ones, which the tests of the plug-in are made with."""
    emulated = BUILD / "tests/emulated"
    if not (emulated / "libsapwood-cuda.so").exists():
        pytest.skip("the emulated GPU is not built: ninja cuda_emulated_plugin")
    lines = []
    options = {"epochs": 1, "batch_size": 512, "options": {"steps_per_epoch": 2}}
    made = estimator(device="cuda", environment={"SAPWOOD_PLUGINS": str(emulated)}, **options)
    made._show = lines.append
    trained = made.fit(folder)
    said = next(line for line in lines if "ranks on GPUs" in line)
    assert said.startswith("2 ranks on GPUs, sums through the host: ")
    assert "share a GPU" not in said
    assert trained.history["loss"] == pytest.approx(estimator(**options).fit(folder).history["loss"], abs=1e-4)


def executors():
    """Process numbers of executors that this process's JVM has started, by way of its workers."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if any(b"CoarseGrainedExecutorBackend" in word for word in words) and descends(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def descends(number):
    while number > 1:
        if number == os.getpid():
            return True
        number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def ranks_of(number):
    """Ranks below a process."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and (entry / "environ").exists()
            and b"SAPWOOD_RANK_FOLDER" in (entry / "environ").read_bytes()]  # fmt: skip


@needs_mpich
def test_executor_is_killed(cluster, folder):
    """Training goes on from the last checkpoint and ends where it would have ended; nothing of the lost rank is left running."""
    options = {"epochs": 40, "checkpoint_every": 1.0, "max_restarts": 2}
    frame = frame_of(cluster).cache()
    whole = estimator(**options).fit(frame)
    killed = []

    def kill():
        victims = executors()
        os.kill(victims[0], signal.SIGKILL)
        killed.extend(victims[:1])

    class Lines(list):
        def append(self, line):
            super().append(line)
            if line.startswith("epoch 5/") and not killed:
                threading.Thread(target=kill).start()

    lines = Lines()
    made = estimator(**options)
    made._show = lines.append
    trained = made.fit(frame)
    assert killed
    assert trained.restarts == 1
    assert any("training goes on from its last checkpoint" in line for line in lines)
    assert trained.history["loss"] == pytest.approx(whole.history["loss"], abs=1e-5)
    assert trained.history["val_loss"] == pytest.approx(whole.history["val_loss"], abs=1e-5)
