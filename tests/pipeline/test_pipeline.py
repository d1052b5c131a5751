"""Pipeline files: stages in order, skipped while nothing changed, run again when something did."""

import json
import os
import shutil
import subprocess
import time

import pytest
from conftest import COMMAND, SAMPLE, SOURCE, load_json

TEXT = """
folder: results
prepare:
  sample:
    qcd: data/qcd.root
    ttbar: [data/ttbar.root]
    wjets: data/wj*.root
  seed: 3
train:
  model: hlf.keras
  epochs: 2
evaluate:
report:
"""


@pytest.fixture()
def place(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("qcd", "ttbar", "wjets"):
        shutil.copy2(SAMPLE / f"{name}.root", tmp_path / "data")
    shutil.copy2(SOURCE / "models/hlf.keras", tmp_path)
    (tmp_path / "p.yaml").write_text(TEXT)
    return tmp_path


def stages(result):
    """What was run and what was kept, from the output."""
    lines = [line[3:] for line in result.stdout.splitlines() if line.startswith("== ")]
    return {line.split(":")[0]: "kept" if "kept" in line else "ran" for line in lines}


ALL = ("prepare", "train", "evaluate", "report")


def test_all_stages_then_none_then_what_changed(sapwood, place):
    results = place / "results"
    first = sapwood("run", place / "p.yaml")
    assert stages(first) == dict.fromkeys(ALL, "ran")
    assert load_json(results / "dataset/dataset.json")["seed"] == 3
    assert (results / "report.html").exists()
    assert "accuracy" in first.stdout

    assert stages(sapwood("run", place / "p.yaml")) == dict.fromkeys(ALL, "kept")

    (place / "p.yaml").write_text(TEXT.replace("epochs: 2", "epochs: 3"))
    assert stages(sapwood("run", place / "p.yaml")) == {"prepare": "kept", "train": "ran", "evaluate": "ran", "report": "ran"}
    assert len(load_json(results / "run/history.json")) == 3
    assert not (results / "run.previous").exists()

    os.utime(place / "data/qcd.root")
    second = stages(sapwood("run", place / "p.yaml"))
    assert second["prepare"] == "ran"

    shutil.rmtree(results / "run")
    assert stages(sapwood("run", place / "p.yaml"))["train"] == "ran"
    assert stages(sapwood("run", place / "p.yaml", "--force")) == dict.fromkeys(ALL, "ran")


def test_paths_relative_to_the_working_folder(sapwood, place):
    for expected in ("ran", "kept"):
        assert stages(sapwood("run", "p.yaml", cwd=place)) == dict.fromkeys(ALL, expected)
    parent = place.parent
    assert stages(sapwood("run", f"{place.name}/p.yaml", "--out", f"{place.name}/other", cwd=parent))["report"] == "ran"
    assert stages(sapwood("run", f"{place.name}/p.yaml", "--out", f"{place.name}/other", cwd=parent)) == dict.fromkeys(ALL, "kept")


def test_a_failed_stage_brings_the_old_output_back(sapwood, place):
    sapwood("run", place / "p.yaml")
    before = (place / "results/dataset/dataset.json").read_bytes()
    (place / "data/qcd.root").write_bytes(b"root, but no more than that")
    result = sapwood("run", place / "p.yaml", check=False)
    assert result.returncode == 1 and "qcd.root" in result.stderr
    assert (place / "results/dataset/dataset.json").read_bytes() == before
    shutil.rmtree(place / "results/dataset.partial", ignore_errors=True)
    shutil.copy2(SAMPLE / "qcd.root", place / "data")
    assert stages(sapwood("run", place / "p.yaml"))["prepare"] == "kept"


def test_what_a_kill_left_is_not_taken_for_the_old_output(sapwood, place):
    text = TEXT.replace("evaluate:\nreport:\n", "")
    (place / "p.yaml").write_text(text)
    sapwood("run", place / "p.yaml")
    state = load_json(place / "results/.stages.json")
    (place / "p.yaml").write_text(text.replace("epochs: 2", "epochs: 100000"))
    running = subprocess.Popen([COMMAND, "run", place / "p.yaml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if (place / "results/run.partial/checkpoint").exists():
            break
        time.sleep(0.05)
    running.kill()
    running.wait()
    left = load_json(place / "results/.stages.json")
    assert left["prepare"] == state["prepare"] and left["train"] == {"out": state["train"]["out"]}
    shutil.rmtree(place / "results/run.partial")
    (place / "results/run").mkdir()
    (place / "p.yaml").write_text(text)
    assert stages(sapwood("run", place / "p.yaml")) == {"prepare": "kept", "train": "ran"}
    assert len(load_json(place / "results/run/history.json")) == 2


def test_damaged_state(sapwood, place):
    (place / "results").mkdir()
    (place / "results/.stages.json").write_text("[]")
    result = sapwood("run", place / "p.yaml", check=False)
    assert result.returncode == 1 and ".stages.json: holds no object" in result.stderr


def test_a_folder_with_a_slash_behind_it(sapwood, place, dataset):
    sapwood("train", "--data", dataset, "--model", place / "hlf.keras", "--epochs", 1, "--out", f"{place}/trained/")
    assert (place / "trained/model.keras").exists() and not (place / "trained/.partial").exists()


def test_an_interrupted_training_remembers_every_option(sapwood, place, dataset):
    options = ("train", "--data", dataset, "--model", place / "hlf.keras", "--epochs", 1, "--out", place / "r")
    (place / "r").with_suffix(".partial").mkdir()
    sapwood(*options)
    kept = load_json(place / "r/options.json")
    shutil.rmtree(place / "r")
    (place / "r.partial").mkdir()
    (place / "r.partial/options.json").write_text(json.dumps(kept | {"learning-rate": "0.5"}))
    result = sapwood(*options, check=False)
    assert result.returncode != 0 and "learning-rate differs" in result.stderr


def test_another_folder_on_the_command_line(sapwood, place, tmp_path):
    sapwood("run", place / "p.yaml", "--out", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere/run/model.keras").exists()
    assert not (place / "results").exists()


def test_a_folder_that_is_not_ours_is_left_alone(sapwood, place):
    (place / "results/dataset").mkdir(parents=True)
    (place / "results/dataset/mine.txt").write_text("mine")
    result = sapwood("run", place / "p.yaml", check=False)
    assert result.returncode != 0 and "exists" in result.stderr
    assert (place / "results/dataset/mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prepare: [", "p.yaml:2:1"),
        ("", "empty"),
        ("just words", "mapping"),
        ("prepair: {}", '"prepair" is no stage'),
        ("prepare: {sampel: {a: b}}", "sampel"),
        ("prepare: {sample: {a: data/qcd.root}, seed: -1}", "seed"),
        ("prepare: {sample: {a: {b: c}}}", "sample: a"),
        ("prepare: {seed: 1, seed: 2}", "twice"),
        ("train: {model: m.keras, epochs: [1, 2]}", "twice"),
        ("prepare: &x {seed: 1}\ntrain: *x", "alias"),
        ("folder: []\nprepare:", "folder"),
        ("train:\n  model: hlf.keras", "--data"),
    ],
)
def test_bad_pipeline_files(sapwood, place, text, message):
    (place / "p.yaml").write_text(text)
    result = sapwood("run", place / "p.yaml", check=False)
    assert result.returncode != 0
    assert message in result.stderr


def test_missing_pipeline_file(sapwood, tmp_path):
    result = sapwood("run", tmp_path / "none.yaml", check=False)
    assert result.returncode == 1 and "none.yaml" in result.stderr


def test_the_example_is_a_pipeline_of_all_stages(sapwood, tmp_path):
    result = sapwood("run", SOURCE / "examples/topology/pipeline.yaml", "--out", tmp_path / "out")
    assert stages(result) == dict.fromkeys(ALL, "ran")
    evaluation = json.loads((tmp_path / "out/run/evaluation.json").read_text())
    assert evaluation["accuracy"] > 0.6
