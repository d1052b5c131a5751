"""train: what its options do, trainings that are killed, two at once, and data that a network does not fit."""

import csv
import fcntl
import json
import os
import shutil
import subprocess
import time
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import COMMAND, SOURCE, load_json, sample_options

MODEL = SOURCE / "models/hlf.keras"


@pytest.fixture()
def train(sapwood, dataset, tmp_path):
    def run(*options, out="run", check=True, epochs=3):
        return sapwood("train", "--data", dataset, "--model", MODEL, "--epochs", epochs, "--out", tmp_path / out, *options, check=check)

    return run


def history(folder):
    return load_json(folder / "history.json")


def test_files_and_callbacks(train, tmp_path):
    train("--csv", tmp_path / "log.csv", "--tensorboard", tmp_path / "tb", "--model-checkpoint", tmp_path / "m{epoch}.keras", "--auc",
          "--early-stopping", 1, "--min-delta", 10, "--reduce-lr", 1, epochs=9)
    epochs = history(tmp_path / "run")
    assert len(epochs) == 2  # nothing gets better by 10
    assert 0.5 < epochs[1]["validation_auc"] < 1 and epochs[0]["learning_rate"] == pytest.approx(0.001)
    rows = list(csv.DictReader(open(tmp_path / "log.csv", newline="")))
    assert [float(row["val_loss"]) for row in rows] == [pytest.approx(e["validation_loss"], rel=1e-15) for e in epochs]
    assert (tmp_path / "m1.keras").exists() and (tmp_path / "m2.keras").exists() and not (tmp_path / "m3.keras").exists()
    assert sorted(path.name for path in (tmp_path / "tb").iterdir()) == ["train", "validation"]


def test_optimizers_schedules_and_losses(train, tmp_path):
    losses = {}
    cases = {
        "adamw": ("--optimizer", "adamw", "--weight-decay", 0.1, "--schedule", "cosine", "--decay-steps", 300, "--warmup-steps", 20),
        "radam": ("--optimizer", "radam", "--global-clip-norm", 1),
        "sgd": ("--optimizer", "sgd", "--momentum", 0.9, "--nesterov", "--learning-rate", 0.05, "--label-smoothing", 0.1),
        "piecewise": ("--schedule", "piecewise", "--learning-rate", 0.01, "--boundaries", "1:0.001,2:0.0001", "--loss", "mse"),
        "weights": ("--class-weight", "qcd=3", "--class-weight", "ttbar=0.5", "--ema", 0.9, "--steps-per-epoch", 5, "--shuffle", "no"),
    }
    for name, options in cases.items():
        train(*options, out=name)
        losses[name] = [epoch["loss"] for epoch in history(tmp_path / name)]
        assert losses[name][-1] < losses[name][0]
    assert len({loss[0] for loss in losses.values()}) == len(cases)
    assert history(tmp_path / "piecewise")[2]["learning_rate"] == 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--loss", "hinge"), 'there is no loss "hinge"'),
        (("--class-weight", "charm=2"), "a label of the dataset"),
        (("--class-weight", "qcd=much"), "a label of the dataset"),
        (("--optimizer", "adagrad"), "adam|adamw|radam|sgd"),
        (("--optimizer", "adam", "--momentum", 0.5), "no momentum"),
        (("--schedule", "cosine"), "0 decay steps"),
        (("--schedule", "piecewise", "--learning-rate", 1), "--boundaries"),
        (("--schedule", "piecewise", "--learning-rate", 1, "--boundaries", "10=2"), "STEP:RATE"),
        (("--clip-norm", 1, "--clip-value", 1), "at most one"),
        (("--early-stopping", 2, "--monitor", "val_los"), 'nothing is called "val_los"'),
        (("--early-stopping", 2, "--validation", "no"), "measured are accuracy, loss, learning_rate"),
        (("--model-checkpoint", "{what}.keras"), 'no "what"'),
        (("--label-smoothing", 2), "from 0 to 1"),
        (("--resume",), "no interrupted training"),
    ],
)
def test_wrong_options(train, tmp_path, options, message):
    result = train(*options, check=False)
    assert result.returncode in (1, 2) and message in result.stderr
    assert not (tmp_path / "run").exists()


def weights(folder):
    with zipfile.ZipFile(folder / "model.keras") as archive:
        return archive.read("model.weights.h5")


def test_killed_training_goes_on(train, dataset, tmp_path):
    arguments = ("--batch", 16, "--early-stopping", 99, "--csv", tmp_path / "log.csv")
    train(*arguments, out="whole", epochs=60)
    whole = (tmp_path / "log.csv").read_bytes()
    command = [COMMAND, "train", "--data", dataset, "--model", MODEL, "--epochs", "60", "--out", tmp_path / "run", *map(str, arguments), "--checkpoint-every", "0.02"]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun, checkpoint = time.time(), tmp_path / "run.partial/checkpoint"
        while process.poll() is None and time.time() < begun + 20 and not checkpoint.exists():
            time.sleep(0.002)
        time.sleep(int.from_bytes(os.urandom(1), "little") / 256 * 0.1)
        process.kill()
        process.wait()
    if not (tmp_path / "run").exists():  # else it was quicker than all kills
        train(*arguments, *(("--resume",) if (tmp_path / "run.partial").exists() else ()), epochs=60)
    assert weights(tmp_path / "whole") == weights(tmp_path / "run")
    assert (tmp_path / "log.csv").read_bytes() == whole
    assert not (tmp_path / "run.partial").exists()


def test_two_trainings_in_one_folder(train, tmp_path):
    (tmp_path / "run.partial").mkdir()
    lock = os.open(tmp_path / "run.partial", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    result = train(check=False)
    assert result.returncode != 0 and "another training is at work there" in result.stderr
    os.close(lock)
    train()


def test_other_conventions_are_refused(sapwood, trained, tmp_path):
    paper = tmp_path / "paper"
    sapwood("prepare", *sample_options(), "--convention", "paper", "--out", paper)
    result = sapwood("evaluate", "--run", trained, "--data", paper, "--out", tmp_path / "e.json", check=False)
    assert result.returncode != 0
    assert 'was made with the convention "paper", but the network was trained on "corrected"' in result.stderr
    result = sapwood("predict", "--run", trained, "--data", paper, "--out", tmp_path / "s.parquet", check=False)
    assert result.returncode != 0 and "convention" in result.stderr


def test_compiled_models_give_the_defaults(sapwood, dataset, tmp_path):
    with zipfile.ZipFile(MODEL) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["compile_config"]["optimizer"]["config"]["learning_rate"] = 0.25
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    for out, options, rate in (("a", (), 0.25), ("b", ("--learning-rate", 0.002), 0.002), ("c", ("--optimizer", "sgd"), 0.01)):
        sapwood("train", "--data", dataset, "--model", tmp_path / "model.keras", "--epochs", 1, "--steps-per-epoch", 1, "--out", tmp_path / out, *options)
        assert history(tmp_path / out)[0]["learning_rate"] == pytest.approx(rate, rel=1e-6)


def test_a_single_sigmoid_tells_two_classes(sapwood, tmp_path):
    import keras

    data, model, run = tmp_path / "data", tmp_path / "one.keras", tmp_path / "run"
    sapwood("prepare", *sample_options(classes=("qcd", "ttbar")), "--out", data)
    keras.utils.set_random_seed(4)
    inputs = keras.Input((14,), name="hlf")
    layer = keras.layers.Dense(1, activation="sigmoid")
    keras.Model(inputs, layer(keras.layers.Dense(20, activation="relu")(inputs))).save(model)
    sapwood("train", "--data", data, "--model", model, "--epochs", 30, "--batch", 16, "--class-weight", "ttbar=2",
            "--out", run)
    last = history(run)[-1]
    sapwood("evaluate", "--run", run, "--data", data)
    found = load_json(run / "evaluation.json")
    assert found["accuracy"] == pytest.approx(last["validation_accuracy"], abs=1e-9)
    assert found["loss"] == pytest.approx(last["validation_loss"], rel=1e-4)  # the scores are a pair of probabilities
    assert found["classes"][0]["auc"] == pytest.approx(found["classes"][1]["auc"]) and found["classes"][1]["auc"] > 0.8
    sapwood("predict", "--run", run, "--data", data, "--out", tmp_path / "scores.parquet")
    scores = pq.read_table(tmp_path / "scores.parquet")
    assert (np.asarray(scores["score_qcd"]) + np.asarray(scores["score_ttbar"])) == pytest.approx(1)
    is_ttbar = np.asarray([name == "ttbar" for name in scores["sample"].to_pylist()])
    assert (np.asarray(scores["score_ttbar"]) > 0.5)[is_ttbar].mean() > 0.7
    sapwood("report", "--run", run, "--data", data, "--out", tmp_path / "report.html")
    refused = sapwood("train", "--data", data, "--model", model, "--loss", "categorical_crossentropy", "--out", tmp_path / "x",
                      check=False)
    assert refused.returncode != 0 and "--loss binary_crossentropy" in refused.stderr


def test_damaged_shard(sapwood, dataset, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(dataset, copy)
    part = sorted((copy / "train").iterdir())[0]
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    result = sapwood("train", "--data", copy, "--model", MODEL, "--out", tmp_path / "run", check=False)
    assert result.returncode != 0 and part.name in result.stderr
    assert not (tmp_path / "run").exists()
