"""Types that the corpus has too few of, in small files that ROOT writes here: read by us and compared with what went in."""

import hashlib
import json

import numpy as np
import pytest

ROOT = pytest.importorskip("ROOT")

WRITER = """
#include <map>
#include <set>
#include <string>
#include <vector>
#include "TFile.h"
#include "TTree.h"
#include "ROOT/TIOFeatures.hxx"

// n entries; every value is a function of its entry and place that the test repeats.
void sapwood_write(const char *path, int n, int compression, bool no_offsets, int basket) {
    TFile file(path, "RECREATE", "", compression);
    TTree tree("t", "t");
    if (no_offsets) {
        ROOT::TIOFeatures features;
        features.Set(ROOT::Experimental::EIOFeatures::kGenerateOffsetMap);
        tree.SetIOFeatures(features);
    }
    Bool_t b; Char_t c; UChar_t uc; Short_t s; UShort_t us; Int_t i; UInt_t ui; Long64_t l; ULong64_t ul; Float_t f; Double_t d;
    Float16_t h; Double32_t d32; Int_t count; Float_t jagged[40]; Int_t matrix[40][3]; Double_t fixed[2][3]; char text[64];
    struct { Int_t x; Float_t y[2]; } record;
    std::vector<float> vf; std::vector<bool> vb; std::vector<std::vector<int>> vvi; std::vector<std::string> vs; std::string str;
    std::map<std::string, std::vector<double>> map; std::set<int> set; std::vector<std::set<short>> vset;
    std::multimap<int, float> multi; std::vector<std::pair<int, double>> pairs;
    tree.Branch("b", &b, "b/O", basket); tree.Branch("c", &c, "c/B", basket); tree.Branch("uc", &uc, "uc/b", basket);
    tree.Branch("s", &s, "s/S", basket); tree.Branch("us", &us, "us/s", basket); tree.Branch("i", &i, "i/I", basket);
    tree.Branch("ui", &ui, "ui/i", basket); tree.Branch("l", &l, "l/L", basket); tree.Branch("ul", &ul, "ul/l", basket);
    tree.Branch("f", &f, "f/F", basket); tree.Branch("d", &d, "d/D", basket);
    tree.Branch("h", &h, "h/f[0,100,14]", basket); tree.Branch("d32", &d32, "d32/d[-pi,pi,20]", basket);
    tree.Branch("count", &count, "count/I", basket * 3);
    tree.Branch("jagged", jagged, "jagged[count]/F", basket); tree.Branch("matrix", matrix, "matrix[count][3]/I", basket);
    tree.Branch("fixed", fixed, "fixed[2][3]/D", basket); tree.Branch("text", text, "text/C", basket);
    tree.Branch("record", &record, "x/I:y[2]/F", basket);
    tree.Branch("vf", &vf, basket); tree.Branch("vb", &vb, basket); tree.Branch("vvi", &vvi, basket);
    tree.Branch("vs", &vs, basket); tree.Branch("str", &str, basket); tree.Branch("map", &map, basket, 0);
    tree.Branch("set", &set, basket); tree.Branch("vset", &vset, basket); tree.Branch("multi", &multi, basket, 0);
    tree.Branch("pairs", &pairs, basket, 0);
    for (int e = 0; e < n; e++) {
        b = e % 3 == 0; c = e; uc = e; s = -e; us = e; i = -e * 1000; ui = 4000000000u + e; l = -1000000000000LL * e;
        ul = 10000000000000000000ull + e; f = e * 0.5f; d = e / 3.0; h = e % 100; d32 = (e % 7 - 3) * 0.5;
        count = e % 5;
        for (int k = 0; k < count; k++) { jagged[k] = e + 0.25f * k; for (int m = 0; m < 3; m++) matrix[k][m] = e + 10 * k + m; }
        for (int k = 0; k < 6; k++) fixed[k / 3][k % 3] = e + k;
        std::string word(e % 300 / 5, 'a' + e % 26); snprintf(text, sizeof text, "%s", word.c_str()); str = word + "!";
        record.x = e; record.y[0] = e + 1; record.y[1] = e + 2;
        vf.clear(); vb.clear(); vvi.clear(); vs.clear(); map.clear(); set.clear(); vset.clear(); multi.clear(); pairs.clear();
        for (int k = 0; k < e % 4; k++) {
            vf.push_back(e + k); vb.push_back(k % 2 == 0); vvi.push_back(std::vector<int>(k, e)); vs.push_back(word);
            map["k" + std::to_string(k)] = std::vector<double>(k, e + 0.5); set.insert(10 * k); vset.push_back({(short)e, (short)(e + k)});
            multi.insert({1, e + k}); pairs.push_back({k, e * 0.5});
        }
        tree.Fill();
    }
    tree.Write();
}
"""


def expected(n):
    """Column name → list of values, with types as a digest sees them."""
    entries = range(n)
    word = lambda e: chr(ord("a") + e % 26) * (e % 300 // 5)
    few = lambda e: range(e % 4)
    h_factor, d_factor = 2**14 / 100, 2**20 / (2 * np.pi)
    number = lambda dtype, f: ("number", dtype, [f(e) for e in entries])
    of = lambda item, f: ("list", item, [f(e) for e in entries])
    return {
        "b": number("|b1", lambda e: e % 3 == 0),
        "c": number("|i1", lambda e: (e + 128) % 256 - 128),
        "uc": number("|u1", lambda e: e % 256),
        "s": number("<i2", lambda e: (-e + 32768) % 65536 - 32768),
        "us": number("<u2", lambda e: e % 65536),
        "i": number("<i4", lambda e: -e * 1000),
        "ui": number("<u4", lambda e: 4000000000 + e),
        "l": number("<i8", lambda e: -1000000000000 * e),
        "ul": number("<u8", lambda e: 10000000000000000000 + e),
        "f": number("<f4", lambda e: e * 0.5),
        "d": number("<f8", lambda e: e / 3.0),
        "h": number("<f4", lambda e: int(0.5 + h_factor * (e % 100)) / h_factor),
        "d32": number("<f8", lambda e: int(0.5 + d_factor * ((e % 7 - 3) * 0.5 + np.pi)) / d_factor - np.pi),
        "count": number("<i4", lambda e: e % 5),
        "jagged": of(("number", "<f4"), lambda e: [e + 0.25 * k for k in range(e % 5)]),
        "matrix": of(("fixed", 3, ("number", "<i4")), lambda e: [[e + 10 * k + m for m in range(3)] for k in range(e % 5)]),
        "fixed": ("fixed", 2, ("fixed", 3, ("number", "<f8")), [[[e + 3 * j + k for k in range(3)] for j in range(2)] for e in entries]),
        "text": ("string", [word(e) for e in entries]),
        "str": ("string", [word(e) + "!" for e in entries]),
        "record": ("record", [("number", "<i4"), ("fixed", 2, ("number", "<f4"))], [(e, [e + 1, e + 2]) for e in entries]),
        "vf": of(("number", "<f4"), lambda e: [e + k for k in few(e)]),
        "vb": of(("number", "|b1"), lambda e: [k % 2 == 0 for k in few(e)]),
        "vvi": of(("list", ("number", "<i4")), lambda e: [[e] * k for k in few(e)]),
        "vs": of(("string",), lambda e: [word(e) for k in few(e)]),
        "map": of(
            ("record", [("string",), ("list", ("number", "<f8"))]), lambda e: [(f"k{k}", [e + 0.5] * k) for k in few(e)]
        ),
        "set": of(("number", "<i4"), lambda e: [10 * k for k in few(e)]),
        "vset": of(("list", ("number", "<i2")), lambda e: [sorted({e, e + k}) for k in few(e)]),
        "multi": of(("record", [("number", "<i4"), ("number", "<f4")]), lambda e: [(1, e + k) for k in few(e)]),
        "pairs": of(("record", [("number", "<i4"), ("number", "<f8")]), lambda e: [(k, e * 0.5) for k in few(e)]),
    }


def lines(type_, values):
    """The lines that a digest is made of."""
    kind = type_[0]
    line = lambda what, dtype, count, data: f"{what} {dtype} {count} {hashlib.sha256(data).hexdigest()}\n"
    if kind == "number":
        return line("data", type_[1], len(values), np.array(values).astype(type_[1]).tobytes())
    if kind == "record":
        return "".join(lines(field, [value[k] for value in values]) for k, field in enumerate(type_[1]))
    flat = [item for value in values for item in value]
    if kind == "fixed":
        return line(f"fixed{type_[1]}", "-", 0, b"") + lines(type_[2], flat)
    offsets = np.cumsum([0, *map(len, values)]).astype("<i8")
    first = line("offsets", "<i8", len(offsets), offsets.tobytes())
    if kind == "string":
        return first + line("data", "|u1", int(offsets[-1]), "".join(values).encode())
    return first + lines(type_[1], flat)


def digest(column):
    *type_, values = column
    return hashlib.sha256(lines(tuple(type_), values).encode()).hexdigest()


DICTIONARIES = (
    "vector<vector<int> >;map<string,vector<double> >;vector<set<short> >;multimap<int,float>;vector<pair<int,double> >"
)


@pytest.fixture(scope="module", autouse=True)
def writer(tmp_path_factory):
    """Compiles the writer; nested collections need dictionaries, which ROOT makes in the working folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("dictionaries"))
        assert ROOT.gInterpreter.GenerateDictionary(DICTIONARIES, "vector;map;set;string;utility")
        assert ROOT.gInterpreter.Declare(WRITER)


@pytest.mark.parametrize("compression", [0, 101, 207, 404, 505])
@pytest.mark.parametrize("no_offsets", [False, True])
@pytest.mark.parametrize("n", [0, 3, 2000])
def test_types(tmp_path, sapwood, n, compression, no_offsets):
    path = tmp_path / "types.root"
    ROOT.sapwood_write(str(path), n, compression, no_offsets, 4000)
    run = sapwood("digest", path)
    (row,) = map(json.loads, run.stdout.splitlines())
    assert row["entries"] == n
    got = {branch["name"]: branch["digest"] for branch in row["branches"]}
    want = {name: digest(column) for name, column in expected(n).items()}
    assert {name for name in want if want[name] != got.get(name)} == set()


def test_large_offsets(tmp_path, sapwood):
    """A basket of more than 64 kB, and entries of more than 255 bytes of text."""
    path = tmp_path / "large.root"
    ROOT.sapwood_write(str(path), 30000, 505, False, 3000000)
    (row,) = map(json.loads, sapwood("digest", path).stdout.splitlines())
    got = {branch["name"]: branch["digest"] for branch in row["branches"]}
    want = {name: digest(column) for name, column in expected(30000).items()}
    assert {name for name in want if want[name] != got.get(name)} == set()
