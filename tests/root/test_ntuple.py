"""RNTuples: every column encoding and type, written by ROOT and compared with what ROOT reads, value by value; the corpus
against the digests of its values."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import sapwood as binding

CASES = Path(__file__).with_name("ntuple_cases.cpp")
# file: compression, bytes of a page, most bytes of a record (0: as many as there are)
FILES = {
    "zstd": (505, 600, 0),
    "none": (0, 1 << 20, 0),
    "zlib": (101, 4096, 0),
    "lzma": (207, 3000, 0),
    "lz4": (404, 250, 0),
    "parts": (505, 4096, 500),
}

WRITER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import ROOT
ROOT.gErrorIgnoreLevel = ROOT.kError
ROOT.gSystem.Load("libROOTNTuple")
assert ROOT.gInterpreter.Declare(open(sys.argv[1]).read())
folder = sys.argv[2]
ROOT.make_cases()
for name, options in json.loads(sys.argv[3]).items():
    ROOT.write_all(f"{folder}/{name}.root", *options)
ROOT.dump_all(f"{folder}/zstd.root", f"{folder}/values.jsonl")
ROOT.write_evolving(f"{folder}/evolving.root", f"{folder}/evolving.jsonl")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """ROOT runs in a process of its own: its libraries do not go with ours."""
    folder = tmp_path_factory.mktemp("ntuples")
    command = [sys.executable, "-c", WRITER, CASES, folder, json.dumps(FILES)]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def expected(path):
    return {row["name"]: row["values"] for row in map(json.loads, path.read_text().splitlines())}


def plain(value):
    """Without names: records as lists."""
    if isinstance(value, dict):
        return [plain(item) for item in value.values()]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "dtype"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{value:f}"
    return value


def settle(name, values):
    """What ROOT's reading leaves open: the order of unordered collections, and the sign of what is not a number."""
    if name.startswith("unordered"):
        return [sorted(row) for row in values]
    return ["nan" if value == "-nan" else value for value in values]


def differences(tree, values):
    for name, rows in values.items():
        got = settle(name, plain(tree.arrow([name])[name].to_pylist()))
        rows = settle(name, rows)
        assert len(got) == len(rows), name
        for entry, pair in enumerate(zip(got, rows)):
            if pair[0] != pair[1]:
                yield name, entry, *pair
                break


@pytest.mark.parametrize("name", FILES)
def test_values(folder, name):
    tree = binding.open(folder / f"{name}.root")["inside/table"]
    values = expected(folder / "values.jsonl")
    assert set(tree.keys()) == set(values) and len(values) > 120
    assert list(differences(tree, values)) == []


def test_added_fields_and_changing_representations(folder):
    tree = binding.open(folder / "evolving.root")["table"]
    values = expected(folder / "evolving.jsonl")
    assert set(tree.keys()) == set(values)
    assert list(differences(tree, values)) == []
    assert values["late_number"][:334] == [0] * 333 + [333] and values["late_any"][332] is None


def test_types(folder):
    tree = binding.open(folder / "zstd.root")["inside/table"]
    types = {branch["name"]: branch["type"] for branch in tree.branches()}
    assert types["float_half"] == types["double_half"] == "float16"
    assert types["double32"] == "float32" and types["double_split"] == "float64"
    assert types["bitset117"] == "fixed<bool, 117>"
    assert types["arrays"] == "fixed<fixed<float64, 2>, 3>"
    assert types["map"] == "list<record{_0: string, _1: string}>"
    assert types["variant"] == "union{none?, int32, string, list<float32>}"
    assert types["optional_list"] == "list<int32?>?"
    assert types["enum"] == "int16" and types["atomic"] == "int32"
    assert types["child"] == (
        "record{own: int32, points: list<record{x: float32, y: float64}>, name: string, marks: list<int32>, x: float32, "
        "y: float64}"
    )
    evolving = binding.open(folder / "evolving.root")["table"]
    types = {branch["name"]: branch["type"] for branch in evolving.branches()}
    assert types["real"] == "float64" and types["n"] == "int64" and types["y"] == "list<float64>"


@pytest.mark.parametrize("name", ["zstd", "evolving"])
def test_batches_of_any_size(folder, name):
    """Batches that begin and end in the middle of pages and clusters hold the same values as the whole."""
    tree = binding.open(folder / f"{name}.root")["table" if name == "evolving" else "inside/table"]
    columns = [n for n in tree.keys() if not n.startswith(("trunc", "quant"))]
    whole = {column: plain(tree.arrow([column])[column].to_pylist()) for column in columns}
    for begin, end, size in ((0, 700, 37), (149, 165, 1), (3, 699, 150), (699, 700, 5)):
        parts = {column: [] for column in columns}
        for batch in pa.RecordBatchReader.from_stream(tree.select(columns, begin, end, batch_entries=size)):
            batch.validate(full=True)
            for column in columns:
                parts[column] += plain(batch[column].to_pylist())
        for column in columns:
            assert parts[column] == whole[column][begin:end], (column, begin, end, size)


def test_threads(folder, sapwood):
    one = sapwood("digest", folder / "lz4.root", "--threads", 1).stdout
    assert sapwood("digest", folder / "lz4.root", "--threads", 4).stdout == one


@pytest.mark.parametrize("name", ["zstd", "parts", "evolving"])
def test_remote(folder, sapwood, name):
    """Over HTTP the same values, and all columns in few requests."""
    sys.path.append(str(CASES.parent.parent / "access"))
    from web_server import web_server

    with web_server(folder) as (url, does):
        remote = sapwood("digest", f"{url}/{name}.root").stdout
        assert remote.replace(url, str(folder)) == sapwood("digest", folder / f"{name}.root").stdout
        does.requests.clear()
        tree = binding.open(f"{url}/{name}.root")["table" if name == "evolving" else "inside/table"]
        rows = sum(batch.num_rows for batch in pa.RecordBatchReader.from_stream(tree.select(batch_entries=140)))
        assert rows == 700
        print(f"{name}: {len(does.requests)} requests for 5 batches of {len(tree.keys())} columns")
        assert len(does.requests) <= 40


def test_values_that_are_nothing_leave_in_other_formats(folder, sapwood):
    """Variants without a value and empty optional ones, in what else takes columns."""
    values = expected(folder / "evolving.jsonl")
    out = folder / "any.csv"
    sapwood("export", folder / "evolving.root", "--columns", "late_any,late_perhaps,late_number", "--where", "late_number != 333", "-o", out)
    rows = list(csv.reader(out.read_text().splitlines()))
    assert rows[0] == ["late_any", "late_perhaps", "late_number"] and len(rows) == 700
    for entry in (0, 332, 400, 401, 699):
        row = rows[1 + entry - (entry > 333)]
        any_value, perhaps = values["late_any"][entry], values["late_perhaps"][entry]
        assert row[0] == ("null" if any_value is None else json.dumps(any_value))
        assert row[1] == ("" if perhaps is None else str(perhaps)) and row[2] == str(values["late_number"][entry])
    sapwood("compare", folder / "zstd.root", folder / "lzma.root")


# ---- The corpus -----------------------------------------------------------------------------------------------------------


def test_corpus(shared_data, sapwood, capsys):
    corpus = shared_data / "corpus"
    rows = [json.loads(line) for line in (corpus / "digests.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "RNTuple" in (row.get("cls") or "")]
    got = {}
    for file in sorted({row["file"] for row in rows}):
        run = sapwood("digest", corpus / file, "--threads", 2, check=False)
        assert run.returncode in (0, 1), f"{file}: exit status {run.returncode}\n{run.stderr}"
        got.update(((file, row["object"]), row) for row in map(json.loads, run.stdout.splitlines()))
    right = 0
    for row in rows:
        mine = got[row["file"], row["object"]]
        names = {branch["name"]: branch for branch in mine["branches"]}
        assert set(names) == {branch["name"] for branch in row["branches"]}, row["file"]
        if row["status"] == "object_error":  # from before version 1 of the format
            assert mine["status"] == "object_error" and "before version 1" in mine["error"]
        for branch in row["branches"]:
            if branch["digest"] is None:  # a class that holds itself
                assert "holds itself" in names[branch["name"]]["error"]
                continue
            assert names[branch["name"]]["digest"] == branch["digest"], (row["file"], branch["name"])
            right += 1
    with capsys.disabled():
        print(f"\n{right} columns of {len(rows)} RNTuples read right")
    assert right >= 1030
