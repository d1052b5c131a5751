"""Writes with ROOT the tables that bench/read.py reads.

    bench/read_table.py FOLDER table CODEC      the table as a TTree and as an RNTuple: table-CODEC.root, ntuple-CODEC.root
    bench/read_table.py FOLDER wide BRANCHES    like NanoAOD: collections, counters and trigger flags: wide-BRANCHES.root
    bench/read_table.py FOLDER large GIGABYTES  the table, uncompressed and as long as that: large-GIGABYTES.root

The table has a million entries of 96 bytes: 6 flat columns (one of them counts) and 3 jagged ones, float32 with the spread of
transverse momenta and angles; nothing in it is easier to compress than in nature. A file that is there is not written again.
"""

import argparse
import os
from pathlib import Path

import ROOT

CODECS = {"zlib": 101, "lzma": 204, "lz4": 404, "zstd": 505, "none": 0}  # ROOT's algorithm * 100 + level
ENTRIES = 1_000_000
ENTRY_BYTES = 96  # with the 12 bytes of the three offsets

WRITER = """
#include <cmath>
#include <string>
#include <vector>
#include "ROOT/RNTupleModel.hxx"
#include "ROOT/RNTupleWriteOptions.hxx"
#include "ROOT/RNTupleWriter.hxx"
#include "TFile.h"
#include "TRandom3.h"
#include "TTree.h"

namespace bench {

struct Event {
    Int_t run, n;
    Long64_t event;
    Float_t met, met_phi, weight;
    std::vector<float> pt, eta, phi;

    void draw(TRandom3 &random, Long64_t entry) {
        run = 380000 + Int_t(entry / 50000);
        event = entry * 7 + random.Integer(7);
        met = random.Exp(40);
        met_phi = random.Uniform(-M_PI, M_PI);
        weight = random.Gaus(1, 0.1);
        n = random.Poisson(4.6667);
        pt.resize(n), eta.resize(n), phi.resize(n);
        for (int i = 0; i < n; i++) {
            pt[i] = 20 + random.Exp(25);
            eta[i] = random.Gaus(0, 1.5);
            phi[i] = random.Uniform(-M_PI, M_PI);
        }
    }
};

void tree(const char *path, Long64_t entries, int compression) {
    TFile file(path, "RECREATE", "", compression);
    TTree tree("events", "events");
    TRandom3 random(1);
    Event e;
    float pt[64], eta[64], phi[64];
    tree.Branch("run", &e.run);
    tree.Branch("event", &e.event);
    tree.Branch("met", &e.met);
    tree.Branch("met_phi", &e.met_phi);
    tree.Branch("weight", &e.weight);
    tree.Branch("n", &e.n);
    tree.Branch("pt", pt, "pt[n]/F");
    tree.Branch("eta", eta, "eta[n]/F");
    tree.Branch("phi", phi, "phi[n]/F");
    for (Long64_t entry = 0; entry < entries; entry++) {
        e.draw(random, entry);
        std::copy(e.pt.begin(), e.pt.end(), pt);
        std::copy(e.eta.begin(), e.eta.end(), eta);
        std::copy(e.phi.begin(), e.phi.end(), phi);
        tree.Fill();
    }
    file.Write();
}

void ntuple(const char *path, Long64_t entries, int compression) {
    auto model = ROOT::RNTupleModel::Create();
    Event e;
    auto run = model->MakeField<std::int32_t>("run");
    auto event = model->MakeField<std::int64_t>("event");
    auto met = model->MakeField<float>("met");
    auto met_phi = model->MakeField<float>("met_phi");
    auto weight = model->MakeField<float>("weight");
    auto n = model->MakeField<std::int32_t>("n");
    auto pt = model->MakeField<std::vector<float>>("pt");
    auto eta = model->MakeField<std::vector<float>>("eta");
    auto phi = model->MakeField<std::vector<float>>("phi");
    ROOT::RNTupleWriteOptions options;
    options.SetCompression(compression);
    auto writer = ROOT::RNTupleWriter::Recreate(std::move(model), "events", path, options);
    TRandom3 random(1);
    for (Long64_t entry = 0; entry < entries; entry++) {
        e.draw(random, entry);
        *run = e.run, *event = e.event, *met = e.met, *met_phi = e.met_phi, *weight = e.weight, *n = e.n;
        *pt = e.pt, *eta = e.eta, *phi = e.phi;
        writer->Fill();
    }
}

// Of every 20 branches one is a counter, 9 are lists that it counts, 6 are flags, 4 are numbers.
void wide(const char *path, int branches, Long64_t entries) {
    TFile file(path, "RECREATE", "", 209);
    TTree tree("Events", "Events");
    tree.SetAutoFlush(5000);
    TRandom3 random(1);
    const int groups = branches / 20;
    std::vector<UInt_t> counts(groups);
    std::vector<Float_t> lists(groups * 9 * 32), numbers(groups * 4);
    std::vector<UChar_t> flags(groups * 6);
    const char *members[] = {"pt", "eta", "phi", "mass", "dxy", "dz", "sip3d", "miniIso", "mvaId"};
    for (int g = 0; g < groups; g++) {
        std::string name = "Coll" + std::to_string(g), counter = "n" + name;
        tree.Branch(counter.c_str(), &counts[g], (counter + "/i").c_str())->SetTitle(("number of " + name).c_str());
        for (int i = 0; i < 9; i++) {
            std::string full = name + "_" + members[i];
            tree.Branch(full.c_str(), &lists[(g * 9 + i) * 32], (full + "[" + counter + "]/F").c_str())
                ->SetTitle((full + " of the reconstructed object, in the usual units").c_str());
        }
        for (int i = 0; i < 6; i++) {
            std::string full = "HLT_Path" + std::to_string(g * 6 + i) + "_Isolated_v" + std::to_string(i);
            tree.Branch(full.c_str(), &flags[g * 6 + i], (full + "/O").c_str())->SetTitle("Trigger/flag bit (process: HLT)");
        }
        for (int i = 0; i < 4; i++) {
            std::string full = "Global" + std::to_string(g * 4 + i) + "_value";
            tree.Branch(full.c_str(), &numbers[g * 4 + i], (full + "/F").c_str())->SetTitle("a number of the event");
        }
    }
    for (Long64_t entry = 0; entry < entries; entry++) {
        for (auto &count : counts) count = random.Integer(6);
        for (int g = 0; g < groups; g++)
            for (int i = 0; i < 9; i++)
                for (UInt_t j = 0; j < counts[g]; j++) lists[(g * 9 + i) * 32 + j] = random.Rndm();
        for (auto &number : numbers) number = random.Rndm();
        for (auto &flag : flags) flag = random.Rndm() < 0.05;
        tree.Fill();
    }
    file.Write();
}

}  // namespace bench
"""


def write(path, function, *arguments):
    """Under another name until it is whole."""
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    function(str(partial), *arguments)
    os.replace(partial, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=["table", "wide", "large"])
    parser.add_argument("parameter", help="codec, number of branches, or gigabytes")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    ROOT.gInterpreter.Declare(WRITER)
    name = given.folder / f"{given.what}-{given.parameter}.root"
    if given.what == "table":
        write(name, ROOT.bench.tree, ENTRIES, CODECS[given.parameter])
        write(given.folder / f"ntuple-{given.parameter}.root", ROOT.bench.ntuple, ENTRIES, CODECS[given.parameter])
    elif given.what == "wide":
        write(name, ROOT.bench.wide, int(given.parameter), 13_000_000 // int(given.parameter))
    else:
        write(name, ROOT.bench.tree, int(float(given.parameter) * 1e9 / ENTRY_BYTES), CODECS["none"])


if __name__ == "__main__":
    main()
