"""Members of classes that the corpus has none or few of, in a file that ROOT writes here with classes of our own, in every way of splitting;
crashed writers; friends; cycles; files of more than 2 GB."""

import os
import subprocess
import sys

import pytest

from test_judged import plain

pytest.importorskip("ROOT")

CLASSES = r"""
#ifndef SAPWOOD_TYPES
#define SAPWOOD_TYPES
#include <bitset>
#include <list>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>
#include "TBits.h"
#include "TClonesArray.h"
#include "TList.h"
#include "TLorentzVector.h"
#include "TMap.h"
#include "TObjArray.h"
#include "TObjString.h"
#include "TObject.h"
#include "TRef.h"
#include "TString.h"

struct Plain { double x = 0; std::vector<int> v; };
class Hit : public TObject {
public:
    int id = 0;
    float e = 0;
    Hit *next = nullptr; // a class that holds itself
    ClassDef(Hit, 1)
};
class StripHit : public Hit {
public:
    short strip = 0;
    ClassDef(StripHit, 1)
};
class Everything : public TObject {
public:
    Hit *one = nullptr;
    Hit *none = nullptr;
    Hit *again = nullptr; // what `one` points to
    std::vector<Hit *> hits;
    TObjArray array;
    TList list;
    TClonesArray clones{"Hit"};
    TMap named;
    std::bitset<12> bits;
    std::multiset<int> several;
    std::unordered_map<int, float> hashed;
    std::unordered_set<short> set;
    std::multimap<int, std::string> multi;
    std::map<int, Plain> plains;
    std::vector<Plain> vector;
    std::vector<std::vector<Plain>> nested;
    std::list<float> linked;
    TString text;
    char *chars = nullptr;
    std::vector<int> *pointed = nullptr;
    int n = 0;
    Plain *loop = nullptr;    //[n]
    short *counted = nullptr; //[n]
    Double32_t packed = 0;    //[0,10,12]
    TLorentzVector p;
    TBits flags;
    TRef ref;
    ClassDef(Everything, 1)
};
#endif
"""

WRITER = r"""
#include "classes.h"
#include "TFile.h"
#include "TTree.h"

#ifdef __CLING__
#pragma link C++ struct Plain+;
#pragma link C++ class Hit+;
#pragma link C++ class StripHit+;
#pragma link C++ class Everything+;
#pragma link C++ class std::bitset<12>+;
#pragma link C++ class std::multiset<int>+;
#pragma link C++ class std::unordered_map<int, float>+;
#pragma link C++ class std::unordered_set<short>+;
#pragma link C++ class std::multimap<int, std::string>+;
#pragma link C++ class std::map<int, Plain>+;
#pragma link C++ class std::vector<Plain>+;
#pragma link C++ class std::vector<std::vector<Plain>>+;
#pragma link C++ class std::vector<Hit *>+;
#pragma link C++ class std::list<float>+;
#endif

Plain make_plain(int k) { Plain p; p.x = k + 0.5; p.v.assign(k % 3, k); return p; }
template <class T> T *make_hit(int id) { T *h = new T; h->id = id; h->e = id * 0.25f; return h; }

void writer(const char *path, int split, int entries) {
    TFile file(path, "RECREATE");
    TTree tree("t", "t");
    Everything *e = new Everything;
    tree.Branch("e.", &e, 8000, split);
    for (int i = 0; i < entries; i++) {
        delete e;
        e = new Everything;
        e->one = i % 3 ? make_hit<Hit>(i) : nullptr;
        e->again = e->one;
        if (e->one) e->one->next = make_hit<Hit>(i + 1000);
        for (int k = 0; k < i % 4; k++) {
            StripHit *strip = make_hit<StripHit>(10 * i + k);
            strip->strip = k;
            e->hits.push_back(k == 0 ? make_hit<Hit>(10 * i) : k == 1 ? nullptr : strip);
            e->array.Add(make_hit<Hit>(20 * i + k));
            e->list.Add(make_hit<Hit>(30 * i + k));
            Hit *clone = (Hit *)e->clones.ConstructedAt(k);
            clone->id = 40 * i + k;
            clone->e = k;
            e->bits.set((i + k) % 12);
            e->several.insert(k / 2);
            e->hashed[7] = i + k;
            e->set.insert(5);
            e->multi.insert({k / 2, std::string(1, 'a' + k)});
            e->plains[k] = make_plain(i + k);
            e->vector.push_back(make_plain(i + k));
            e->nested.push_back(std::vector<Plain>(k, make_plain(i)));
            e->linked.push_back(k * 0.5f);
            e->flags.SetBitNumber(3 * k);
        }
        if (i % 4) e->named.Add(new TObjString("key"), new TObjString(TString::Format("value%d", i)));
        e->text = TString('x', i % 300);
        e->chars = new char[8];
        snprintf(e->chars, 8, "c%d", i);
        e->pointed = new std::vector<int>(i % 3, i);
        e->n = i % 4;
        e->loop = new Plain[e->n];
        e->counted = new short[e->n];
        for (int k = 0; k < e->n; k++) { e->loop[k] = make_plain(k); e->counted[k] = i + k; }
        e->packed = i % 10;
        e->p.SetPxPyPzE(i, 1, 2, 3);
        tree.Fill();
    }
    tree.Write();
}
"""


def make_plain(k):
    return {"x": k + 0.5, "v": [k] * (k % 3)}


def hit(id, e=None):
    return {"id": id, "e": id * 0.25 if e is None else e}


def expected(i):
    few = range(i % 4)
    bits = [False] * 12
    for k in few:
        bits[(i + k) % 12] = True
    one = hit(i) if i % 3 else None
    return {
        "one": one,
        "none": None,
        "again": one,
        "hits": [hit(10 * i) if k == 0 else None if k == 1 else hit(10 * i + k) for k in few],
        "array": [hit(20 * i + k) for k in few],
        "list": [hit(30 * i + k) for k in few],
        "clones": [hit(40 * i + k, float(k)) for k in few],
        "named": [{"key": {"fString": "key"}, "value": {"fString": f"value{i}"}}] if i % 4 else [],
        "bits": bits,
        "several": sorted(k // 2 for k in few),
        "hashed": [{"first": 7, "second": float(i + i % 4 - 1)}] if few else [],
        "set": [5] if few else [],
        "multi": [{"first": k // 2, "second": "abc"[k]} for k in few],
        "plains": [{"first": k, "second": make_plain(i + k)} for k in few],
        "vector": [make_plain(i + k) for k in few],
        "nested": [[make_plain(i)] * k for k in few],
        "linked": [k * 0.5 for k in few],
        "text": "x" * (i % 300),
        "chars": f"c{i}",
        "pointed": [i] * (i % 3),
        "n": i % 4,
        "loop": [make_plain(k) for k in few],
        "counted": [i + k for k in few],
        "packed": int(0.5 + (i % 10) * 4096 / 10) * 10 / 4096,
        "p": {"fP": {"fX": float(i), "fY": 1.0, "fZ": 2.0}, "fE": 3.0},
        "ref": {"ref": 0},
    }


def root(folder, code, *arguments, status=0):
    """Runs ROOT in a process of its own: it and our library share none."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == status, done.stdout + done.stderr


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The classes, compiled once."""
    folder = tmp_path_factory.mktemp("classes")
    (folder / "classes.h").write_text(CLASSES)
    (folder / "writer.C").write_text(WRITER)
    root(folder, "import ROOT, os; assert ROOT.gSystem.CompileMacro('writer.C', 'k') == 1")
    return folder


@pytest.mark.parametrize("split", [0, 1, 99])
def test_members(library, split):
    sapwood = pytest.importorskip("sapwood")
    path, n = library / f"split{split}.root", 60
    root(library, "import ROOT, sys; ROOT.gSystem.Load('writer_C.so'); ROOT.writer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))", path, split, n)
    tree = sapwood.open(path)["t"]
    unread = {branch["name"]: branch["reason"] for branch in tree.branches() if not branch["type"] and not branch["container"]}
    assert unread == {}
    wanted = [expected(i) for i in range(n)]
    if split == 0:
        columns = {name: [row[name] for row in plain(tree.arrow(["e."]).column(0).chunk(0))] for name in wanted[0]}
    else:
        columns = {}
        for name in wanted[0]:
            full = f"e.{name}"
            parts = [branch["name"] for branch in tree.branches() if branch["type"] and branch["name"].split("[")[0] == full]
            if parts and not any(branch["name"].startswith(full + ".") for branch in tree.branches()):
                columns[name] = plain(tree.arrow(parts).column(0).combine_chunks())
    assert len(columns) > (20 if split < 2 else 12)
    for name, values in columns.items():
        assert values == [row[name] for row in wanted], name


# ---- Writers that died ------------------------------------------------------------------------------------------------------------------

CRASH = """
import os, sys
from array import array
import ROOT
file = ROOT.TFile(sys.argv[1], "RECREATE")
file.mkdir("sub").cd()
tree = ROOT.TTree("t", "t")
x, n, a = array("f", [0]), array("i", [0]), array("f", [0] * 10)
tree.Branch("x", x, "x/F", 4000); tree.Branch("n", n, "n/I", 4000); tree.Branch("a", a, "a[n]/F", 4000)
tree.SetAutoSave(0)
for i in range(20000):
    x[0], n[0] = i, i % 4
    for k in range(n[0]): a[k] = i + k
    tree.Fill()
    if i == 9999: tree.AutoSave()
os._exit(0)
"""


def test_crashed_writer(tmp_path, sapwood):
    module = pytest.importorskip("sapwood")
    path = tmp_path / "crashed.root"
    root(tmp_path, CRASH, path)
    listing = sapwood("ls", path).stdout
    assert "not closed properly: 2 objects recovered" in listing and "are lost" in listing
    exported = sapwood("export", f"{path}:sub/t", "--columns", "x", "-o", tmp_path / "x.csv")
    assert "crashed.root: not closed properly" in exported.stderr
    tree = module.open(path)["sub/t"]
    assert tree.entries == 10000
    table = tree.arrow()
    assert table["x"].to_pylist() == [float(i) for i in range(10000)]
    assert table["a"].to_pylist() == [[float(i + k) for k in range(i % 4)] for i in range(10000)]
    with path.open("r+b") as file:  # cut off in the middle of a record as well
        file.truncate(path.stat().st_size - 100)
    assert "nothing to be read in its last" in sapwood("ls", path).stdout
    assert module.open(path)["sub/t"].entries == 10000


# ---- Friends, cycles ----------------------------------------------------------------------------------------------------------------------

FRIENDS = """
import sys
from array import array
import ROOT
def make(path, name, column, factor):
    file = ROOT.TFile(path, "RECREATE")
    tree = ROOT.TTree(name, name)
    x = array("f", [0])
    tree.Branch(column, x, column + "/F")
    for i in range(100):
        x[0] = factor * i
        tree.Fill()
    return file, tree
for path, name, column, factor in (("b.root", "other", "y", 2), ("c.root", "more", "z", 3)):
    file, tree = make(path, name, column, factor)
    tree.Write()
    file.Close()
file, tree = make("a.root", "t", "x", 1)
tree.AddFriend("other", "b.root")
tree.AddFriend("alias = more", "c.root")
tree.Write()
tree.Fill()
tree.Write()
file.Close()
"""


def test_friends_and_cycles(tmp_path):
    sapwood = pytest.importorskip("sapwood")
    root(tmp_path, FRIENDS)
    file = sapwood.open(tmp_path / "a.root")
    assert (file["t;1"].entries, file["t;2"].entries, file["t"].entries) == (100, 101, 101)
    table = file["t;1"].arrow(["x", "other.y", "alias.z"])
    assert [column.to_pylist() for column in table.columns] == [[float(f * i) for i in range(100)] for f in (1, 2, 3)]


# ---- Beyond 2 GB --------------------------------------------------------------------------------------------------------------------------

LARGE = """
import sys
from array import array
import ROOT
file = ROOT.TFile(sys.argv[1], "RECREATE", "", 0)
file.GetListOfFree().Last().SetFirst(3_000_000_000)  # free space begins here: the file has a hole before
tree = ROOT.TTree("t", "t")
x = array("d", [0])
tree.Branch("x", x, "x/D", 8000)
for i in range(5000):
    x[0] = i
    tree.Fill()
tree.Write()
file.Close()
"""


def test_large_file(tmp_path):
    sapwood = pytest.importorskip("sapwood")
    path = tmp_path / "large.root"
    root(tmp_path, LARGE, path)
    assert path.stat().st_size > 3_000_000_000
    assert path.stat().st_blocks * 512 < 100_000_000  # a hole
    assert sapwood.open(path)["t"].arrow(["x"])["x"].to_pylist() == [float(i) for i in range(5000)]
    os.unlink(path)
