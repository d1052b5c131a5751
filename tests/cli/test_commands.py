"""The command line: help, usage errors, listings, the stages' results."""

import json
import subprocess

import numpy as np
import pyarrow.parquet as parquet
import pytest
from conftest import COMMAND, SAMPLE, SOURCE, load_json, sample_options

COMMANDS = ["ls", "prepare", "train", "evaluate", "predict", "report", "run", "digest"]


def test_help_lists_every_command(sapwood):
    text = sapwood("--help").stdout
    for command in [*COMMANDS, "version"]:
        assert f"\n  {command} " in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(sapwood, command):
    text = sapwood(command, "--help").stdout
    assert text.startswith(f"Usage: sapwood {command}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage"),
        (["prepair"], "no command"),
        (["prepare"], "--sample"),
        (["prepare", "--sampel", "a=b"], "nearest: sample"),
        (["prepare", "--sample", "a"], "NAME=FILE"),
        (["prepare", "--sample"], "needs a value"),
        (["prepare", "stray"], "stray"),
        (["prepare", "--format", "csv", "--out", "x"], "parquet|tfrecord"),
        (["train", "--epochs", "many"], "whole number"),
        (["train", "--data", "d", "--data", "e"], "twice"),
        (["train", "--threads", "x"], "--threads"),
        (["train", "--data", "d", "--model", "m", "--out", "o", "--learning-rate", "0"], "--learning-rate"),
        (["run"], "Usage"),
        (["run", "a.yaml", "b.yaml"], "b.yaml"),
        (["predict", "--run", "r", "--out", "o"], "--data"),
        (["report", "--run", "r"], "--data"),
        (["ls"], ""),
    ],
)
def test_wrong_usage_is_status_2(sapwood, arguments, message):
    result = sapwood(*arguments, check=False)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr


def test_version_lists_the_parts(sapwood):
    lines = sapwood("version").stdout.splitlines()
    assert lines[0] == "sapwood 0.1.0"
    parts = {line.split()[0]: line.split()[1] for line in lines[1:]}
    assert parts["parquet"].startswith("yes") and parts["keras"].startswith("yes")
    assert "spark" in parts
    assert sapwood("--version").stdout.splitlines() == lines


def test_ls_shows_objects_and_branches(sapwood):
    text = sapwood("ls", SAMPLE / "qcd.root").stdout
    assert "Delphes" in text and "710" in text
    line = next(line for line in text.splitlines() if "EFlowTrack.PT" in line)
    assert "list<float32>" in line and "zstd" in line
    listing = json.loads(sapwood("ls", "--json", SAMPLE / "qcd.root").stdout)
    assert listing


def test_prepare_prints_the_selection_and_json(sapwood, tmp_path):
    out = tmp_path / "data"
    result = sapwood("prepare", *sample_options(), "--out", out)
    dataset = load_json(out / "dataset.json")
    assert {sample["sample"]: sample["steps"][0]["events"] for sample in dataset["selection"]} == {"qcd": 710, "ttbar": 800, "wjets": 800}
    for step in dataset["selection"][0]["steps"]:
        assert step["step"] in result.stdout and str(step["events"]) in result.stdout
    assert str(out) in result.stdout
    printed = sapwood("prepare", *sample_options(), "--out", tmp_path / "again", "--json", "--quiet")
    assert json.loads(printed.stdout)["dataset"] == dataset
    assert printed.stderr == ""


def test_training_improves_and_is_written_whole(trained):
    history = load_json(trained / "history.json")
    assert len(history) == 5
    assert history[-1]["loss"] < history[0]["loss"] < 1.2
    assert {path.name for path in trained.iterdir()} >= {"model.keras", "history.json", "dataset.json", "options.json", "evaluation.json"}
    assert not (trained / "checkpoint").exists()


def test_training_does_not_depend_on_threads(sapwood, dataset, tmp_path):
    def scores(threads):
        out = tmp_path / f"run{threads}"
        sapwood("train", "--data", dataset, "--model", SOURCE / "models/hlf.keras", "--epochs", 3, "--out", out, "--threads", threads)
        file = tmp_path / f"scores{threads}.parquet"
        sapwood("predict", "--run", out, "--data", dataset, "--out", file, "--threads", threads)
        return parquet.read_table(file)

    first = scores(1)
    assert first.equals(scores(2)) and first.equals(scores(5))


def test_evaluation_agrees_with_the_scores(sapwood, dataset, trained, tmp_path):
    """Accuracy, confusion and AUC anew from the predicted scores, by numpy."""
    evaluation = load_json(trained / "evaluation.json")
    sapwood("predict", "--run", trained, "--data", dataset, "--out", tmp_path / "scores.parquet")
    table = parquet.read_table(tmp_path / "scores.parquet")
    names = [one["label"] for one in evaluation["classes"]]
    scores = np.stack([table[f"score_{name}"].to_numpy() for name in names], axis=1)
    truth = np.array([names.index(sample) for sample in table["sample"].to_pylist()])
    assert len(truth) == evaluation["events"] > 100
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)
    guess = scores.argmax(axis=1)
    assert evaluation["accuracy"] == pytest.approx((guess == truth).mean(), abs=1e-12)
    confusion = [[int(((truth == i) & (guess == j)).sum()) for j in range(3)] for i in range(3)]
    assert evaluation["confusion"] == confusion
    for k, one in enumerate(evaluation["classes"]):
        own, rest = scores[truth == k, k], scores[truth != k, k]
        wins = (own[:, None] > rest).mean() + 0.5 * (own[:, None] == rest).mean()
        assert one["auc"] == pytest.approx(wins, abs=1e-9)
        assert one["auc"] > 0.6


def test_predict_from_root_files_gives_the_dataset_scores(sapwood, dataset, trained, tmp_path):
    sapwood("predict", "--run", trained, "--data", dataset, "--out", tmp_path / "a.parquet")
    sapwood("predict", "--run", trained, *sample_options(), "--out", tmp_path / "b.parquet")
    stored, direct = (parquet.read_table(tmp_path / name).to_pylist() for name in ("a.parquet", "b.parquet"))
    by_event = {(row["sample"], row["file"], row["entry"]): row for row in direct}
    assert len(by_event) == len(direct) > len(stored) > 100
    for row in stored:
        other = by_event[row["sample"], row["file"], row["entry"]]
        assert row == other


def test_report_is_one_whole_page(sapwood, dataset, trained, tmp_path):
    out = tmp_path / "report.html"
    assert str(out) in sapwood("report", "--run", trained, "--data", dataset, "--out", out).stdout
    assert json.loads(sapwood("report", "--run", trained, "--data", dataset, "--out", out, "--json").stdout) == {"out": str(out)}
    text = out.read_text()
    assert text.count("<svg") == 4 and text.rstrip().endswith("</html>")
    for word in ("Selection", "ROC curves", "AUC, ttbar", "Features by class", "LepIsoCh", "Scores"):
        assert word in text
    assert "http" not in text.replace("http://www.w3.org", "").replace("https://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")


def test_output_into_a_closed_pipe_is_an_error_not_a_crash(tmp_path):
    result = subprocess.run(f"{COMMAND} ls {SAMPLE / 'qcd.root'} | head -c 10", shell=True, capture_output=True, text=True)
    assert result.returncode == 0 and len(result.stdout) == 10


def test_progress_in_a_log_is_plain_lines(sapwood, dataset, tmp_path):
    result = sapwood("train", "--data", dataset, "--model", SOURCE / "models/hlf.keras", "--epochs", 2, "--out", tmp_path / "run")
    assert "epoch 1/2" in result.stderr and "epoch 2/2" in result.stderr
    assert "\r" not in result.stderr and "\033" not in result.stderr
