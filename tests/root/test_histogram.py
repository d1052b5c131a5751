"""Histograms: every kind that ROOT writes, and those of the corpus, against ROOT itself (in a process of its own) and uproot."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import sapwood

# What ROOT says of every histogram of the files: contents, errors and edges with under- and overflow, as JSON.
WITNESS = """
import json, math, sys
import ROOT
ROOT.gErrorIgnoreLevel = ROOT.kFatal
ROOT.TH1.AddDirectory(False)

def describe(h):
    axes = [h.GetXaxis(), h.GetYaxis(), h.GetZaxis()][: h.GetDimension()]
    cells = range(h.GetNcells())
    return {
        "name": h.GetName(), "title": h.GetTitle(), "entries": h.GetEntries(),
        "shape": [axis.GetNbins() + 2 for axis in axes],
        "values": [h.GetBinContent(i) for i in cells],
        "errors": [repr(h.GetBinError(i)) for i in cells],
        "edges": [
            [axis.GetBinLowEdge(i) for i in range(1, axis.GetNbins() + 1)] + [axis.GetBinUpEdge(axis.GetNbins())] for axis in axes
        ],
        "labels": [[axis.GetBinLabel(i) for i in range(1, axis.GetNbins() + 1)] for axis in axes],
    }

for line in sys.stdin:
    path, names = json.loads(line)
    file = ROOT.TFile.Open(path)
    print(json.dumps({name: describe(file.Get(name)) for name in names}), flush=True)
"""

WRITER = """
import sys
import ROOT
file = ROOT.TFile(sys.argv[1], "RECREATE")
rng = ROOT.TRandom3(7)
from array import array
edges = array("d", [-3, -1, -0.5, 0, 0.25, 2, 3.5])

def fill(h, n=500, weighted=False):
    for _ in range(n):
        point = [rng.Gaus(0, 1.5) for _ in range(h.GetDimension())]
        if h.InheritsFrom("TProfile") or h.InheritsFrom("TProfile2D") or h.InheritsFrom("TProfile3D"):
            point.append(round(rng.Gaus(5, 2)) if "integer" in h.GetName() else rng.Gaus(5, 2))
        h.Fill(*point, *([rng.Uniform(0.5, 2)] if weighted else []))
    h.Write()

for letter in "CSIFDL":
    fill(getattr(ROOT, "TH1" + letter)("one_" + letter, "one dimension", 20, -3, 3), 300)
    fill(getattr(ROOT, "TH2" + letter)("two_" + letter, "", 5, -3, 3, 7, -2, 2), 300)
    fill(getattr(ROOT, "TH3" + letter)("three_" + letter, "", 3, -3, 3, 4, -2, 2, 5, -1, 1), 300)
fill(ROOT.TH1D("weighted", "", 20, -3, 3), weighted=True)
fill(ROOT.TH2F("weighted_two", "", 5, -3, 3, 7, -2, 2), weighted=True)
fill(ROOT.TH1D("variable", "", 6, edges))
fill(ROOT.TH2D("variable_two", "", 6, edges, 4, -2, 2))
negative = ROOT.TH1D("negative", "", 3, 0, 3)
negative.SetBinContent(1, -4.0)
negative.Write()
for option in ("", "s", "i", "g"):
    fill(ROOT.TProfile("profile_" + option, "", 10, -3, 3, option))
    fill(ROOT.TProfile("profile_integer_" + option, "", 10, -3, 3, option), 40)
    fill(ROOT.TProfile("profile_weighted_" + option, "", 10, -3, 3, option), weighted=True)
    fill(ROOT.TProfile2D("profile_two_" + option, "", 5, -3, 3, 4, -2, 2, option))
fill(ROOT.TProfile3D("profile_three", "", 3, -3, 3, 3, -2, 2, 3, -1, 1), weighted=True)
labels = ROOT.TH1I("labels", "with labels", 3, 0, 3)
for i, label in enumerate(("µ", "e", "τ decays"), 1):
    labels.GetXaxis().SetBinLabel(i, label)
    labels.SetBinContent(i, 10 * i)
labels.GetXaxis().SetTitle("channel")
labels.Fit("pol0", "Q0")  # a function in its list
labels.Write()
some = ROOT.TH2D("some_labels", "", 3, 0, 3, 2, 0, 2)
some.GetXaxis().SetBinLabel(2, "only one")
some.GetYaxis().SetBinLabel(1, "first")
some.GetYaxis().SetBinLabel(2, "second")
some.Write()
file.mkdir("folder").cd()
ROOT.TH1F("inside", "", 4, 0, 1).Write()
waiting = ROOT.TH1D("waiting", "", 10, 0, 0)
waiting.Fill(1)
file.cd()
waiting.Write()
file.Close()
"""


def python(code, *arguments, **options):
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], check=True, capture_output=True, text=True, **options)


def ask_root(files):
    """{path: {name: what ROOT says}} for {path: names}."""
    lines = "\n".join(json.dumps([str(path), names]) for path, names in files.items())
    answers = [json.loads(line) for line in python(WITNESS, input=lines).stdout.splitlines() if line.startswith("{")]
    return dict(zip(files, answers, strict=True))


def check(h, want):
    """Ours against what ROOT says; ROOT's cells run x first."""
    assert (h.name, h.title, h.entries) == (want["name"], want["title"], want["entries"])
    assert [len(axis) + 2 for axis in h.axes] == want["shape"]
    assert np.array_equal(h.values(flow=True).T.ravel(), want["values"])
    errors = np.array([float(error) for error in want["errors"]])
    assert np.allclose(h.errors(flow=True).T.ravel(), errors, rtol=1e-12, atol=0, equal_nan=True)
    for axis, edges, labels in zip(h.axes, want["edges"], want["labels"], strict=True):
        assert np.array_equal(axis.edges, edges)
        assert [label or "" for label in axis.labels or [""] * len(axis)] == labels


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    if importlib.util.find_spec("ROOT") is None:  # not imported here: it must not share a process with us
        pytest.skip("no ROOT")
    path = tmp_path_factory.mktemp("histograms") / "all.root"
    python(WRITER, path)
    return path


@pytest.fixture(scope="module")
def root_says(written):
    names = [key for key in sapwood.open(written).histograms() if key != "waiting"]
    return ask_root({written: names})[written]


def test_everything_that_root_writes(written, root_says):
    file = sapwood.open(written)
    assert len(root_says) == 18 + 5 + 16 + 1 + 2 + 1
    for name, want in root_says.items():
        check(file[name], want)


def test_shapes_flow_and_labels(written):
    file = sapwood.open(written)
    h = file["three_D"]
    assert h.kind == "COUNT" and h.values().shape == (3, 4, 5) and h.values(flow=True).shape == (5, 6, 7)
    assert np.array_equal(h.values(flow=True)[1:-1, 1:-1, 1:-1], h.values())
    assert h.edges(2, flow=True)[0] == -np.inf and len(h.edges(1)) == 5
    values, *edges = h.to_numpy()
    assert values.shape == tuple(len(e) - 1 for e in edges)
    labels = file["labels"].axes[0]
    assert list(labels) == ["µ", "e", "τ decays"] and labels.traits.discrete and labels.title == "channel"
    assert file["some_labels"].axes[0].labels == [None, "only one", None]
    assert file["some_labels"].axes[0][1] == (1.0, 2.0) and list(file["some_labels"].axes[1]) == ["first", "second"]
    assert file["folder/inside"].values().shape == (4,)
    assert "TProfile" in repr(file["profile_s"]) and file["profile_s"].error_option == "s"
    assert file["weighted"] == file["weighted"] and file["weighted"] != file["variable"]


def test_a_buffer_that_root_has_not_emptied_is_an_error_not_zeros(written):
    with pytest.raises(sapwood.Error, match="1 entries stand in its buffer"):
        sapwood.open(written)["waiting"]


def test_as_hist_and_boost_like_uproot(written):
    uproot = pytest.importorskip("uproot")
    import boost_histogram as bh
    import hist

    file, other = sapwood.open(written), uproot.open(written)
    storages = set()
    for name in file.histograms():
        if name == "waiting":
            continue
        h = file[name]
        ours = h.hist()
        assert isinstance(ours, hist.Hist) and ours.ndim == h.ndim
        assert np.array_equal(bh.Histogram(h).values(flow=True), ours.values(flow=True))
        assert np.array_equal(ours.values(), h.values())
        storages.add(type(ours.storage_type() if isinstance(ours.storage_type, type) else ours.storage_type).__name__)
        if name == "some_labels" or (h.is_profile and h.ndim > 1):  # uproot has no conversion
            continue
        theirs = other[name].to_hist()
        assert np.array_equal(ours.values(flow=True), theirs.values(flow=True))
        if not h.is_profile:  # uproot takes no absolute value of a negative content
            assert name == "negative" or np.allclose(ours.variances(flow=True), theirs.variances(flow=True), rtol=1e-12)
        else:
            assert np.allclose(ours.variances(), theirs.variances(), rtol=1e-9, equal_nan=True)
            assert np.allclose(ours.counts(), theirs.counts(), rtol=1e-9)
        for axis, their_axis in zip(ours.axes, theirs.axes, strict=True):
            assert np.allclose(axis.edges, their_axis.edges) and axis.name == their_axis.name
    assert storages == {"Double", "Weight", "Mean", "WeightedMean"}


def test_uhi_protocol(written):
    from uhi.typing.plottable import PlottableHistogram

    for name in ("one_F", "weighted_two", "profile_"):
        h = sapwood.open(written)[name]
        assert isinstance(h, PlottableHistogram)
        assert h.counts().shape == h.values().shape
    weighted = sapwood.open(written)["weighted"]
    want = weighted.values() ** 2 / np.where(weighted.variances() > 0, weighted.variances(), 1)
    assert np.allclose(weighted.counts(), want)


def test_the_corpus(shared_data):
    """All histograms of the corpus: those that ROOT can read too are the same, and only buffered ones are not read."""
    corpus, unread = {}, []
    for path in sorted((shared_data / "corpus").rglob("*.root")):
        try:
            file = sapwood.open(path)
        except sapwood.Error:
            continue
        for key in file.objects():
            if not key["class_name"].startswith(("TH1", "TH2", "TH3", "TProfile")):
                continue
            name = f"{key['path']};{key['cycle']}"
            try:
                corpus.setdefault(path, {})[name] = file[name]
            except sapwood.Error as error:
                unread.append((path.name, name, str(error)))
    assert [item for item in unread if "stand in its buffer" not in item[2]] == []
    assert len(unread) <= 5
    assert sum(map(len, corpus.values())) >= 250
    for path, says in ask_root({path: list(histograms) for path, histograms in corpus.items()}).items():
        for name, want in says.items():
            check(corpus[path][name], want)
