"""Writes the start corpus of the fuzz targets anew: small ROOT files, uncompressed so that a mutation meets our parsers and no
checksum, and cut from them the records of trees, streamer infos and baskets. Usage: make_seeds.py, by the tests' Python, with SAPWOOD_COMMAND naming the command."""

import json
import lzma
import os
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import cramjam
import ROOT
import uproot

SOURCE = Path(__file__).resolve().parent.parent.parent
CORPUS = Path(__file__).resolve().parent / "corpus"

CLASSES = """
#include <bitset>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>
#include "TClonesArray.h"
#include "TLorentzVector.h"
#include "TNamed.h"
#include "TObject.h"
#include "TRef.h"

struct Hit { int id; float x, y; double e; };
struct Track { Hit first; std::vector<Hit> hits; std::vector<float> chi; Short_t quality[3]; };
struct Base { int run = 0; virtual ~Base() {} ClassDef(Base, 1) };
class Whole : public Base {
public:
    int n = 0;
    float *values = nullptr; //[n]
    Double32_t packed = 0;   //[0,10,12]
    Float16_t half = 0;
    std::string text;
    TString name;
    std::vector<Hit> hits;
    std::map<int, std::string> words;
    std::bitset<5> bits;
    TLorentzVector momentum;
    TRef reference;
    Hit *pointer = nullptr;
    ClassDef(Whole, 2)
};
class Particle : public TObject {
public:
    float pt = 0;
    int pdg = 0;
    TRef mother;
    ClassDef(Particle, 1)
};
#ifdef __CLING__
#pragma link C++ struct Hit+;
#pragma link C++ struct Track+;
#pragma link C++ struct Base+;
#pragma link C++ class Whole+;
#pragma link C++ class Particle+;
#pragma link C++ class std::vector<Hit>+;
#pragma link C++ class std::vector<Track>+;
#pragma link C++ class std::vector<std::vector<int>>+;
#pragma link C++ class std::map<std::string, std::vector<double>>+;
#pragma link C++ class std::vector<std::pair<int, double>>+;
#endif
"""

WRITERS = """
#include "TFile.h"
#include "TTree.h"
#include "TH1.h"
#include "TDirectory.h"
#include "ROOT/TIOFeatures.hxx"
#include <ROOT/RField.hxx>
#include <ROOT/RNTupleModel.hxx>
#include <ROOT/RNTupleWriteOptions.hxx>
#include <ROOT/RNTupleWriter.hxx>
#include <array>
#include <bitset>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

void write_flat(const char *path, int compression, bool sizes) {
    TFile file(path, "RECREATE", "", compression);
    TTree tree("t", "t");
    if (sizes) {
        ROOT::TIOFeatures features;
        features.Set(ROOT::Experimental::EIOFeatures::kGenerateOffsetMap);
        tree.SetIOFeatures(features);
    }
    Bool_t b; Short_t s; Int_t i; Long64_t l; Float_t f; Double_t d; Float16_t h; Double32_t d32; Int_t n; Float_t jagged[8];
    Int_t matrix[2][3]; char text[16]; struct { Int_t x; Float_t y[2]; } record;
    tree.Branch("b", &b, "b/O"); tree.Branch("s", &s, "s/S"); tree.Branch("i", &i, "i/I"); tree.Branch("l", &l, "l/L");
    tree.Branch("f", &f, "f/F"); tree.Branch("d", &d, "d/D"); tree.Branch("h", &h, "h/f[0,100,14]");
    tree.Branch("d32", &d32, "d32/d[-pi,pi,20]"); tree.Branch("n", &n, "n/I"); tree.Branch("jagged", jagged, "jagged[n]/F");
    tree.Branch("matrix", matrix, "matrix[2][3]/I"); tree.Branch("text", text, "text/C"); tree.Branch("record", &record, "x/I:y[2]/F");
    for (int e = 0; e < 20; e++) {
        b = e % 2; s = -e; i = e; l = 1LL << e; f = e / 2.f; d = e / 3.; h = e; d32 = 1. / (e + 1); n = e % 5;
        for (int k = 0; k < n; k++) jagged[k] = e + k;
        for (int k = 0; k < 6; k++) matrix[k / 3][k % 3] = e * k;
        snprintf(text, sizeof text, "%.*s", e % 10, "abcdefghij"); record = {e, {1, 2}};
        tree.Fill();
        if (e == 9) tree.FlushBaskets();
    }
    tree.Write();
}

void write_collections(const char *path) {
    TFile file(path, "RECREATE", "", 0);
    TTree tree("t", "t");
    std::vector<float> vf; std::vector<bool> vb; std::vector<std::vector<int>> vv; std::vector<std::string> vs; std::string str;
    std::map<std::string, std::vector<double>> map; std::set<int> set; std::vector<std::pair<int, double>> pairs;
    tree.Branch("vf", &vf); tree.Branch("vb", &vb); tree.Branch("vv", &vv); tree.Branch("vs", &vs); tree.Branch("str", &str);
    tree.Branch("map", &map, 1000, 0); tree.Branch("set", &set); tree.Branch("pairs", &pairs, 1000, 0);
    for (int e = 0; e < 6; e++) {
        vf.assign(e % 3, e); vb.assign(e % 4, e % 2); vv.assign(e % 3, std::vector<int>(e % 2 + 1, e)); vs.assign(e % 3, "word");
        str = std::string(e, 'x'); map.clear(); map["k"] = {1, 2}; set = {1, e}; pairs.assign(e % 3, {e, 0.5});
        tree.Fill();
    }
    tree.Write();
}

float numbers[] = {1, 2, 3};
void fill(Track &t, int e) { t.first = {e, 1, 2, 3}; t.hits.assign(e % 3, {e, 1, 2, 3}); t.chi.assign(e % 2, 0.5f); t.quality[1] = e; }
void fill(Whole &w, int e) {
    w.run = e; w.n = e % 4; w.values = numbers; w.packed = e; w.half = e; w.text = std::string(e, 't'); w.name = "name";
    w.hits.assign(e % 3, {e, 1, 2, 3}); w.words = {{e, "word"}}; w.bits = e; w.momentum.SetPxPyPzE(1, 2, 3, e);
}
template <class T> void write_object(const char *path, int split) {
    TFile file(path, "RECREATE", "", 0);
    TTree tree("t", "t");
    T object, *pointer = &object;
    tree.Branch("o.", &pointer, 2000, split);
    for (int e = 0; e < 5; e++) { fill(object, e); tree.Fill(); }
    tree.Write();
}

void write_vector(const char *path, int split) {
    TFile file(path, "RECREATE", "", 0);
    TTree tree("t", "t");
    std::vector<Hit> hits; std::vector<Track> tracks;
    tree.Branch("hits", &hits, 2000, split); tree.Branch("tracks", &tracks, 2000, split);
    for (int e = 0; e < 5; e++) { hits.assign(e % 3, {e, 1, 2, 3}); tracks.resize(e % 3); for (auto &t : tracks) fill(t, e); tree.Fill(); }
    tree.Write();
}

void write_clones(const char *path, int split) {
    TFile file(path, "RECREATE", "", 0);
    TTree tree("t", "t");
    TClonesArray particles("Particle"), *pointer = &particles;
    tree.Branch("particles", &pointer, 2000, split);
    for (int e = 0; e < 5; e++) {
        particles.Clear();
        for (int k = 0; k < e % 4; k++) {
            auto *p = (Particle *)particles.ConstructedAt(k);
            p->pt = e; p->pdg = k;
            if (k) p->mother = particles[0];
        }
        tree.Fill();
    }
    tree.Write();
}

std::unique_ptr<ROOT::RNTupleWriter> open_ntuple(const char *path, std::unique_ptr<ROOT::RNTupleModel> model) {
    ROOT::RNTupleWriteOptions options;
    options.SetCompression(0);
    return ROOT::RNTupleWriter::Recreate(std::move(model), "n", path, options);
}

void write_ntuple(const char *path) {
    auto model = ROOT::RNTupleModel::Create();
    auto b = model->MakeField<bool>("b"); auto i = model->MakeField<int>("i"); auto l = model->MakeField<std::uint64_t>("l");
    auto f = model->MakeField<float>("f"); auto d = model->MakeField<double>("d"); auto s = model->MakeField<std::string>("s");
    auto v = model->MakeField<std::vector<float>>("v"); auto vv = model->MakeField<std::vector<std::vector<int>>>("vv");
    auto o = model->MakeField<std::optional<float>>("o"); auto u = model->MakeField<std::variant<int, std::string>>("u");
    auto p = model->MakeField<Track>("p"); auto t = model->MakeField<std::tuple<int, float>>("t");
    auto a = model->MakeField<std::array<int, 3>>("a"); auto bits = model->MakeField<std::bitset<9>>("bits");
    auto half = std::make_unique<ROOT::RField<float>>("half"); half->SetHalfPrecision(); model->AddField(std::move(half));
    auto cut = std::make_unique<ROOT::RField<float>>("cut"); cut->SetTruncated(20); model->AddField(std::move(cut));
    auto quant = std::make_unique<ROOT::RField<double>>("quant"); quant->SetQuantized(0, 10, 12); model->AddField(std::move(quant));
    auto half_value = model->GetDefaultEntry().GetPtr<float>("half");
    auto writer = open_ntuple(path, std::move(model));
    for (int e = 0; e < 12; e++) {
        *b = e % 2; *i = e; *l = 1ull << e; *f = e / 2.f; *d = e / 3.; *s = std::string(e % 5, 's'); v->assign(e % 4, e);
        vv->assign(e % 3, std::vector<int>(e % 2, e)); if (e % 2) *o = e; else o->reset(); if (e % 2) *u = e; else *u = std::string("u");
        fill(*p, e); *t = {e, 1}; *a = {e, e, e}; *bits = e; *half_value = e;
        writer->Fill();
        if (e == 7) writer->CommitCluster();
    }
}

void write_ntuple_late(const char *path) {
    auto model = ROOT::RNTupleModel::Create();
    auto i = model->MakeField<int>("i");
    auto writer = open_ntuple(path, std::move(model));
    for (int e = 0; e < 4; e++) { *i = e; writer->Fill(); }
    writer->CommitCluster();
    auto updater = writer->CreateModelUpdater();
    updater->BeginUpdate();
    auto late = updater->MakeField<std::vector<int>>("late");
    updater->AddProjectedField(std::make_unique<ROOT::RField<int>>("alias"), [](const std::string &) { return "i"; });
    updater->CommitUpdate();
    for (int e = 0; e < 4; e++) { late->assign(e, e); writer->Fill(); }
}

void write_directories(const char *path) {
    TFile file(path, "RECREATE", "", 0);
    TH1F h("h", "title", 4, 0, 1);
    for (const char *name : {"a", "b", "a/c", "a/c/d"}) file.mkdir(name)->cd(), h.Write(), file.cd();
    TNamed("text", "some title").Write();
    TNamed("text", "another cycle").Write();
}
"""


def store(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def write_files(folder):
    ROOT.gErrorIgnoreLevel = ROOT.kError
    source = folder / "seed_classes.C"
    source.write_text(CLASSES)
    assert ROOT.gSystem.CompileMacro(str(source), "kO", "", str(folder)) == 1
    assert ROOT.gInterpreter.Declare(WRITERS)
    files = {
        "flat.root": lambda p: ROOT.write_flat(p, 0, False),
        "sizes.root": lambda p: ROOT.write_flat(p, 0, True),
        "zlib.root": lambda p: ROOT.write_flat(p, 101, False),
        "lzma.root": lambda p: ROOT.write_flat(p, 201, False),
        "lz4.root": lambda p: ROOT.write_flat(p, 401, False),
        "zstd.root": lambda p: ROOT.write_flat(p, 501, False),
        "collections.root": lambda p: ROOT.write_collections(p),
        "whole.root": lambda p: ROOT.write_object["Whole"](p, 0),
        "split.root": lambda p: ROOT.write_object["Whole"](p, 99),
        "track.root": lambda p: ROOT.write_object["Track"](p, 99),
        "vector.root": lambda p: ROOT.write_vector(p, 99),
        "vector_whole.root": lambda p: ROOT.write_vector(p, 0),
        "clones.root": lambda p: ROOT.write_clones(p, 99),
        "clones_whole.root": lambda p: ROOT.write_clones(p, 0),
        "ntuple.root": lambda p: ROOT.write_ntuple(p),
        "ntuple_late.root": lambda p: ROOT.write_ntuple_late(p),
        "directories.root": lambda p: ROOT.write_directories(p),
    }
    for name, write in files.items():
        path = CORPUS / "columns" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(str(path))


def cut_records():
    """Inputs of the targets `tree`, `streamer` and `basket`: the number of the file in files.h, then the record."""
    names = re.findall(r'"(\w+\.root)"', (CORPUS.parent / "files.h").read_text())
    for number, name in enumerate(names):
        data = (CORPUS / "columns" / name).read_bytes()
        stem = name.removesuffix(".root")
        with uproot.open(CORPUS / "columns" / name) as file:
            at = file.file.fSeekInfo
            header = struct.unpack(">H", data[at + 14 : at + 16])[0]
            store("streamer", f"streamer-{stem}", bytes([number]) + data[at + header : at + file.file.fNbytesInfo])
            key = file.key("t")
            store("tree", f"tree-{stem}", bytes([number]) + data[key.fSeekKey + key.fKeylen : key.fSeekKey + key.fNbytes])
            for at, branch in enumerate(file["t"].itervalues(recursive=True)):
                if branch.num_baskets > 0 and branch.member("fBasketSeek")[0]:
                    seek, size = branch.member("fBasketSeek")[0], branch.member("fBasketBytes")[0]
                    store("basket", f"basket-{stem}-{at}", bytes([number, at]) + data[seek : seek + size])


def cut_ntuples():
    """Inputs of the targets `envelope` and `page`: their pages are short, so the input may be."""
    for number, stem in enumerate(("ntuple", "ntuple_late")):
        data = (CORPUS / "columns" / f"{stem}.root").read_bytes()
        at = data.index(b"\rROOT::RNTuple") + 14
        at += 1 + data[at]
        at += 1 + data[at] + 14
        anchor = struct.unpack(">7Q", data[at : at + 56])
        footer = data[anchor[3] : anchor[3] + anchor[4]]
        extension = struct.unpack("<Q", footer[24:32])[0]
        size, at = struct.unpack("<iQ", footer[24 + extension + 12 + 8 + 20 + 8 :][:12])
        for kind, envelope in enumerate((data[anchor[0] : anchor[0] + anchor[1]], footer, data[at : at + size])):
            assert envelope[0] == kind + 1
            store("envelope", f"envelope-{stem}-{kind}", bytes([number, kind]) + envelope[8:-8])
        for page in range(0, 60, 3):
            store("page", f"page-{stem}-{page}", bytes([number, page]) + b"\1\0\0\0\2\0\0\0")


def write_others():
    store("codec", "codec-zlib", block(b"ZL", zlib.compress(b"sapwood" * 30), 210))
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    store("codec", "codec-old", block(b"CS", raw.compress(b"sapwood" * 30) + raw.flush(), 210))
    store("codec", "codec-lzma", block(b"XZ", lzma.compress(b"sapwood" * 30), 210))
    store("codec", "codec-lz4", block(b"L4", bytes(8) + bytes(cramjam.lz4.compress_block(b"sapwood" * 30, store_size=False)), 210))
    store("codec", "codec-zstd", block(b"ZS", bytes(cramjam.zstd.compress(b"sapwood" * 30)), 210))

    store("yaml", "yaml-example", (SOURCE / "examples/topology/pipeline.yaml").read_bytes())
    store("yaml", "yaml-kinds", b"a: [1, two, {b: 'c'}]\n? \"k\\u00e9y\"\n: |\n  text\n  more\nn: ~\n")


def write_models(folder):
    import keras

    layers = keras.layers
    inputs = layers.Input((5, 3), name="particles"), layers.Input((4,), name="hlf")
    x = layers.Dropout(0.1)(layers.GRU(2)(layers.Masking()(inputs[0])))
    x = layers.Dense(3, activation="softmax")(layers.Concatenate()([x, layers.Flatten()(inputs[1])]))
    networks = {
        "functional": keras.Model(inputs, x),
        "sequential": keras.Sequential([layers.Input((2,)), layers.Dense(2, activation="relu"), layers.Dense(2, activation="softmax")]),
    }
    for name, network in networks.items():
        store("model", f"model-{name}", network.to_json().encode())
        network.save(folder / "model.keras")
        with zipfile.ZipFile(folder / "model.keras") as packed, zipfile.ZipFile(folder / "stored.zip", "w") as stored:
            for member in packed.namelist():
                stored.writestr(zipfile.ZipInfo(member), packed.read(member))
        store("keras", f"keras-{name}", (folder / "stored.zip").read_bytes())
    networks["sequential"].compile("sgd", "mse")
    networks["sequential"].save(folder / "model.h5")
    store("keras", "keras-hdf5", (folder / "model.h5").read_bytes())


def write_datasets(folder):
    samples = [word for name in ("qcd", "wjets") for word in ("--sample", f"{name}={SOURCE}/examples/topology/data/{name}.root")]
    for layout in ("sapwood", "published"):
        out = folder / layout
        subprocess.run([os.environ["SAPWOOD_COMMAND"], "prepare", *samples, "--layout", layout, "--out", out], check=True, capture_output=True)
        described = json.loads((out / "dataset.json").read_text())
        described["parts"] = described["parts"][:2]
        store("dataset", f"dataset-{layout}", json.dumps(described).encode())


def field(number, content):
    """A field of a protocol buffer: bytes with their length, or a number."""
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2, len(content)]) + content


def write_examples():
    floats = field(2, field(1, struct.pack("<3f", 1, 2, 3)))
    features = {b"list": floats, b"label": field(3, field(1, 5)), b"text": field(1, field(1, b"some text")),
                b"numbers": field(3, field(1, bytes([1, 2, 0x96, 1]))), b"pair": field(2, field(1, struct.pack("<2f", 1, 2)))}
    example = field(1, b"".join(field(1, field(1, name) + field(2, feature)) for name, feature in features.items()))
    store("tfrecord", "tfrecord-two", 2 * (struct.pack("<H", len(example)) + example))


def block(tag, stored, size):
    """A target `codec` input: size of the record, then one compression block."""
    return struct.pack("<I", size) + tag + b"\x08" + len(stored).to_bytes(3, "little") + size.to_bytes(3, "little") + stored


def main():
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        write_models(Path(folder))
        write_datasets(Path(folder))
    cut_records()
    cut_ntuples()
    write_examples()
    write_others()
    total = sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file())
    print(f"{total} bytes in {CORPUS}")


if __name__ == "__main__":
    sys.exit(main())
