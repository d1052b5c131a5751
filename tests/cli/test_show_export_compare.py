"""show, export and compare: what they print and write, read back by the libraries that own the formats."""

import csv
import json
import math
import os
import zipfile

import awkward as ak
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import uproot
from conftest import SAMPLE

FILE = f"{SAMPLE / 'ttbar.root'}:Delphes"
FILES = [SAMPLE / name for name in ("qcd.root", "ttbar.root", "wjets.root")]
COLUMNS = ["Jet.PT", "Jet_size", "MissingET.MET"]


@pytest.fixture(scope="module")
def expected():
    """The columns of the three files one after another, by uproot."""
    names = {"Jet.PT": "Jet/Jet.PT", "Jet_size": "Jet_size", "MissingET.MET": "MissingET/MissingET.MET"}
    parts = []
    for path in FILES:
        with uproot.open(path) as file:
            parts.append({name: file["Delphes"][branch].array() for name, branch in names.items()})
    return {name: ak.concatenate([part[name] for part in parts]) for name in names}


@pytest.fixture(scope="module")
def nested(tmp_path_factory, sapwood):
    """A file with strings, records, nested lists, bools, unsigned and special numbers, written by uproot."""
    path = tmp_path_factory.mktemp("nested") / "nested.root"
    with uproot.recreate(path) as file:
        file["t"] = {
            "text": ['plain', 'with "quotes", and comma', "two\nlines", ""],
            "number": np.array([0.1, math.nan, -math.inf, 1e300]),
            "single": np.array([0.1, -0.0, math.inf, 1e-42], dtype=np.float32),
            "flag": np.array([True, False, True, False]),
            "large": np.array([0, 2**63, 2**64 - 1, 5], dtype=np.uint64),
            "matrix": np.arange(24, dtype=np.int16).reshape(4, 2, 3),
            "jagged": ak.Array([[1.5], [], [2.5, 3.5], [4.5]]),
        }
    return path


def test_show(sapwood, tmp_path):
    lines = sapwood("show", FILE).stdout.splitlines()
    assert "800 entries" in lines[0] and "cluster" in lines[0] and ":Delphes" in lines[0]
    assert lines[1].split() == ["column", "C++", "type", "Arrow", "type", "stored", "ratio"]
    jets = next(i for i, line in enumerate(lines) if "─ Jet " in line)
    assert lines[jets].strip().startswith("├─ Jet") and "│  ├─ Jet.PT" in lines[jets + 1]
    assert "│  └─ Jet.BTag" in lines[jets + 5] and "list<uint32>" in lines[jets + 5] and "unsigned int" in lines[jets + 5]
    assert len({line.index("├") for line in lines[2:] if line.strip()[:1] == "├"}) == 1
    shown = json.loads(sapwood("show", "--json", SAMPLE / "ttbar.root").stdout)
    assert shown["tree"] == "Delphes" and shown["entries"] == 800 and shown["clusters"][0] == 0
    column = next(column for column in shown["columns"] if column["name"] == "Jet.PT")
    assert column["type"] == "list<float32>" and column["path"] == "Jet/Jet.PT" and column["depth"] == 1
    assert len(sapwood("show", "--json", SAMPLE / "*.root").stdout.splitlines()) == 3


def test_show_draws_the_fields_of_records(sapwood, shared_data):
    path = shared_data / "corpus/scikit-hep-testdata/uproot-small-evnt-tree-nosplit.root"
    lines = sapwood("show", path).stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if "record" in line)
    assert "└─ evt" in lines[at] and "   ├─ Beg" in lines[at + 1] and "string" in lines[at + 1]


def test_show_of_what_is_not_there(sapwood, tmp_path):
    assert sapwood("show", check=False).returncode == 2
    missing = sapwood("show", tmp_path / "nix.root", check=False)
    assert missing.returncode == 1 and "nix.root" in missing.stderr
    assert "nearest: Delphes" in sapwood("show", f"{SAMPLE / 'qcd.root'}:Delfes", check=False).stderr


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_export_to_parquet_and_arrow(sapwood, tmp_path, expected, ending):
    out = tmp_path / f"out.{ending}"
    printed = sapwood("export", *FILES, "-o", out, "--columns", ",".join(COLUMNS), "--batch", 100).stdout
    assert "2310 of 2310 entries" in printed
    table = pq.read_table(out) if ending == "parquet" else pa.ipc.open_file(out).read_all()
    assert table.column_names == COLUMNS
    for name in COLUMNS:
        assert ak.array_equal(ak.from_arrow(table[name].combine_chunks()), expected[name], dtype_exact=False)
    assert os.listdir(tmp_path) == [out.name]


def test_every_column_survives_both_formats(sapwood, tmp_path, nested):
    import sapwood as library

    want = library.open(nested)["t"].arrow()
    for ending, read in (("parquet", pq.read_table), ("arrow", lambda path: pa.ipc.open_file(path).read_all())):
        out = tmp_path / f"all.{ending}"
        sapwood("export", nested, "-o", out)
        got = read(out)
        assert got.schema.equals(want.schema)
        assert repr(got.to_pylist()) == repr(want.to_pylist())


def test_where_and_entries(sapwood, tmp_path, expected):
    def export(*options):
        out = tmp_path / "some.arrow"
        sapwood("export", SAMPLE / "*.root:Delphes", "-o", out, "--force", *options)
        return pa.ipc.open_file(out).read_all()

    size, met = ak.to_numpy(expected["Jet_size"]), ak.to_numpy(ak.flatten(expected["MissingET.MET"]))
    table = export("--columns", "Jet.PT", "--where", "Jet_size >= 4 && MissingET.MET[0] > 50", "--batch", 77)
    keep = (size >= 4) & (met > 50)
    assert 0 < keep.sum() < len(keep) and table.column_names == ["Jet.PT"]
    assert table["Jet.PT"].to_pylist() == expected["Jet.PT"][keep].to_list()
    table = export("--columns", "Jet_size", "--entries", "700:1600", "--where", "Jet_size % 2 == 1")
    assert table["Jet_size"].to_pylist() == [n for n in size[700:1600].tolist() if n % 2 == 1]
    assert len(export("--columns", "Jet_size", "--where", "Jet_size < 0")) == 0
    assert "Jet.PT" not in export("--columns", "!Jet.*", "--columns", "!EFlow*", "--entries", ":5").column_names
    assert export("--columns", "Jet.*,!Jet.M*", "--entries", "2300:").column_names == ["Jet.PT", "Jet.Eta", "Jet.Phi", "Jet.BTag"]


def test_csv(sapwood, tmp_path, nested):
    out = tmp_path / "out.csv"
    sapwood("export", nested, "-o", out)
    rows = list(csv.DictReader(out.open(newline="")))
    assert [row["text"] for row in rows] == ['plain', 'with "quotes", and comma', "two\nlines", ""]
    assert [row["number"] for row in rows] == ["0.1", "nan", "-inf", "1e+300"]
    single = np.array([float(row["single"]) for row in rows]).astype(np.float32)
    assert single.tobytes() == np.array([0.1, -0.0, math.inf, 1e-42], dtype=np.float32).tobytes()
    assert rows[0]["single"] == "0.1" and [row["flag"] for row in rows] == ["true", "false", "true", "false"]
    assert [int(row["large"]) for row in rows] == [0, 2**63, 2**64 - 1, 5]
    assert [json.loads(row["jagged"]) for row in rows] == [[1.5], [], [2.5, 3.5], [4.5]]
    assert json.loads(rows[1]["matrix"]) == [[6, 7, 8], [9, 10, 11]]
    frame = pandas.read_csv(out)
    assert frame["flag"].tolist() == [True, False, True, False] and frame["number"][3] == 1e300


def test_csv_of_records(sapwood, tmp_path, shared_data):
    out = tmp_path / "out.csv"
    path = shared_data / "corpus/scikit-hep-testdata/uproot-small-evnt-tree-nosplit.root"
    sapwood("export", path, "-o", out, "--entries", "0:3")
    events = [json.loads(row["evt"]) for row in csv.DictReader(out.open(newline=""))]
    assert events[1]["Beg"] == "beg-001" and len(events) == 3 and events[2]["SliceU64"] == [2, 2]


def test_npz(sapwood, tmp_path, nested, expected):
    out = tmp_path / "out.npz"
    sapwood("export", *FILES, "-o", out, "--columns", ",".join(COLUMNS), "--batch", 50)
    assert zipfile.ZipFile(out).testzip() is None
    arrays = np.load(out)
    assert set(arrays.files) == {"Jet.PT", "Jet.PT.offsets", "Jet_size", "MissingET.MET", "MissingET.MET.offsets"}
    jets = ak.unflatten(arrays["Jet.PT"], np.diff(arrays["Jet.PT.offsets"]))
    assert ak.array_equal(jets, expected["Jet.PT"], dtype_exact=False) and arrays["Jet.PT"].dtype == np.float32
    sapwood("export", nested, "-o", out, "--force")
    arrays = np.load(out)
    assert np.array_equal(arrays["matrix"], np.arange(24, dtype=np.int16).reshape(4, 2, 3))
    assert arrays["flag"].dtype == bool and arrays["large"].tolist() == [0, 2**63, 2**64 - 1, 5]
    text, ends = arrays["text"].tobytes(), arrays["text.offsets"]
    assert [text[a:b] for a, b in zip(ends, ends[1:], strict=False)][1] == b'with "quotes", and comma'


def test_npz_of_everything_in_a_file(sapwood, tmp_path, shared_data):
    """Nested lists and records: the arrays rebuild what Arrow has."""
    import sapwood as library

    path = shared_data / "corpus/scikit-hep-testdata/uproot-small-evnt-tree-nosplit.root"
    out = tmp_path / "out.npz"
    sapwood("export", path, "-o", out)
    arrays, table = np.load(out), library.open(path)["tree"].arrow()
    event = table["evt"].combine_chunks()
    numbers = 0
    for i in range(event.type.num_fields):
        field, name = event.field(i), f"evt.{event.type.field(i).name}"
        if pa.types.is_primitive(field.type):
            assert np.array_equal(arrays[name], field.to_numpy(zero_copy_only=False)), name
            numbers += 1
        elif pa.types.is_list(field.type):
            assert np.array_equal(arrays[f"{name}.offsets"], field.offsets.to_numpy()), name
    assert numbers >= 9


def test_export_refuses_and_leaves_nothing_behind(sapwood, tmp_path):
    out = tmp_path / "out.parquet"

    def fails(code, words, *arguments):
        result = sapwood("export", *arguments, check=False)
        assert result.returncode == code and words in result.stderr, result.stderr
        assert not [name for name in os.listdir(tmp_path) if "partial" in name]

    fails(2, "no output", FILE)
    fails(2, "no input", "-o", out)
    fails(2, "parquet, arrow, csv and npz", FILE, "-o", tmp_path / "out.txt")
    fails(2, "FIRST:END", FILE, "-o", out, "--entries", "5")
    fails(2, "unknown option", FILE, "-o", out, "--colums", "x")
    fails(2, "needs a value", FILE, "-o", out, "--where")
    fails(1, "nearest: Jet.PT", FILE, "-o", out, "--columns", "Jet.pt")
    fails(1, "Jet.PT[0] is its first item", FILE, "-o", out, "--where", "Jet.PT > 30")
    fails(1, "no branch \"nix\"", FILE, "-o", out, "--where", "nix > 30")
    fails(2, "at character 12", FILE, "-o", out, "--where", "Jet_size > ")
    fails(2, "another tree", FILE, f"{SAMPLE / 'qcd.root'}:Other", "-o", out)
    fails(1, "nix.root", tmp_path / "nix.root", "-o", out)
    assert os.listdir(tmp_path) == []
    out.write_text("kept")
    fails(2, "exists already", FILE, "-o", out)
    assert out.read_text() == "kept"
    sapwood("export", FILE, "-o", out, "--force", "--columns", "Jet_size")
    assert pq.read_table(out).num_rows == 800


@pytest.mark.parametrize("ending", ["parquet", "arrow", "csv", "npz"])
def test_a_full_disk_is_an_error(sapwood, tmp_path, ending):
    import resource

    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))}
    result = sapwood("export", FILE, "-o", tmp_path / f"out.{ending}", check=False, **limit)
    assert result.returncode == 1 and f"out.{ending}" in result.stderr and "large" in result.stderr, result.stderr
    assert os.listdir(tmp_path) == []


def test_files_of_other_columns_are_refused(sapwood, tmp_path):
    for name, values in (("a", np.arange(3, dtype=np.int32)), ("b", np.arange(3.0))):
        with uproot.recreate(tmp_path / f"{name}.root") as file:
            file["t"] = {"x": values}
    result = sapwood("export", tmp_path / "*.root", "-o", tmp_path / "x.csv", check=False)
    assert result.returncode == 1 and "b.root" in result.stderr and "float64" in result.stderr and "int32" in result.stderr


def test_compare_same(sapwood, tmp_path):
    same = sapwood("compare", FILE, SAMPLE / "ttbar.root")
    assert same.stdout == "same: 800 entries of 43 columns\n"
    with uproot.open(FILE) as tree, uproot.recreate(tmp_path / "copy.root") as copy:
        copy["again"] = {"Jet.PT": tree["Jet/Jet.PT"].array(), "Jet_size": tree["Jet_size"].array()}
    again = f"{tmp_path / 'copy.root'}:again"
    assert "same: 800 entries of 2 columns" in sapwood("compare", FILE, again, "--columns", "Jet.PT,Jet_size").stdout
    some = sapwood("compare", FILE, again, "--columns", "Jet_size", "--entries", "10:20", "--where", "Jet_size > 3").stdout
    assert "same: " in some and " of 1 columns" in some


def test_compare_different(sapwood, tmp_path):
    paths = [tmp_path / "a.root", tmp_path / "b.root"]
    x = np.array([1.0, 2.0, math.nan, -0.0, 5.0])
    lists = [[1, 2], [3], [], [4, 5, 6], []]
    changed = x * np.array([1, 1 + 1e-9, 1, -1, 1])
    other = [[1, 2], [3], [], [4, 7, 6], [8]]
    for path, values, items, extra in zip(paths, (x, changed), (lists, other), ("only_a", "only_b"), strict=True):
        with uproot.recreate(path) as file:
            file["t"] = {
                "x": values, "l": ak.Array(items), extra: x, "same": x,
                "kind": np.arange(5).astype(np.float32 if extra == "only_a" else np.int32),
            }  # fmt: skip
    result = sapwood("compare", *paths, check=False)
    lines = set(result.stdout.splitlines())
    assert result.returncode == 1
    assert {
        "only_a: only in the first", "only_b: only in the second", "kind: float32, int32",
        "x, entry 1: 2, 2.0000000020000002", "x, entry 3: -0, 0",
        "l[1], entry 3: 5, 7", "l, entry 4: 0 items, 1",
    } <= lines  # fmt: skip
    assert sapwood("compare", *paths, "--columns", "x", "--tolerance", "1e-8").stdout.startswith("same")
    assert sapwood("compare", *paths, "--columns", "x", "--tolerance", "1e-10", check=False).returncode == 1
    assert sapwood("compare", *paths, "--columns", "x", "--limit", 1, check=False).stdout.count("entry") == 1
    quiet = sapwood("compare", *paths, "--quiet", check=False)
    assert (quiet.returncode, quiet.stdout) == (1, "")
    fewer = sapwood("compare", SAMPLE / "qcd.root", FILE, "--columns", "Jet_size", check=False)
    assert "710 entries, 800" in fewer.stdout


def test_compare_usage(sapwood, tmp_path):
    assert sapwood("compare", FILE, check=False).returncode == 2
    assert sapwood("compare", FILE, tmp_path / "nix.root", check=False).returncode == 2
    assert sapwood("compare", FILE, FILE, "--tolerance", "much", check=False).returncode == 2
    assert sapwood("compare", FILE, FILE, "--tolerance", "-1", check=False).returncode == 2
    assert "Exit status" in sapwood("compare", "--help").stdout


def test_an_export_can_be_compared_with_what_it_came_from(sapwood, tmp_path):
    """The sum over a column, by another library, from the exported file."""
    out = tmp_path / "jets.parquet"
    sapwood("export", FILE, "-o", out, "--columns", "Jet.PT")
    with uproot.open(FILE) as tree:
        want = float(ak.to_numpy(ak.flatten(tree["Jet/Jet.PT"].array())).astype(np.float64).sum())
    assert pc.sum(pc.cast(pc.list_flatten(pq.read_table(out)["Jet.PT"]), pa.float64())).as_py() == pytest.approx(want, rel=1e-12)


# A process inherits the peak of the one that forks it: so a small one does.
MEASURED = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_export_in_little_memory(sapwood, tmp_path):
    """A table much larger than a batch: peak memory stays below it."""
    import subprocess
    import sys

    from conftest import COMMAND

    rows = 4_000_000
    path = tmp_path / "large.root"
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        file.mktree("t", {"x": np.float64, "y": np.float64, "z": np.float64, "w": np.float64})
        for begin in range(0, rows, 500_000):
            values = np.arange(begin, begin + 500_000) % 1000 * 0.25
            file["t"].extend({"x": values, "y": values, "z": values, "w": values})
    for ending in ("parquet", "npz"):
        out = tmp_path / f"large.{ending}"
        command = [sys.executable, "-c", MEASURED, COMMAND, "export", str(path), "-o", str(out), "--quiet"]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        assert peak < 250_000, f"{ending}: {peak} kB"
    assert pq.read_metadata(tmp_path / "large.parquet").num_rows == rows
    assert np.array_equal(np.load(tmp_path / "large.npz")["w"], np.arange(rows) % 1000 * 0.25)
