"""`sapwood train --engine tensorflow`: the losses of Sapwood's own engine, by any number of workers, through kills and interrupts."""

import os
import signal
import subprocess

import pytest
import sapwood
from conftest import COMMAND, SAMPLE, SOURCE, load_json

pytest.importorskip("tensorflow")
HLF = SOURCE / "models/hlf.keras"


def losses(run):
    return [entry[name] for entry in load_json(run / "history.json") for name in ("loss", "validation_loss", "accuracy")]


def words(options):
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


class Command:
    """A training that can be watched and hit."""

    def __init__(self, options, out, *more):
        self.process = subprocess.Popen([COMMAND, "train", "--engine", "tensorflow", *words(options), "--out", str(out), *more],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = []

    def wait_for(self, text):
        for line in self.process.stderr:
            self.lines.append(line)
            if line.startswith(text):
                return
        pytest.fail(f"no line begins with {text!r}:\n{''.join(self.lines)}")

    def children(self, process=None):
        """Process numbers of all descendants."""
        found = []
        pid = process or self.process.pid
        listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
        for child in map(int, listing):
            found += [child, *self.children(child)]
        return found

    def end(self):
        out, errors = self.process.communicate(timeout=120)
        return self.process.returncode, out, "".join(self.lines) + errors


def command_line(pid):
    try:
        return open(f"/proc/{pid}/cmdline").read().split("\0")
    except FileNotFoundError:
        return []


def test_killed_interrupted_and_resumed_with_other_numbers_of_workers(sapwood, dataset, tmp_path):
    options = {"data": dataset, "model": HLF, "epochs": 24, "batch": 8, "optimizer": "sgd", "csv": tmp_path / "a.csv",
               "reduce_lr": 2}
    expected, run = tmp_path / "expected", tmp_path / "run"
    sapwood("train", *words(options), "--out", expected)
    written = (tmp_path / "a.csv").read_text().splitlines()

    two = Command(options, run, "--workers", "2")
    two.wait_for("epoch 2/24")
    two.process.send_signal(signal.SIGINT)
    status, _, errors = two.end()
    assert status == 130 and "interrupted" in errors
    assert not run.exists() and (tmp_path / "run.partial/checkpoint").is_file()
    other = sapwood("train", "--engine", "tensorflow", *words({**options, "epochs": 25}), "--out", run, check=False)
    assert other.returncode == 1 and "epochs differs" in other.stderr

    two = Command(options, run, "--workers", "2")
    two.wait_for("goes on in epoch")
    two.wait_for("epoch 6/24")
    workers = [pid for pid in two.children() if "--worker" in command_line(pid)]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    status, _, errors = two.end()
    assert status == 1 and "worker 1 of 2: was ended by signal 9 (SIGKILL)" in errors
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)

    status, out, errors = Command(options, run).end()
    assert status == 0 and "goes on in epoch" in errors and "2013 parameters" in out
    assert losses(run) == pytest.approx(losses(expected), abs=1e-4)
    rows = (tmp_path / "a.csv").read_text().splitlines()
    assert len(rows) == len(written) == 25 and rows[0] == written[0]
    assert not (tmp_path / "run.partial").exists()
    sapwood("evaluate", "--run", run, "--data", dataset)


def test_two_workers_train_the_inclusive_model(dataset, small_inclusive, tmp_path):
    options = {"data": dataset, "model": small_inclusive, "epochs": 2, "batch": 64, "steps_per_epoch": 3, "auc": True,
               "class_weight": ["qcd=0.5", "ttbar=2"]}
    lines = []
    ours = sapwood.train(**options, out=tmp_path / "ours", progress=None)
    theirs = sapwood.train(**options, out=tmp_path / "theirs", engine="tensorflow", workers=2,
                           progress=lambda *told: lines.append(told[-1]))
    assert losses(tmp_path / "theirs") == pytest.approx(losses(tmp_path / "ours"), abs=1e-4)
    assert [e["auc"] for e in theirs["history"]] == pytest.approx([e["auc"] for e in ours["history"]], abs=1e-4)
    assert theirs["events"] == ours["events"] and theirs["parameters"] == ours["parameters"]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    a, b = (sapwood.evaluate(run=tmp_path / run, data=dataset, progress=None) for run in ("ours", "theirs"))
    assert a["loss"] == pytest.approx(b["loss"], abs=1e-3)


def test_a_pipeline_with_the_engine_ends_in_the_same_report(sapwood, tmp_path):
    pipeline = tmp_path / "pipeline.yaml"
    samples = "".join(f"    {name}: {SAMPLE}/{name}.root\n" for name in ("qcd", "ttbar", "wjets"))
    pipeline.write_text(f"folder: out\nprepare:\n  sample:\n{samples}train:\n  model: {HLF}\n  engine: tensorflow\n  epochs: 2\n"
                        "  optimizer: sgd\n  momentum: 0.9\n  schedule: cosine\n  learning-rate: 0.05\n  decay-steps: 12\n"
                        "  warmup-steps: 3\nevaluate:\nreport:\n")
    sapwood("run", pipeline)
    page = (tmp_path / "out/report.html").read_text()
    assert "ROC curves" in page and "2 epochs" in page
    expected = tmp_path / "expected"
    sapwood("train", "--data", tmp_path / "out/dataset", "--model", HLF, "--epochs", 2, "--optimizer", "sgd", "--momentum", 0.9,
            "--schedule", "cosine", "--learning-rate", 0.05, "--decay-steps", 12, "--warmup-steps", 3, "--out", expected)
    assert losses(tmp_path / "out/run") == pytest.approx(losses(expected), abs=1e-4)
    assert "nothing changed, kept" in sapwood("run", pipeline).stdout


@pytest.mark.parametrize("options, message", [
    ({"workers": 2}, "--engine tensorflow"),
    ({"engine": "tensorflow", "optimizer": "radam"}, "--optimizer radam does not go with"),
    ({"engine": "tensorflow", "label_column": "y"}, "--label-column does not go with"),
])
def test_what_an_engine_cannot_do_is_refused(sapwood, dataset, tmp_path, options, message):
    given = sapwood("train", *words({"data": dataset, "model": HLF, "out": tmp_path / "run", **options}), check=False)
    assert given.returncode in (1, 2) and message in given.stderr
    assert not (tmp_path / "run").exists() and not (tmp_path / "run.partial").exists()
