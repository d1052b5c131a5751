// ROOT's own readers on the table of bench/read_table.py, compiled: prints one JSON line.
//
//     read_root frame|entries FILE REPEATS
//
// frame: RDataFrame with eight sums, on one thread. entries: every entry of every column, by SetBranchAddress and GetEntry, or
// for an RNTuple by RNTupleReader::LoadEntry. Opening the file counts.
#include <ROOT/RDataFrame.hxx>
#include <ROOT/RNTupleReader.hxx>
#include <TFile.h>
#include <TKey.h>
#include <TTree.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

static double seconds(clockid_t clock) {
    timespec now;
    clock_gettime(clock, &now);
    return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

static double sums(const char *path) {
    ROOT::RDataFrame frame("events", path);
    using list = ROOT::RVec<float>;
    auto n = frame.Sum<int>("n");
    auto event = frame.Sum<Long64_t>("event");
    auto met = frame.Sum<float>("met"), met_phi = frame.Sum<float>("met_phi"), weight = frame.Sum<float>("weight");
    auto pt = frame.Sum<list>("pt"), eta = frame.Sum<list>("eta"), phi = frame.Sum<list>("phi");
    return *n + double(*event) + *met + *met_phi + *weight + *pt + *eta + *phi;
}

static double tree_entries(TTree *tree) {
    int run, n;
    Long64_t event;
    float met, met_phi, weight, pt[64], eta[64], phi[64];
    tree->SetBranchAddress("run", &run);
    tree->SetBranchAddress("event", &event);
    tree->SetBranchAddress("met", &met);
    tree->SetBranchAddress("met_phi", &met_phi);
    tree->SetBranchAddress("weight", &weight);
    tree->SetBranchAddress("n", &n);
    tree->SetBranchAddress("pt", pt);
    tree->SetBranchAddress("eta", eta);
    tree->SetBranchAddress("phi", phi);
    double sum = 0;
    for (Long64_t entry = 0, end = tree->GetEntries(); entry < end; entry++) {
        tree->GetEntry(entry);
        sum += n;
    }
    return sum;
}

static double ntuple_entries(const char *path) {
    auto reader = ROOT::RNTupleReader::Open("events", path);
    auto n = reader->GetModel().GetDefaultEntry().GetPtr<int>("n");
    double sum = 0;
    for (auto entry : *reader) {
        reader->LoadEntry(entry);
        sum += *n;
    }
    return sum;
}

static double entries(const char *path) {
    TFile file(path);
    bool is_tree = std::string(file.GetKey("events")->GetClassName()) == "TTree";
    return is_tree ? tree_entries(file.Get<TTree>("events")) : ntuple_entries(path);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        std::fprintf(stderr, "Usage: read_root frame|entries FILE REPEATS\n");
        return 2;
    }
    std::vector<double> wall, cpu;
    double sum = 0;
    for (int r = 0; r < std::stoi(argv[3]); r++) {
        double wall_before = seconds(CLOCK_MONOTONIC), cpu_before = seconds(CLOCK_PROCESS_CPUTIME_ID);
        sum = std::string(argv[1]) == "frame" ? sums(argv[2]) : entries(argv[2]);
        wall.push_back(seconds(CLOCK_MONOTONIC) - wall_before);
        cpu.push_back(seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_before);
    }
    std::sort(wall.begin(), wall.end());
    std::sort(cpu.begin(), cpu.end());
    std::printf("{\"wall\": %.6f, \"cpu\": %.6f, \"sum\": %.9g}\n", wall[wall.size() / 2], cpu[cpu.size() / 2], sum);
}
