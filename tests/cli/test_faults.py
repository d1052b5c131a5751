"""Bad input, of every kind: a message with file, object and place, an exit status that is not 0, no half-written output."""

import json
import os
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import uproot
from conftest import COMMAND, SAMPLE, SOURCE, sample_options

RECIPE = """
#include <sapwood/recipe.h>
/* Two features of x; events with x < 0 are dropped. */
static sap_status events(const sap_recipe_call *call, sap_error *err) {
    const float *x = call->columns[0].values;
    for (int64_t i = 0; i < call->count; i++) {
        if (x[i] < 0) {
            call->drop(call->sink, i, 0);
            continue;
        }
        float pair[2] = {x[i], 1 / x[i] - 1 / x[i] + x[i] * x[i]};
        sap_status status = call->keep(call->sink, i, &(sap_recipe_value){pair, 2}, err);
        if (status != SAP_OK)
            return status;
    }
    return SAP_OK;
}
const sap_recipe *sap_recipe_define(void) {
    static const char *const names[] = {"x", "square"};
    static const char *const cuts[] = {"x not negative"};
    static const sap_recipe_input inputs[] = {{"x", SAP_FLOAT32, false}};
    static const sap_feature features[] = {{.name = "pair", .value_names = names, .width = 2, .scaling = SAP_SCALING_STANDARD}};
    static const sap_recipe recipe = {.abi = SAP_RECIPE_ABI, .name = "pair", .version = "1", .tree = "t",
                                      .inputs = inputs, .input_count = 1, .features = features, .feature_count = 1,
                                      .cuts = cuts, .cut_count = 1, .events = events};
    return &recipe;
}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "pair.c"
    path.write_text(RECIPE)
    return path


def write_tree(path, **columns):
    with uproot.recreate(path) as file:
        file.mktree("t", {name: values.dtype for name, values in columns.items()})
        if len(next(iter(columns.values()))):
            file["t"].extend(columns)
    return path


def positive(count=200, seed=1):
    return np.random.default_rng(seed).uniform(1, 2, count).astype(np.float32)


@pytest.fixture()
def good(tmp_path):
    return [write_tree(tmp_path / f"{name}.root", x=positive(seed=k)) for k, name in enumerate("ab")]


def prepare_arguments(recipe, files, out, *more):
    samples = [word for name, file in zip("ab", files) for word in ("--sample", f"{name}={file}")]
    return ["prepare", *samples, "--recipe", recipe, "--out", out, *more]


def expect_failure(result, *parts, status=1):
    assert result.returncode == status, f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
    for part in parts:
        assert str(part) in result.stderr, f"{part!r} is not in: {result.stderr}"


def nothing_written(out):
    """Neither the output nor a half of it under its name; a .partial to take up again is allowed."""
    assert not out.exists()


# ---- Input files ------------------------------------------------------------------------------------------------------


def test_missing_file(sapwood, recipe, good, tmp_path):
    result = sapwood(*prepare_arguments(recipe, [good[0], tmp_path / "none.root"], tmp_path / "out"), check=False)
    expect_failure(result, tmp_path / "none.root", "no such file")
    nothing_written(tmp_path / "out")


def test_not_a_root_file(sapwood, recipe, good, tmp_path):
    (tmp_path / "text.root").write_text("This is no ROOT file, but long enough to look at." * 20)
    result = sapwood(*prepare_arguments(recipe, [good[0], tmp_path / "text.root"], tmp_path / "out"), check=False)
    expect_failure(result, "text.root", "ROOT")
    nothing_written(tmp_path / "out")
    expect_failure(sapwood("ls", tmp_path / "text.root", check=False), "text.root")


def test_truncated_file(sapwood, tmp_path):
    whole = (SAMPLE / "qcd.root").read_bytes()
    cut = tmp_path / "qcd.root"
    cut.write_bytes(whole[: len(whole) // 2])
    result = sapwood("prepare", "--sample", f"qcd={cut}", "--sample", f"w={SAMPLE / 'wjets.root'}", "--out", tmp_path / "out", check=False)
    expect_failure(result, "qcd.root")
    nothing_written(tmp_path / "out")


def flip_in_basket(path, place):
    """Flips a bit of the first basket of `x`: at `place` of its stored bytes (0 the first, 1 the last)."""
    with uproot.open(path) as file:
        branch = file["t"]["x"]
        seek, stored = branch.member("fBasketSeek")[0], branch.member("fBasketBytes")[0]
    data = bytearray(path.read_bytes())
    key_length = int.from_bytes(data[seek + 14 : seek + 16], "big")
    data[seek + key_length + int((stored - key_length - 1) * place)] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("place", [0, 0.2, 0.5, 0.9, 1])
@pytest.mark.parametrize("codec", ["ZLIB", "LZ4", "LZMA"])
def test_basket_with_a_flipped_bit(sapwood, recipe, good, tmp_path, codec, place):
    """The codec's checksum, or what it unpacks to, gives it away. (Zstandard as ROOT writes it has no checksum: see docs/reading.md.)"""
    bad = tmp_path / "bad.root"
    with uproot.recreate(bad, compression=getattr(uproot, codec)(4)) as file:
        file.mktree("t", {"x": np.dtype(np.float32)})
        file["t"].extend({"x": np.sort(positive(5000)).round(2)})
    flip_in_basket(bad, place)
    result = sapwood(*prepare_arguments(recipe, [good[0], bad], tmp_path / "out"), check=False)
    expect_failure(result, "bad.root:t/x", "0x")
    nothing_written(tmp_path / "out")


def test_missing_branch_names_the_nearest(sapwood, recipe, good, tmp_path):
    other = write_tree(tmp_path / "other.root", xx=positive(), y=positive())
    result = sapwood(*prepare_arguments(recipe, [good[0], other], tmp_path / "out"), check=False)
    expect_failure(result, "other.root:t", '"x"', "nearest: xx")
    nothing_written(tmp_path / "out")


def test_branch_of_another_type(sapwood, recipe, good, tmp_path):
    other = write_tree(tmp_path / "other.root", x=positive().astype(np.float64))
    result = sapwood(*prepare_arguments(recipe, [good[0], other], tmp_path / "out"), check=False)
    expect_failure(result, "other.root:t", "float64", "float32")
    nothing_written(tmp_path / "out")


def test_missing_tree(sapwood, recipe, good, tmp_path):
    result = sapwood(*prepare_arguments(recipe, good, tmp_path / "out", "--tree", "Event"), check=False)
    expect_failure(result, "a.root", "Event")


def test_empty_tree(sapwood, recipe, good, tmp_path):
    empty = write_tree(tmp_path / "empty.root", x=positive(0))
    result = sapwood(*prepare_arguments(recipe, [good[0], empty], tmp_path / "out"), check=False)
    expect_failure(result, "empty.root:t", "empty")
    nothing_written(tmp_path / "out")


# ---- Selection and features ---------------------------------------------------------------------------------------------


def test_zero_events_selected(sapwood, recipe, tmp_path):
    files = [write_tree(tmp_path / f"{name}.root", x=-positive()) for name in "ab"]
    result = sapwood(*prepare_arguments(recipe, files, tmp_path / "out"), check=False)
    expect_failure(result, "400 read", "x not negative")
    nothing_written(tmp_path / "out")


def test_a_class_without_events(sapwood, recipe, good, tmp_path):
    none = write_tree(tmp_path / "none.root", x=-positive())
    result = sapwood(*prepare_arguments(recipe, [good[0], none], tmp_path / "out"), check=False)
    expect_failure(result, '"b"')
    nothing_written(tmp_path / "out")


def test_nan_in_the_features(sapwood, recipe, good, tmp_path):
    x = positive()
    x[123] = np.inf  # inf/inf in the recipe
    bad = write_tree(tmp_path / "bad.root", x=x)
    result = sapwood(*prepare_arguments(recipe, [good[0], bad], tmp_path / "out"), check=False)
    expect_failure(result, "bad.root", "123", "pair")
    nothing_written(tmp_path / "out")


def test_recipe_that_does_not_compile(sapwood, good, tmp_path):
    broken = tmp_path / "broken.c"
    broken.write_text(RECIPE.replace("return &recipe;", "return recip;"))
    result = sapwood(*prepare_arguments(broken, good, tmp_path / "out"), check=False)
    assert result.returncode != 0
    assert "broken.c" in result.stderr and "recip" in result.stderr


def test_unknown_recipe_and_convention(sapwood, good, tmp_path):
    result = sapwood(*prepare_arguments("topologie", good, tmp_path / "out"), check=False)
    assert result.returncode != 0 and "topology" in result.stderr
    result = sapwood("prepare", *sample_options(), "--convention", "papier", "--out", tmp_path / "out", check=False)
    assert result.returncode != 0 and "corrected" in result.stderr and "paper" in result.stderr


# ---- Outputs ------------------------------------------------------------------------------------------------------------


def limited(megabytes):
    """A limit on the size of files stands for a full disk: the same write fails in the same places."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(megabytes * 1e6), int(megabytes * 1e6)))

    return limit


def test_disk_full_while_preparing_can_be_taken_up_again(sapwood, tmp_path):
    out = tmp_path / "out"
    arguments = ["prepare", *sample_options(), "--out", out]
    result = sapwood(*arguments, check=False, preexec_fn=limited(5))
    expect_failure(result, "out.partial", "File too large")
    nothing_written(out)
    sapwood(*arguments)
    whole = tmp_path / "whole"
    sapwood("prepare", *sample_options(), "--out", whole)
    for path in sorted(whole.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes(), path.name


def test_disk_full_while_training(sapwood, dataset, tmp_path):
    result = sapwood(
        "train", "--data", dataset, "--model", SOURCE / "models/hlf.keras", "--epochs", 2, "--out", tmp_path / "run",
        check=False, preexec_fn=limited(0.01),
    )  # fmt: skip
    expect_failure(result, "File too large")
    nothing_written(tmp_path / "run")


def test_disk_full_while_predicting(sapwood, dataset, trained, tmp_path):
    out = tmp_path / "scores.parquet"
    result = sapwood("predict", "--run", trained, "--data", dataset, "--out", out, check=False, preexec_fn=limited(0.001))
    expect_failure(result, "scores.parquet")
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_not_overwritten(sapwood, recipe, good, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    result = sapwood(*prepare_arguments(recipe, good, tmp_path / "out"), check=False)
    assert result.returncode != 0 and "exists" in result.stderr
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_another_plan_does_not_take_up_a_partial_dataset(sapwood, recipe, good, tmp_path):
    sapwood(*prepare_arguments(recipe, [good[0], tmp_path / "none.root"], tmp_path / "out"), check=False)
    bad = write_tree(tmp_path / "bad.root", x=np.full(10, np.inf, np.float32))
    sapwood(*prepare_arguments(recipe, [good[0], bad], tmp_path / "out"), check=False)
    assert (tmp_path / "out.partial").is_dir()
    result = sapwood(*prepare_arguments(recipe, good, tmp_path / "out"), check=False)
    assert result.returncode != 0 and "out.partial" in result.stderr
    nothing_written(tmp_path / "out")


# ---- Networks -------------------------------------------------------------------------------------------------------------


def save_model(path, *layers, inputs=14, name="hlf"):
    import keras

    source = keras.Input((inputs,), name=name)
    x = source
    for layer in layers:
        x = layer(x)
    keras.Model(source, x).save(path)
    return path


def train(sapwood, dataset, model, out, *more):
    return sapwood("train", "--data", dataset, "--model", model, "--epochs", 1, "--out", out, *more, check=False)


def test_unknown_layer_is_named(sapwood, dataset, tmp_path):
    import keras

    layers = keras.layers
    model = save_model(
        tmp_path / "m.keras", layers.Dense(4), layers.Reshape((2, 2)), layers.UpSampling1D(2, name="the_odd_one"), layers.Flatten(), layers.Dense(3, activation="softmax")
    )
    result = train(sapwood, dataset, model, tmp_path / "run")
    expect_failure(result, "m.keras", "the_odd_one", "UpSampling1D")
    nothing_written(tmp_path / "run")


def test_wrong_input_shape(sapwood, dataset, tmp_path):
    import keras

    model = save_model(tmp_path / "m.keras", keras.layers.Dense(3, activation="softmax"), inputs=13)
    result = train(sapwood, dataset, model, tmp_path / "run")
    expect_failure(result, "m.keras", '"hlf"', "13", "14")
    nothing_written(tmp_path / "run")


def test_input_that_is_no_feature(sapwood, dataset, tmp_path):
    import keras

    model = save_model(tmp_path / "m.keras", keras.layers.Dense(3, activation="softmax"), name="kinematics")
    expect_failure(train(sapwood, dataset, model, tmp_path / "run"), '"kinematics"', "hlf")


def test_wrong_number_of_classes(sapwood, dataset, tmp_path):
    import keras

    model = save_model(tmp_path / "m.keras", keras.layers.Dense(5, activation="softmax"))
    expect_failure(train(sapwood, dataset, model, tmp_path / "run"), "m.keras", "5", "3 classes")


def test_model_file_that_is_none(sapwood, dataset, tmp_path):
    (tmp_path / "m.keras").write_bytes(b"PK\x03\x04 not really")
    expect_failure(train(sapwood, dataset, tmp_path / "m.keras", tmp_path / "run"), "m.keras")
    expect_failure(train(sapwood, dataset, tmp_path / "none.keras", tmp_path / "run"), "none.keras", "No such file")


def test_a_loss_that_is_not_finite(sapwood, dataset, tmp_path):
    out = tmp_path / "run"
    result = train(sapwood, dataset, SOURCE / "models/hlf.keras", out, "--optimizer", "sgd", "--learning-rate", "1e30")
    expect_failure(result, "epoch 1")
    nothing_written(out)


def test_folder_that_is_no_dataset(sapwood, tmp_path):
    result = train(sapwood, tmp_path, SOURCE / "models/hlf.keras", tmp_path / "run")
    expect_failure(result, "dataset.json")


def test_damaged_dataset_json(sapwood, dataset, tmp_path):
    bad = tmp_path / "dataset"
    shutil.copytree(dataset, bad)
    text = (bad / "dataset.json").read_text()
    (bad / "dataset.json").write_text(text[: len(text) // 2])
    result = train(sapwood, bad, SOURCE / "models/hlf.keras", tmp_path / "run")
    expect_failure(result, "dataset.json:")


def test_report_without_evaluation(sapwood, dataset, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "evaluation.json").unlink()
    result = sapwood("report", "--run", run, "--data", dataset, check=False)
    expect_failure(result, "evaluation.json", "sapwood evaluate")
    assert not (run / "report.html").exists()


# ---- Ctrl-C -----------------------------------------------------------------------------------------------------------------


def catches_interrupts(pid):
    """Whether the process has its handler for SIGINT in place."""
    try:
        with open(f"/proc/{pid}/status") as status:
            caught = next(line for line in status if line.startswith("SigCgt"))
    except (FileNotFoundError, StopIteration):
        return False
    return bool(int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1)


def wait_for(process, condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None and not condition():
        time.sleep(0.005)


def interrupt(arguments, until=lambda: True):
    """Starts the command, interrupts it once it listens and `until()` is true, and gives the finished process."""
    process = subprocess.Popen([COMMAND, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(process, lambda: catches_interrupts(process.pid) and until())
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, out, errors)


def many_samples(times):
    return [word for name in ("qcd", "ttbar", "wjets") for _ in range(times) for word in ("--sample", f"{name}={SAMPLE / (name + '.root')}")]


def test_interrupted_prepare_goes_on_where_it_was(sapwood, tmp_path):
    out = tmp_path / "out"
    arguments = ["prepare", *many_samples(8), "--out", out]
    partial = tmp_path / "out.partial"
    result = interrupt(arguments, until=lambda: partial.is_dir() and sum(1 for _ in partial.iterdir()) > 3)
    expect_failure(result, "interrupted", status=130)
    nothing_written(out)
    sapwood(*arguments)
    assert (out / "dataset.json").exists() and not partial.exists()


def test_interrupted_training_goes_on_to_the_same_last_bit(sapwood, dataset, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    arguments = ["train", "--data", dataset, "--model", SOURCE / "models/hlf.keras", "--batch", 16, "--epochs", 400, "--validation", "no", "--out"]
    sapwood(*arguments, whole)
    checkpoint = tmp_path / "run.partial" / "checkpoint"
    result = interrupt([*arguments, out], until=checkpoint.exists)
    expect_failure(result, "interrupted", status=130)
    nothing_written(out)
    sapwood(*arguments, out)
    first, second = (load_weights(folder / "model.keras") for folder in (whole, out))
    assert first.keys() == second.keys() and len(first) > 0
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def load_weights(path):
    import io
    import zipfile

    import h5py

    weights = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: weights.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) else None)
    return weights


@pytest.fixture(scope="module")
def large_raw(sapwood, tmp_path_factory):
    """Enough events that evaluating takes a while."""
    out = tmp_path_factory.mktemp("large") / "raw"
    sapwood("prepare", *many_samples(6), "--raw", "--out", out)
    return out


@pytest.mark.parametrize("stage", ["evaluate", "predict"])
def test_interrupted_scoring_writes_nothing(trained, large_raw, tmp_path, stage):
    out = tmp_path / "out"
    result = interrupt([stage, "--run", trained, "--data", large_raw, "--split", "all", "--out", out])
    expect_failure(result, "interrupted", status=130)
    assert list(tmp_path.iterdir()) == []


def start_report(run, data, out):
    """In a process group of its own, which a terminal's Ctrl-C would go to."""
    command = [COMMAND, "report", "--run", str(run), "--data", str(data), "--out", str(out)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_report_writes_nothing(dataset, trained, tmp_path, number):
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(trained, run)
    out.mkdir()
    (run / "options.json").unlink()
    os.mkfifo(run / "options.json")  # the report waits for it
    process = start_report(run, dataset, out / "report.html")
    ends = []

    def report_reads():
        try:
            ends.append(os.open(run / "options.json", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody has opened it yet
            return False
        return True

    wait_for(process, report_reads)
    assert ends, process.communicate()[1]
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as the terminal does
    else:
        process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    os.close(ends[0])
    assert process.returncode == 130 and "interrupted" in errors, errors
    assert list(out.iterdir()) == []


def test_report_interrupted_before_it_begins_writes_nothing(dataset, trained, tmp_path):
    """While the command is about to start Python, too, an interruption is not lost."""
    for wait in range(0, 40, 4):
        process = start_report(trained, dataset, tmp_path / "report.html")
        wait_for(process, lambda: catches_interrupts(process.pid))  # noqa: B023
        time.sleep(wait / 1000)
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 130 and "interrupted" in errors, (wait, errors)
        assert list(tmp_path.iterdir()) == []


def test_interrupted_pipeline_stops_and_goes_on(sapwood, tmp_path):
    samples = {name: [str(SAMPLE / f"{name}.root")] * 6 for name in ("qcd", "ttbar", "wjets")}
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(json.dumps({"folder": "out", "prepare": {"sample": samples}}))  # JSON is YAML
    partial = tmp_path / "out" / "dataset.partial"
    result = interrupt(["run", pipeline], until=lambda: partial.is_dir() and sum(1 for _ in partial.iterdir()) > 3)
    expect_failure(result, "interrupted", status=130)
    nothing_written(tmp_path / "out" / "dataset")
    sapwood("run", pipeline)
    assert (tmp_path / "out" / "dataset" / "dataset.json").exists()
