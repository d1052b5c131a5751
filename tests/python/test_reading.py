"""Reading in Python: columns as awkward, NumPy and pandas, many files, conditions; beside uproot where it has the same habit."""

import io
import os

import awkward as ak
import numpy as np
import pandas
import pyarrow as pa
import pytest
import sapwood
import uproot
from conftest import SAMPLE

FILES = [SAMPLE / name for name in ("qcd.root", "ttbar.root", "wjets.root")]
COLUMNS = ["Jet.PT", "Jet_size"]


@pytest.fixture(scope="module")
def tree():
    return sapwood.open(f"{SAMPLE / 'ttbar.root'}:Delphes")


@pytest.fixture(scope="module")
def other():
    with uproot.open(SAMPLE / "ttbar.root") as file:
        yield file["Delphes"]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """A tree with a column of each kind that arrays are made of."""
    path = tmp_path_factory.mktemp("kinds") / "kinds.root"
    with uproot.recreate(path) as file:
        file["t"] = {
            "number": np.arange(5, dtype=np.int64),
            "flag": np.array([True, False, True, True, False]),
            "matrix": np.arange(30, dtype=np.float32).reshape(5, 2, 3),
            "jagged": ak.Array([[1.5], [], [2.5, 3.5], [], [4.5]]),
            "text": ["a", "bc", "", "déf", "g"],
        }
    return path


def test_names_and_types(tree, other):
    assert tree.keys("Jet.*") == ["Jet.PT", "Jet.Eta", "Jet.Phi", "Jet.Mass", "Jet.BTag"]
    assert tree.keys(["Jet_*", "Electron_size"]) == ["Jet_size", "Electron_size"]
    assert tree.keys(lambda name: name.endswith(".MET")) == ["MissingET.MET"]
    assert tree.typenames("Jet.BTag") == {"Jet.BTag": "unsigned int"} and tree.num_entries == other.num_entries
    assert "Jet.PT" in tree and "Jet/Jet.PT" in tree and "Jet.P" not in tree
    column = tree["Jet/Jet.PT"]
    assert (column.name, column.typename, column.type) == ("Jet.PT", "float", "list<float32>")
    text = io.StringIO()
    tree.show("Jet*", stream=text)
    lines = text.getvalue().splitlines()
    assert lines[0].split() == ["column", "C++", "type", "type"]
    assert lines[2].split() == ["Jet.PT", "float", "list<float32>"] and lines[2].startswith("  Jet.PT")


def test_files(tmp_path):
    with sapwood.open(FILES[0]) as file:
        assert "Delphes" in file.keys(cycle=False) and file.keys("Del*") == ["Delphes;1"] and len(file) == len(file.keys())
        assert file.classnames()["Delphes;1"] == "TTree" and isinstance(file["Delphes;1"], sapwood.Tree)
        assert file.histograms() == [] and file.note is None
    place = os.fsencode(tmp_path) + b"/odd \xff name.root"
    with open(place, "wb") as out:
        out.write(FILES[0].read_bytes())
    assert sapwood.open(place)["Delphes"].entries == 710  # bytes
    assert sapwood.open(os.fsdecode(place))["Delphes"].entries == 710  # surrogates
    assert sapwood.open(f"{os.fsdecode(place)}:Delphes").entries == 710
    colon = tmp_path / "a:b.root"
    colon.write_bytes(FILES[0].read_bytes())
    assert isinstance(sapwood.open(str(colon)), sapwood.File) and isinstance(sapwood.open(colon), sapwood.File)


def test_what_is_not_there_is_a_key_error_or_a_missing_file(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.root"):
        sapwood.open(tmp_path / "none.root")
    for ask in (lambda: tree["Jet.pt"], lambda: tree.arrow(["Jet.pt"]), lambda: tree.awkward(where="Jet_siz > 1")):
        with pytest.raises(KeyError, match="nearest: Jet") as caught:
            ask()
        assert isinstance(caught.value, sapwood.Error) and caught.value.status == "not found"
        assert not str(caught.value).startswith("'")
    with pytest.raises(sapwood.Error, match="a text can be compared|is list<float32>"):
        tree.arrow(COLUMNS, where="Jet.PT > 3")
    with pytest.raises(ValueError, match="library"):
        tree.arrays(COLUMNS, library="torch")


def test_awkward(tree, other):
    ours, theirs = tree.awkward(COLUMNS), other.arrays(["Jet/Jet.PT", "Jet_size"])
    assert str(ours.type) == '800 * {"Jet.PT": var * float32, Jet_size: int32}'
    assert ak.array_equal(ours["Jet.PT"], theirs["Jet/Jet.PT"]) and ak.array_equal(ours["Jet_size"], theirs["Jet_size"])
    assert ak.array_equal(tree["Jet.PT"].array(10, 20), theirs["Jet/Jet.PT"][10:20])
    assert len(tree.awkward("Jet_size", where="Jet_size > 1000")) == 0


def test_awkward_copies_nothing(tree):
    table = tree.arrow(["Jet.PT"])
    assert table["Jet.PT"].num_chunks == 1
    address = table["Jet.PT"].chunk(0).values.buffers()[1].address
    flat = np.asarray(ak.flatten(ak.from_arrow(table)["Jet.PT"], axis=None))
    assert flat.__array_interface__["data"][0] == address


def test_numpy_like_uproot(kinds):
    ours = sapwood.open(f"{kinds}:t").numpy()
    theirs = uproot.open(f"{kinds}:t").arrays(library="np")
    assert set(theirs) - {"njagged"} <= set(ours)
    for name in ("number", "flag", "matrix"):
        assert ours[name].dtype == theirs[name].dtype and np.array_equal(ours[name], theirs[name])
    assert ours["jagged"].dtype == object and ours["jagged"].shape == (5,)
    for a, b in zip(ours["jagged"], theirs["jagged"], strict=True):
        assert isinstance(a, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    assert ours["text"].dtype == object and ours["text"].tolist() == theirs["text"].tolist()
    part = sapwood.open(f"{kinds}:t").numpy(["jagged", "matrix"], 2, 4)
    assert [item.tolist() for item in part["jagged"]] == [[2.5, 3.5], []] and np.array_equal(part["matrix"], ours["matrix"][2:4])


def test_numpy_of_nested_columns(shared_data):
    path = shared_data / "corpus/scikit-hep-testdata/uproot-small-evnt-tree-nosplit.root"
    event = sapwood.open(path)["tree"].numpy(["evt"], 0, 3)["evt"]
    assert event.dtype == object and event[1]["Beg"] == "beg-001" and event[2]["SliceU64"] == [2, 2]
    leaves = shared_data / "corpus/root-project_roottest/root/tree/addresses/leaflist.root"
    particle = sapwood.open(leaves)["VBF"].numpy()["Particle"]  # uproot cannot read this one
    assert particle.dtype["pt"] == np.dtype((np.float64, (6,))) and particle["pt"].shape == (len(particle), 6)
    simple = shared_data / "corpus/root-project_roottest/root/tree/selectorreader/trees/TreeStruct.root"
    ours = sapwood.open(simple)["TreeStruct"].numpy()["simple"]
    theirs = uproot.open(simple)["TreeStruct"]["simple"].array(library="np")
    assert ours.dtype.names == theirs.dtype.names
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours.dtype.names)


def test_pandas(kinds, tree, shared_data):
    frame = sapwood.open(f"{kinds}:t").pandas(["number", "flag", "jagged", "matrix", "text"], 1, 4)
    assert list(frame.index) == [1, 2, 3] and frame["number"].dtype == np.int64 and frame["flag"].dtype == bool
    assert frame["jagged"][2].tolist() == [2.5, 3.5] and frame["matrix"][1].shape == (2, 3)
    assert frame["text"].tolist() == ["bc", "", "déf"]
    some = tree.pandas(COLUMNS, where="Jet_size >= 9")
    assert isinstance(some, pandas.DataFrame) and (some["Jet_size"] >= 9).all() and list(some.index[:2]) == [0, 1]
    leaves = shared_data / "corpus/root-project_roottest/root/tree/addresses/leaflist.root"
    record = sapwood.open(leaves)["VBF"].pandas(["Particle"])
    assert list(record.columns[:2]) == ["Particle.pt", "Particle.pt_res"] and record["Particle.id"][0].shape == (6,)


def test_iterate(tree, other):
    whole = tree.awkward(COLUMNS)
    parts = list(tree.iterate(COLUMNS, step=300))
    assert [len(part) for part in parts] == [300, 300, 200]
    assert ak.array_equal(ak.concatenate(parts), whole)
    bytes_apart = [len(part) for part in tree.iterate("*", step="1 MB")]
    assert sum(bytes_apart) == 800 and len(bytes_apart) > 4
    frames = list(tree.iterate("Jet_size", step=250, library="pd", begin=100, end=700))
    assert [frame.index[0] for frame in frames] == [100, 350, 600]
    assert pandas.concat(frames)["Jet_size"].to_numpy().tolist() == other["Jet_size"].array(library="np")[100:700].tolist()
    kept = ak.concatenate(list(tree.iterate(COLUMNS, step=100, where="Jet_size > 6")))
    assert ak.array_equal(kept, whole[whole["Jet_size"] > 6])
    for step in (0, "lots", "3 apples", "0 MB"):
        with pytest.raises(ValueError, match="step"):
            next(tree.iterate(COLUMNS, step=step))


def test_many_files_like_uproot():
    want = uproot.concatenate([f"{path}:Delphes" for path in FILES], ["Jet/Jet.PT", "Jet_size"])
    for files in (FILES, f"{SAMPLE}/*.root:Delphes", [f"{path}:Delphes" for path in FILES], {path: "Delphes" for path in FILES}):
        got = sapwood.concatenate(files, COLUMNS)
        assert ak.array_equal(got["Jet.PT"], want["Jet/Jet.PT"]) and ak.array_equal(got["Jet_size"], want["Jet_size"])
    parts = list(sapwood.iterate(FILES, "Jet_size", step=400, library="np"))
    assert np.array_equal(np.concatenate([part["Jet_size"] for part in parts]), ak.to_numpy(want["Jet_size"]))
    assert max(len(part["Jet_size"]) for part in parts) <= 400
    table = sapwood.concatenate(FILES, "Jet_size", library="pa", begin=700, end=720, where="Jet_size > 3")
    assert table["Jet_size"].to_pylist() == [n for n in want["Jet_size"][700:720].to_list() if n > 3]
    with pytest.raises(sapwood.Error, match="none.root"):
        sapwood.concatenate(SAMPLE / "none.root")


def test_friends(tmp_path):
    values = np.arange(10.0)
    for name, columns in (("main", {"x": values}), ("more", {"y": values * 2, "x": -values})):
        with uproot.recreate(tmp_path / f"{name}.root") as file:
            file["t"] = columns
    tree = sapwood.open(f"{tmp_path / 'main.root'}:t").add_friend(sapwood.open(f"{tmp_path / 'more.root'}:t"), "more")
    got = tree.numpy(["x", "y", "more.x"], where="y >= 6 && more.x > -8")
    assert [array.tolist() for array in got.values()] == [[3, 4, 5, 6, 7], [6, 8, 10, 12, 14], [-3, -4, -5, -6, -7]]
    with pytest.raises(TypeError):
        tree._tree.add_friend("t", None)


def test_export_and_compare(tree, tmp_path):
    out = tmp_path / "out.arrow"
    news = []
    counts = sapwood.export(FILES, out, COLUMNS, where="Jet_size > 3", progress=lambda *news_: news.append(news_))
    table = pa.ipc.open_file(out).read_all()
    assert counts == {"read": 2310, "written": len(table), "bytes": out.stat().st_size} and len(table) < 2310
    assert news and news[-1][:2] == ("export", "entries") and news[-1][2] <= 2310
    assert tree.export(tmp_path / "a.npz", "Jet_size")["written"] == 800
    with pytest.raises(sapwood.Error, match="exists already"):
        tree.export(tmp_path / "a.npz", "Jet_size")
    assert tree.export(tmp_path / "a.npz", "Jet_size", 0, 10, replace=True)["written"] == 10
    same = sapwood.compare(tree, f"{FILES[1]}:Delphes")
    assert same["same"] and same["columns"] == 43 and same["differences"] == []
    different = sapwood.compare(FILES[0], FILES[1], "Jet_size", 0, 100, limit=2)
    assert not different["same"] and len(different["differences"]) == 2
    column, entry, place, text = different["differences"][0]
    sizes = [sapwood.open(path)["Delphes"].numpy("Jet_size")["Jet_size"][entry] for path in FILES[:2]]
    assert (column, place, text) == ("Jet_size", "", f"{sizes[0]}, {sizes[1]}")


def test_a_callback_that_raises_ends_the_export(tmp_path):
    def stop(*news):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        sapwood.export(FILES * 20, tmp_path / "out.csv", progress=stop)
    assert os.listdir(tmp_path) == []


def test_a_stream_that_fails_raises_our_error(tmp_path):
    damaged = tmp_path / "damaged.root"
    data = bytearray(FILES[0].read_bytes())
    place = next(i for i in range(len(data) // 3, len(data)) if data[i : i + 2] in (b"ZS", b"ZL", b"XZ", b"L4"))
    data[place + 9 : place + 200] = bytes(191)
    damaged.write_bytes(data)
    with pytest.raises(sapwood.Error, match="damaged.root"):
        sapwood.open(damaged)["Delphes"].awkward()
