"""Searches for hyperparameters: the published grid, reduced, in parallel, killed and taken up again; samplers, pruning, folds; shared
by processes, ranks and Spark tasks; what is wrong with search files."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import COMMAND, SOURCE

pytest.importorskip("optuna")

import sapwood
from sapwood.tuning.samples import FOLD, draw
from sapwood.tuning.search import SearchError, read_search

HLF = SOURCE / "models/hlf.keras"
GRID = {  # of examples/tuning/search.yaml, two values of each
    "dense.units": [20, 50],
    "dense_1.units": [10, 20],
    "dense_2.units": [5, 10],
    "batch": [64, 128],
    "learning_rate": [0.001, 0.003],
}
TRIALS = 32


@pytest.fixture(scope="module")
def search(dataset):
    """The reduced grid, five folds, all of the sample."""
    return {"data": str(dataset), "model": str(HLF), "parameters": GRID, "train": {"epochs": 3}, "folds": 5}


@pytest.fixture(scope="module")
def file(search, tmp_path_factory):
    """The same as a file; JSON is YAML."""
    path = tmp_path_factory.mktemp("search") / "grid.yaml"
    path.write_text(json.dumps(search))
    return path


def quiet(search, out, **options):
    return sapwood.tune(search, out=out, progress=None, **options)


def values(out):
    """What each trial came to."""
    with open(out / "trials.csv", newline="") as table:
        return [(row["trial"], row["state"], row[next(key for key in row if key.startswith("val_"))]) for row in csv.DictReader(table)]


@pytest.fixture(scope="module")
def whole(sapwood, file, tmp_path_factory):
    """The grid, searched without interruption by two workers."""
    out = tmp_path_factory.mktemp("whole") / "grid"
    return sapwood("tune", file, "--out", out, "--workers", 2), out


def test_the_grid_ends_in_a_table_a_network_and_a_page(whole):
    import keras
    import pyarrow.parquet as pq

    printed, out = whole
    assert "32 of 32 trials" in printed.stderr and "32 trials (0 pruned, 0 failed), 5 folds: best val_loss" in printed.stdout
    table = pq.read_table(out / "trials.parquet").to_pylist()
    assert {tuple(row[name] for name in GRID) for row in table} == {tuple(GRID[n][i >> k & 1] for k, n in enumerate(GRID)) for i in range(TRIALS)}
    assert all(np.isclose(row["val_loss"], np.mean([row[f"fold_{k}"] for k in range(5)])) for row in table)
    best = json.loads((out / "search.json").read_text())["best"]
    assert best["value"] == min(row["val_loss"] for row in table) == table[best["trial"]]["val_loss"]
    model = keras.models.load_model(out / "best.keras")
    assert [layer.units for layer in model.layers[1:4]] == [best["parameters"][f"dense{k}.units"] for k in ("", "_1", "_2")]
    assert np.isclose(float(model.optimizer.learning_rate), best["parameters"]["learning_rate"])
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 6 and all(f"<h2>{part}" in page for part in ("Course", "Importance", "Slices", "All settings", "The best"))


def descend(process, signal_number):
    """Ends the conductor alone; its workers have to notice by themselves."""
    children = [int(pid) for pid in open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()]
    process.send_signal(signal_number)
    process.wait(timeout=60)
    for _ in range(200):
        if not any(os.path.exists(f"/proc/{pid}/task") and b"tuning.worker" in open(f"/proc/{pid}/cmdline", "rb").read() for pid in children):
            return
        time.sleep(0.05)
    raise AssertionError("workers outlived their conductor")


def test_a_killed_search_is_taken_up_again_and_ends_the_same(sapwood, file, whole, tmp_path):
    out, journal = tmp_path / "grid", tmp_path / "grid.partial/journal.log"
    command = [COMMAND, "tune", str(file), "--out", str(out), "--workers", "2"]
    for number, ended in ((signal.SIGKILL, 5), (signal.SIGTERM, 12)):
        # the interpreter itself, so that the signal meets the conductor and not the command in front of it
        arguments = [sys.executable, "-m", "sapwood._tune", *command[2:]]
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not (journal.exists() and journal.read_text().count('"state":1,') >= ended):
            time.sleep(0.01)
        assert process.poll() is None, process.stderr.read()
        descend(process, number)
        assert not out.exists()
    assert process.returncode == 130 and "the same command goes on" in process.stderr.read()
    other = sapwood("tune", file, "--out", out, "--epochs", 4, check=False)
    assert other.returncode == 2 and "interrupted search with other settings (train differs)" in other.stderr
    sapwood("tune", file, "--out", out, "--workers", 2)
    assert values(out) == values(whole[1])
    assert json.loads((out / "search.json").read_text())["best"] == json.loads((whole[1] / "search.json").read_text())["best"]
    again = sapwood("tune", file, "--out", out, check=False)
    assert again.returncode == 2 and "exists already" in again.stderr


@pytest.mark.parametrize("launcher", ["two commands", "mpiexec.mpich"])
def test_processes_share_a_search(launcher, file, whole, tmp_path):
    out = tmp_path / "grid"
    command = [COMMAND, "tune", str(file), "--out", str(out)]
    if launcher == "two commands":
        together = [subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    elif shutil.which(launcher):
        together = [subprocess.Popen([launcher, "-n", "2", *command], stdout=subprocess.PIPE, text=True)]
    else:
        pytest.skip(f"no {launcher}")
    printed = [process.communicate(timeout=120)[0] for process in together]
    assert all(process.returncode == 0 for process in together)
    assert all(text.count("best val_loss") == 1 for text in printed)
    assert values(out) == values(whole[1])


@pytest.mark.parametrize("how", ["tpe", "pruning"])
def test_the_number_of_workers_changes_nothing(how, search, tmp_path):
    space = {"dense.units": {"low": 5, "high": 60}, "dense.activation": ["relu", "tanh"], "optimizer": ["adam", "sgd"],
             "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "fraction": [0.5, 1.0]}  # fmt: skip
    given = {**search, "parameters": space, "folds": 2, "trials": 16, "parallel": 3, "sampler": "tpe"}
    if how == "pruning":
        given.update(sampler="random", pruning={"min_epochs": 1, "factor": 3}, train={"epochs": 9}, metric="val_auc")
    found = [quiet(given, tmp_path / str(workers), workers=workers, final=False) for workers in (1, 3)]
    assert values(tmp_path / "1") == values(tmp_path / "3")
    assert found[0]["best"] == found[1]["best"]
    states = [state for _, state, _ in values(tmp_path / "1")]
    if how == "pruning":
        done = [row["epochs_done"] for row in csv.DictReader(open(tmp_path / "1/trials.csv"))]
        assert states.count("pruned") >= 5 and set(done) <= {"1", "3", "9"}
        assert [d == "9" for d in done] == [state == "complete" for state in states]
    else:
        assert states == ["complete"] * 16


def test_tpe_looks_for_more_where_it_was_good(search, tmp_path):
    """Later trials are better than the random ones that begin."""
    space = {"learning_rate": {"low": 1e-6, "high": 1e-1, "log": True}, "batch": {"low": 16, "high": 256}}
    quiet({**search, "parameters": space, "folds": 1, "trials": 40, "sampler": "tpe", "parallel": 2}, tmp_path / "tpe", final=False)
    losses = [float(value) for _, _, value in values(tmp_path / "tpe")]
    assert np.median(losses[25:]) < np.median(losses[:10])


def test_the_example_in_python(dataset, tmp_path):
    command = [sys.executable, SOURCE / "examples/tuning/search_hlf.py", dataset, tmp_path / "out", "12"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "12 of 12 trials" in printed and "AUC 0." in printed.splitlines()[-1]


def test_folds_come_from_identities_alone():
    identity = np.random.default_rng(1).integers(0, 2**63, 20000, dtype=np.uint64)
    folds = np.floor(draw(identity, 7, FOLD) * 5).astype(int)
    order = np.random.default_rng(2).permutation(len(identity))
    assert np.array_equal(np.floor(draw(identity[order], 7, FOLD) * 5).astype(int), folds[order])
    counts = np.bincount(folds, minlength=5)
    assert len(counts) == 5 and abs(counts - 4000).max() < 300  # five standard deviations
    assert np.mean(np.floor(draw(identity, 8, FOLD) * 5).astype(int) == folds) < 0.25  # another seed, other folds


def test_trials_that_fail_are_told_and_the_search_goes_on(search, tmp_path):
    given = {**search, "folds": 1, "train": {"epochs": 3, "optimizer": "sgd"}, "parameters": {"learning_rate": [0.01, 1e6, 0.1]}}
    found = quiet(given, tmp_path / "out", final=False)
    assert found["failed"] == 1 and found["best"]["trial"] == 2
    row = list(csv.DictReader(open(tmp_path / "out/trials.csv")))[1]
    assert row["state"] == "fail" and "finite" in row["failed"]
    with pytest.raises(SearchError, match="the first 2 trials failed: .*finite"):
        quiet({**given, "parameters": {"learning_rate": [1e6, 1e5]}}, tmp_path / "none", final=False)


def test_a_worker_that_is_killed_costs_nothing_but_its_trial(sapwood, file, tmp_path):
    """Trainings that take a while; one worker is killed in the midst of its own."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sapwood._tune", str(file), "--out", str(out), "--trials", "6", "--epochs", "400", "--final", "no",
               "--workers", "2"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    journal = tmp_path / "out.partial/journal.log"
    while process.poll() is None and not (journal.exists() and journal.read_text().count('"state":0,') >= 2):
        time.sleep(0.01)
    os.kill(int(open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()[0]), signal.SIGKILL)
    printed = process.communicate(timeout=120)
    assert process.returncode == 0 and "a worker ended in trial" in printed[1] and "signal 9" in printed[1]
    assert [state for _, state, _ in values(out)] == ["complete"] * 6


def test_a_builder_makes_the_networks(dataset, tmp_path):
    """The example's own, from its file; and a function."""
    quiet(SOURCE / "examples/tuning/search.yaml", tmp_path / "file", data=dataset, fraction=1.0, folds=2, epochs=1, trials=3, final=False)
    rows = list(csv.DictReader(open(tmp_path / "file/trials.csv")))
    assert len(rows) == 3 and {row["state"] for row in rows} == {"complete"}

    def build(width, depth=1, **other):
        import keras

        if width > 8:
            raise ValueError("too wide")
        inputs = x = keras.Input((14,), name="hlf")
        for _ in range(depth):
            x = keras.layers.Dense(width, other["kind"])(x)
        return keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))

    given = {"data": dataset, "model": build, "parameters": {"width": [4, 8, 16], "depth": [1, 2], "kind": ["relu"]}, "folds": 1}
    found = quiet(given, tmp_path / "function", epochs=2)
    rows = list(csv.DictReader(open(tmp_path / "function/trials.csv")))
    assert [row["weights"] for row in rows[:4]] == [str(14 * w + w + (w * w + w) * (d - 1) + 3 * w + 3) for w in (4, 8) for d in (1, 2)]
    assert [row["failed"] for row in rows[4:]] == ["ValueError: too wide"] * 2 and found["test"]["accuracy"] > 0.3


def test_sequences_are_searched_in_both_forms(dataset, tmp_path):
    """Ragged for a recurrent network; dense for one that looks at all steps, padding included."""
    given = {"data": dataset, "model": SOURCE / "models/inclusive_gru.keras", "parameters": {"gru_1.units": [4, 6]},
             "train": {"epochs": 1}, "folds": 2, "fraction": 0.1}  # fmt: skip
    assert quiet(given, tmp_path / "gru", final=False)["failed"] == 0
    given.update(model=SOURCE / "models/inclusive_transformer.keras", parameters={"layer_normalization.epsilon": [1e-6, 1e-3]}, folds=1)
    assert quiet(given, tmp_path / "transformer", final=False)["failed"] == 0


def test_on_spark_as_on_this_machine(spark, search, whole, tmp_path):
    found = quiet(search, tmp_path / "spark", spark=spark, workers=2, final=False)
    assert values(tmp_path / "spark") == values(whole[1])
    assert found["best"] == json.loads((whole[1] / "search.json").read_text())["best"]


def test_a_pipeline_trains_with_the_best_settings(sapwood, file, search, tmp_path):
    (tmp_path / "p.yaml").write_text(
        f"tune:\n  search: {file}\n  trials: 4\n  folds: 1\n  data: {search['data']}\n"
        f"train:\n  epochs: 2\n  data: {search['data']}\nevaluate:\n  data: {search['data']}\n"
    )
    printed = sapwood("run", tmp_path / "p.yaml").stdout
    assert [line for line in printed.splitlines() if line.startswith("==")] == ["== tune", "== train", "== evaluate"]
    best = json.loads((tmp_path / "out/tuned/search.json").read_text())["best"]
    options = json.loads((tmp_path / "out/run/options.json").read_text())
    assert options["batch"] == str(best["train"]["batch"]) and options["epochs"] == "2" and not (tmp_path / "out/tuned/best.keras").exists()
    assert "nothing changed" in sapwood("run", tmp_path / "p.yaml").stdout.splitlines()[0]


BAD = [
    ("parameters: {dense.units: [3]\n", r":3:1: expected ',' or '}'"),
    ("folds: 0", r":1:1: folds: should be a whole number from 1 to 1000, but is 0"),
    ("fold: 3", r":1:1: fold: no such key; nearest: folds"),
    ("metric: val_los", r":1:1: metric: should be one of val_loss, .* but is 'val_los'; nearest: val_loss"),
    ("parameters:\n  dense.units: 3", r":2:3: parameters: dense.units: should be a list of values, or a mapping"),
    ("parameters:\n  dense.unit: [3]", r":2:3: parameters: dense.unit: .*layer 'dense' has no 'unit'; nearest: units"),
    ("parameters:\n  dence.units: [3]", r":2:3: parameters: dence.units: .*no layer is called 'dence'; nearest: dense"),
    ("parameters:\n  batch_size: [3]", r":2:3: parameters: batch_size: no such parameter of hlf.keras, nor of the training; nearest: batch"),
    ("parameters:\n  optimizer: [adam, sdg]", r":2:21: parameters: optimizer: should be one of adam, .*; nearest: sgd"),
    ("parameters:\n  learning_rate: {low: 1, high: 0.1}", r":2:3: .*low \(1\) should be below high \(0.1\)"),
    ("parameters:\n  learning_rate: {low: 1e-4, hi: 0.1}", r":2:30: .*hi: no such key; nearest: high"),
    ("parameters:\n  batch: [16, -1]", r":2:15: parameters: batch: should be a whole number from 1"),
    ("sampler: grid\nparameters:\n  batch: {low: 16, high: 64}", r":3:3: .*a grid needs lists of values"),
    ("model: nets.py", r":1:1: model: should be FILE.py:FUNCTION"),
    ("model: nowhere.keras", r":1:1: model: .*nowhere.keras: No such file|nowhere.keras: No such file"),
    ("folds: 2\nfolds: 3", r":2:1: folds: this key is given twice"),
    ("train: {epochs: many}", r":1:9: train: epochs: should be a whole number from 1 to 1e\+06, but is 'many'"),
    ("pruning: {factor: 1}", r":1:11: pruning: factor: should be a whole number from 2"),
]


@pytest.mark.parametrize("text, expected", BAD, ids=[text.replace("\n", " ") for text, _ in BAD])
def test_a_wrong_file_is_told_with_its_place(text, expected, tmp_path):
    path = tmp_path / "s.yaml"
    rest = {"data": "d", "model": str(HLF), "parameters": "{batch: [64]}"}
    path.write_text(text + "\n" + "".join(f"{key}: {value}\n" for key, value in rest.items() if f"{key}:" not in text))
    with pytest.raises(SearchError, match=expected):
        read_search(path, {})


def test_what_a_search_lacks(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(f"model: {HLF}\nparameters: {{batch: [64]}}\n")
    with pytest.raises(SearchError, match=r"s.yaml:1:1: data is missing: a dataset, made by `sapwood prepare`"):
        read_search(path, {})
    with pytest.raises(SearchError, match="no/dataset.json: No such file or directory; a search needs a dataset"):
        quiet(path, tmp_path / "out", data="no")
    (tmp_path / "nets.py").write_text("def make(units):\n    pass\n")
    path.write_text("data: d\nmodel: nets.py:build\nparameters: {units: [1]}\n")
    with pytest.raises(SearchError, match="nets.py: no function is called 'build'; there are make"):
        read_search(path, {})


def test_a_torn_journal_is_mended(search, tmp_path):
    """A last line that a full disk left unfinished is cut off, and the trial that it was about is trained again."""
    given = {**search, "folds": 1, "parameters": {"batch": [64, 128]}}
    quiet(given, tmp_path / "a", final=False)
    partial = tmp_path / "b.partial"
    partial.mkdir()
    text = (tmp_path / "a/journal.log").read_bytes()
    (partial / "journal.log").write_bytes(text[: text.rindex(b'"state"') + 4])
    quiet(given, tmp_path / "b", final=False)
    assert values(tmp_path / "a") == values(tmp_path / "b")
