"""The Python package: columns as Arrow, in what takes them; the stages as functions."""

import gc
import os
import signal
import subprocess
import sys
import threading

import awkward as ak
import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest
import sapwood
import uproot
from conftest import SAMPLE, SOURCE

COLUMNS = ["Jet.PT", "Jet.BTag", "MissingET.MET"]


@pytest.fixture(scope="module")
def tree():
    return sapwood.open(SAMPLE / "ttbar.root")["Delphes"]


@pytest.fixture(scope="module")
def expected():
    with uproot.open(SAMPLE / "ttbar.root") as file:
        return {name: file["Delphes"][f"{name.split('.')[0]}/{name}"].array() for name in COLUMNS}


def test_files_and_trees(tree):
    file = sapwood.open(SAMPLE / "ttbar.root")
    assert "Delphes;1" in file.keys() and "Delphes" in file and "Delphes;99" not in file
    assert file.trees() == ["Delphes"]
    assert len(tree) == tree.entries == 800
    assert set(COLUMNS) <= set(tree.keys())
    assert "800 entries" in repr(tree) and "ttbar.root" in repr(file)
    branch = next(branch for branch in tree.branches() if branch["name"] == "Jet.PT")
    assert branch["type"] == "list<float32>" and branch["baskets"] > 0


def test_text_that_is_not_utf8(tmp_path):
    place = tmp_path / "latin.root"
    place.write_bytes((SAMPLE / "ttbar.root").read_bytes().replace(b"Analysis tree", b"Analysis tr\xe9e"))
    assert "Analysis trée" in [key["title"] for key in sapwood.open(place).objects()]


def test_arrow_table(tree, expected):
    table = tree.arrow(COLUMNS)
    assert table.column_names == COLUMNS
    assert table.schema.field("Jet.BTag").type == pa.list_(pa.field("item", pa.uint32(), nullable=False))
    for name in COLUMNS:
        assert ak.array_equal(ak.from_arrow(table[name]), expected[name], dtype_exact=False)
    part = tree.arrow(["Jet.PT"], 100, 150)
    assert part["Jet.PT"].to_pylist() == table["Jet.PT"].to_pylist()[100:150]
    assert tree.arrow("Jet.*").column_names[:1] == ["Jet.PT"] or "Jet.PT" in tree.arrow("Jet.*").column_names


def test_everything_that_takes_a_stream_takes_a_selection(tree, expected):
    met = ak.to_numpy(ak.flatten(expected["MissingET.MET"]))
    selection = tree.select(["MissingET.MET"])
    frame = polars.DataFrame(tree.select(["MissingET.MET"]))
    assert np.array_equal(frame["MissingET.MET"].explode().to_numpy(), met)
    table = pa.table(selection)
    assert np.array_equal(table.to_pandas()["MissingET.MET"].map(lambda v: v[0]).to_numpy(), met)
    assert ak.array_equal(ak.from_arrow(table)["MissingET.MET"], expected["MissingET.MET"], dtype_exact=False)
    jets = table  # duckdb finds it by name
    total = duckdb.sql('select sum(list_sum("MissingET.MET")) from jets').fetchall()[0][0]
    assert total == pytest.approx(float(met.sum(dtype=np.float64)), rel=1e-6)
    assert isinstance(pandas.DataFrame.from_arrow(tree.select(["MissingET.MET"])), pandas.DataFrame)
    assert pa.RecordBatchReader.from_stream(tree).schema.names == tree.keys()


def test_batches_and_threads_do_not_change_values(tree):
    whole = tree.arrow(COLUMNS, threads=1)
    for threads, size in ((1, 7), (2, 100), (3, 799)):
        reader = pa.RecordBatchReader.from_stream(tree.select(COLUMNS, batch_entries=size, threads=threads))
        batches = list(reader)
        assert max(len(batch) for batch in batches) <= size
        assert pa.Table.from_batches(batches).combine_chunks().equals(whole.combine_chunks())


def test_a_stream_outlives_its_file():
    reader = pa.RecordBatchReader.from_stream(sapwood.open(SAMPLE / "qcd.root")["Delphes"].select(["Jet.PT"], batch_entries=50))
    gc.collect()
    batch = reader.read_next_batch()
    rest = reader.read_all()
    del reader
    gc.collect()
    assert len(batch) + len(rest) == 710 and batch.column(0)[0].as_py() is not None


def test_a_stream_released_on_another_thread():
    readers = [pa.RecordBatchReader.from_stream(sapwood.open(SAMPLE / "qcd.root")["Delphes"].select(["Jet.PT"]))]
    worker = threading.Thread(target=lambda: readers.pop().read_all())
    worker.start()
    worker.join()
    assert readers == []


def test_errors_say_where(tmp_path):
    with pytest.raises(sapwood.Error, match="none.root") as caught:
        sapwood.open(tmp_path / "none.root")
    assert caught.value.status == "not found"
    for name in ("é" * 600, "a" + "é" * 600):  # a message is cut off at a number of bytes
        with pytest.raises(sapwood.Error, match="aé|éé"):
            sapwood.open(tmp_path / name)
    file = sapwood.open(SAMPLE / "qcd.root")
    with pytest.raises(TypeError):
        type(file._file)()
    with pytest.raises(sapwood.Error, match="Delphes"):
        file["Delfes"]
    with pytest.raises(sapwood.Error, match="nearest: Jet.PT"):
        file["Delphes"].arrow(["Jet.pt"])
    with pytest.raises(ValueError, match="empty list"):
        file["Delphes"].arrow([])
    with pytest.raises(sapwood.Error, match="epochs"):
        sapwood.train(data="x", model="y", out="z", epochs="many")
    with pytest.raises(sapwood.Error, match="nearest"):
        sapwood.train(dat="x")


def test_stages_are_those_of_the_command_line(sapwood_command_dataset, tmp_path):
    lines = []
    samples = {name: SAMPLE / f"{name}.root" for name in ("qcd", "ttbar", "wjets")}
    prepared = sapwood.prepare(sample=samples, out=tmp_path / "data", threads=2)
    same = sapwood_command_dataset / "dataset.json"
    assert (tmp_path / "data/dataset.json").read_bytes() == same.read_bytes()
    assert prepared["dataset"]["labels"] == ["qcd", "ttbar", "wjets"]
    run = sapwood.train(
        data=tmp_path / "data",
        model=SOURCE / "models/hlf.keras",
        out=tmp_path / "run",
        epochs=3,
        validation=False,
        progress=lambda stage, unit, done, total, message: lines.append(message),
    )
    assert len(run["history"]) == 3 and run["history"][0]["validation_loss"] is None
    assert [line.split()[1].rstrip(":") for line in lines if line] == ["1/3", "2/3", "3/3"]
    evaluation = sapwood.evaluate(run=tmp_path / "run", data=tmp_path / "data")
    assert 1 / 3 < evaluation["accuracy"] <= 1
    scores = sapwood.predict(run=tmp_path / "run", data=tmp_path / "data", out=tmp_path / "s.parquet")
    assert scores["events"] == evaluation["events"]
    for _ in range(2):  # a function still after its first use
        assert open(sapwood.report(tmp_path / "run", tmp_path / "data")).read().startswith("<!DOCTYPE html>")


@pytest.fixture(scope="module")
def sapwood_command_dataset(dataset):
    return dataset


def test_pipeline(tmp_path):
    sapwood.run(SOURCE / "examples/topology/pipeline.yaml", out=tmp_path / "out", progress=None)
    assert (tmp_path / "out/report.html").exists()
    with pytest.raises(sapwood.Error, match="none.yaml"):
        sapwood.run(tmp_path / "none.yaml")


def test_a_callback_that_raises_ends_the_stage(dataset, tmp_path):
    def stop(*news):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        sapwood.train(data=dataset, model=SOURCE / "models/hlf.keras", out=tmp_path / "run", epochs=10000, progress=stop)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_ends_a_stage(dataset, tmp_path):
    code = f"""
import sapwood
print("started", flush=True)
try:
    sapwood.train(data={str(dataset)!r}, model={str(SOURCE / "models/hlf.keras")!r}, out={str(tmp_path / "run")!r}, epochs=1000000, progress=None)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout.readline() == "started\n"
    threading.Event().wait(0.5)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "interrupted\n"
    assert not (tmp_path / "run").exists()


def test_docstrings_list_the_options():
    assert "learning_rate" in sapwood.train.__doc__ and "test_fraction" in sapwood.prepare.__doc__


def test_pip_install_builds_the_core(tmp_path):
    """`pip install .`, into a folder of its own, without the network. Not optimised, and without the GPU: that takes compilers minutes."""
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "-q"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings = [f"--config-settings=build-dir={tmp_path / 'build'}", "--config-settings=cmake.build-type=Debug",
                "--config-settings=cmake.define.SAPWOOD_CUDA=OFF"]  # fmt: skip
    subprocess.run([*command, *settings, "--target", str(target), str(SOURCE)], check=True, env=environment, timeout=900)
    code = (
        "import sapwood, sys; assert sapwood.__file__.startswith(sys.argv[1]), sapwood.__file__;"
        "print(sapwood.open(sys.argv[2])['Delphes'].arrow(['Jet.PT']).num_rows);"
        "print(sapwood._core.parts())"
    )
    environment["PYTHONPATH"] = str(target)
    result = subprocess.run(
        [sys.executable, "-c", code, str(target), str(SAMPLE / "qcd.root")], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    lines = result.stdout.splitlines()
    assert lines[0] == "710"
    states = dict(line.split(":")[0].split("\t") for line in lines[1:] if line)
    assert states["parquet"] == states["keras"] == "yes", result.stdout
    # the command, and a recipe that is compiled against the installed headers
    command = [sys.executable, "-m", "sapwood", "prepare", "--recipe", str(SOURCE / "examples/recipes/dimuon.c")]
    environment["SAPWOOD_CACHE"] = str(tmp_path / "cache")
    result = subprocess.run(
        [*command, "--sample", f"a={SAMPLE / 'qcd.root'}", "--tree", "Delphes", "--out", str(tmp_path / "out")],
        env=environment, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 1 and '"Muon_pt"' in result.stderr, result.stderr  # compiled, and its columns missed
