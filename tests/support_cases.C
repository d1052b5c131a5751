// The cases of the support table: one small file each, written by ROOT. Column "x" (of the tree "t") or field "x" (of the
// RNTuple "t") has, in each of ENTRIES entries, the values that support_table.py states beside the name of the function.
#include <array>
#include <bitset>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "ROOT/RField.hxx"
#include "ROOT/RNTupleModel.hxx"
#include "ROOT/RNTupleWriteOptions.hxx"
#include "ROOT/RNTupleWriter.hxx"
#include "ROOT/TIOFeatures.hxx"
#include "TClonesArray.h"
#include "TFile.h"
#include "TH1.h"
#include "TH2.h"
#include "TLorentzVector.h"
#include "TProfile.h"
#include "TString.h"
#include "TTree.h"

struct Hit { int id = 0; float e = 0; };
struct Base { int base = 0; };
struct Derived : Base { int own = 0; };
struct Counted {
    int n = 0;
    float *values = nullptr; //[n]
};
struct Texts { std::string s; TString t; };
struct Nested { std::vector<Hit> hits; std::map<int, std::string> words; };
class Particle : public TObject {
public:
    int id = 0;
    float e = 0;
    ClassDef(Particle, 1)
};

#ifdef __CLING__
#pragma link C++ struct Hit+;
#pragma link C++ struct Base+;
#pragma link C++ struct Derived+;
#pragma link C++ struct Counted+;
#pragma link C++ struct Texts+;
#pragma link C++ struct Nested+;
#pragma link C++ class Particle+;
#pragma link C++ class std::vector<Hit>+;
#pragma link C++ class std::vector<Nested>+;
#pragma link C++ class std::vector<std::vector<Hit>>+;
#pragma link C++ class std::map<int, std::string>+;
#pragma link C++ class std::map<std::string, std::vector<int>>+;
#pragma link C++ class std::multimap<int, int>+;
#pragma link C++ class std::set<int>+;
#pragma link C++ class std::vector<std::vector<int>>+;
#pragma link C++ class std::vector<std::pair<int, float>>+;
#pragma link C++ class std::vector<std::bitset<8>>+;
#pragma link C++ function support_write;
#endif

enum { ENTRIES = 6 };
using Fill = std::function<void(int)>;
using Plan = std::function<Fill(TTree &)>;

struct Options { int compression = 101; bool sizes = false; };

static void write_tree(const char *path, Options options, const Plan &plan) {
    TFile file(path, "RECREATE", "", options.compression);
    TTree tree("t", "t");
    if (options.sizes) {
        ROOT::TIOFeatures features;
        features.Set(ROOT::Experimental::EIOFeatures::kGenerateOffsetMap);
        tree.SetIOFeatures(features);
    }
    Fill fill = plan(tree);
    for (int e = 0; e < ENTRIES; e++) {
        fill(e);
        tree.Fill();
        if (e == 3) tree.FlushBaskets();
    }
    tree.Write();
}

// A branch "x" of a class or collection.
template <class T> Plan object(int split, std::function<void(T &, int)> set) {
    return [=](TTree &tree) -> Fill {
        auto *value = new T;
        tree.Branch("x", value, 32000, split);
        return [=](int e) { set(*value, e); };
    };
}

// A leaf "x", and a count beside it for arrays.
template <class T, int N> Plan leaf(const char *list, std::function<void(T *, int &, int)> set) {
    return [=](TTree &tree) -> Fill {
        auto *values = new T[N]();
        auto *n = new int;
        if (std::string(list).find("[n]") != std::string::npos) tree.Branch("n", n, "n/I");
        tree.Branch("x", values, list);
        return [=](int e) { *n = e % 3; set(values, *n, e); };
    };
}

static void write_ntuple(const char *path, const std::function<std::function<void(int)>(ROOT::RNTupleModel &)> &plan, int compression = 505) {
    auto model = ROOT::RNTupleModel::Create();
    Fill fill = plan(*model);
    ROOT::RNTupleWriteOptions options;
    options.SetCompression(compression);
    auto writer = ROOT::RNTupleWriter::Recreate(std::move(model), "t", path, options);
    for (int e = 0; e < ENTRIES; e++) {
        fill(e);
        writer->Fill();
        if (e == 3) writer->CommitCluster();
    }
}

template <class T> auto field(std::function<void(T &, int)> set) {
    return [=](ROOT::RNTupleModel &model) -> Fill {
        auto value = model.MakeField<T>("x");
        return [=](int e) { set(*value, e); };
    };
}

template <class T> auto changed_field(std::function<void(ROOT::RField<T> &)> change) {
    return [=](ROOT::RNTupleModel &model) -> Fill {
        auto made = std::make_unique<ROOT::RField<T>>("x");
        change(*made);
        model.AddField(std::move(made));
        auto value = model.GetDefaultEntry().GetPtr<T>("x");
        return [=](int e) { *value = e; };
    };
}

static std::vector<Hit> hits(int e) {
    std::vector<Hit> out;
    for (int k = 0; k < e % 3; k++) out.push_back({e, e + k / 2.f});
    return out;
}

static void write_friends(const char *path) {
    TFile file(path, "RECREATE");
    TTree other("other", "other"), tree("t", "t");
    int x, y;
    other.Branch("x", &x); tree.Branch("y", &y);
    for (x = y = 0; x < ENTRIES; x++, y++) { other.Fill(); tree.Fill(); }
    tree.AddFriend(&other);
    other.Write(); tree.Write();
}

static void write_cycles(const char *path) {
    TFile file(path, "RECREATE");
    for (int cycle = 0; cycle < 2; cycle++) {
        TTree tree("t", "t");
        int x;
        tree.Branch("x", &x);
        for (x = cycle ? 0 : 100; x < (cycle ? ENTRIES : 103); x++) tree.Fill();
        tree.Write("t");
    }
}

static void write_folder(const char *path) {
    TFile file(path, "RECREATE");
    file.mkdir("a/b")->cd();
    TTree tree("t", "t");
    int x;
    tree.Branch("x", &x);
    for (x = 0; x < ENTRIES; x++) tree.Fill();
    tree.Write();
}

static void write_histograms(const char *path) {
    TFile file(path, "RECREATE");
    TH1D h1("h1", "", 3, 0, 3);
    TH2F h2("h2", "", 2, 0, 2, 2, 0, 2);
    TProfile p("p", "", 2, 0, 2);
    for (int e = 0; e < ENTRIES; e++) { h1.Fill(e % 3, e); h2.Fill(e % 2, 0.5); p.Fill(e % 2, e); }
    h1.Write(); h2.Write(); p.Write();
}

// The process ends before the file is closed: its last saved tree is there, the list of keys is not.
static void write_unclosed(const char *path) {
    auto *file = new TFile(path, "RECREATE");
    auto *tree = new TTree("t", "t");
    int x;
    tree->Branch("x", &x);
    for (x = 0; x < ENTRIES; x++) tree->Fill();
    tree->AutoSave();
    file->Flush();
    _exit(0);
}

static void write_late(const char *path) {
    auto model = ROOT::RNTupleModel::Create();
    auto first = model->MakeField<int>("first");
    auto writer = ROOT::RNTupleWriter::Recreate(std::move(model), "t", path);
    for (int e = 0; e < 3; e++) { *first = e; writer->Fill(); }
    auto updater = writer->CreateModelUpdater();
    updater->BeginUpdate();
    auto x = updater->MakeField<int>("x");
    updater->CommitUpdate();
    for (int e = 3; e < ENTRIES; e++) { *x = e; writer->Fill(); }
}

static void write_projected(const char *path) {
    auto model = ROOT::RNTupleModel::Create();
    auto origin = model->MakeField<int>("origin");
    model->AddProjectedField(std::make_unique<ROOT::RField<int>>("x"), [](const std::string &) { return "origin"; });
    auto writer = ROOT::RNTupleWriter::Recreate(std::move(model), "t", path);
    for (int e = 0; e < ENTRIES; e++) { *origin = e; writer->Fill(); }
}

template <int Codec> void codec(const char *path) {
    write_tree(path, {Codec}, leaf<int, 1>("x/I", [](int *v, int &, int e) { *v = e; }));
}

void support_write(const char *name, const char *path) {
    using std::string;
    using std::vector;
    using V = const char *;
    const std::map<string, std::function<void(V)>> cases = {
        {"numbers", [](V p) { write_tree(p, {}, leaf<double, 1>("x/D", [](double *v, int &, int e) { *v = e / 4.; })); }},
        {"bools", [](V p) { write_tree(p, {}, leaf<bool, 1>("x/O", [](bool *v, int &, int e) { *v = e % 2; })); }},
        {"text", [](V p) { write_tree(p, {}, leaf<char, 32>("x/C", [](char *v, int &, int e) { snprintf(v, 32, "%.*s", e, "abcdef"); })); }},
        {"fixed", [](V p) { write_tree(p, {}, leaf<int, 6>("x[2][3]/I", [](int *v, int &, int e) { for (int k = 0; k < 6; k++) v[k] = e + k; })); }},
        {"jagged", [](V p) { write_tree(p, {}, leaf<float, 9>("x[n]/F", [](float *v, int &n, int e) { for (int k = 0; k < n; k++) v[k] = e + k; })); }},
        {"jagged_rows", [](V p) { write_tree(p, {}, leaf<int, 9>("x[n][2]/I", [](int *v, int &n, int e) { for (int k = 0; k < 2 * n; k++) v[k] = e + k; })); }},
        {"double32", [](V p) { write_tree(p, {}, leaf<Double32_t, 1>("x/d[0,8,16]", [](double *v, int &, int e) { *v = e; })); }},
        {"float16", [](V p) { write_tree(p, {}, leaf<Float16_t, 1>("x/f[0,0,12]", [](float *v, int &, int e) { *v = e; })); }},
        {"leaf_list", [](V p) { write_tree(p, {}, [](TTree &t) -> Fill { auto *r = new Hit; t.Branch("x", r, "id/I:e/F"); return [=](int e) { *r = {e, e / 2.f}; }; }); }},
        {"vector", [](V p) { write_tree(p, {}, object<vector<float>>(99, [](auto &v, int e) { v.assign(e % 3, e); })); }},
        {"vector_bool", [](V p) { write_tree(p, {}, object<vector<bool>>(99, [](auto &v, int e) { v.assign(e % 3, e % 2); })); }},
        {"vector_vector", [](V p) { write_tree(p, {}, object<vector<vector<int>>>(99, [](auto &v, int e) { v.assign(e % 3, vector<int>(e % 2 + 1, e)); })); }},
        {"vector_string", [](V p) { write_tree(p, {}, object<vector<string>>(99, [](auto &v, int e) { v.assign(e % 3, string(e, 's')); })); }},
        {"string", [](V p) { write_tree(p, {}, object<string>(99, [](auto &v, int e) { v = string(e, 's'); })); }},
        {"map", [](V p) { write_tree(p, {}, object<std::map<string, vector<int>>>(0, [](auto &v, int e) { v = {{"k", {e, e}}}; })); }},
        {"multimap", [](V p) { write_tree(p, {}, object<std::multimap<int, int>>(0, [](auto &v, int e) { v = {{1, e}, {1, e + 1}}; })); }},
        {"set", [](V p) { write_tree(p, {}, object<std::set<int>>(99, [](auto &v, int e) { v = {e, e + 1}; })); }},
        {"pairs", [](V p) { write_tree(p, {}, object<vector<std::pair<int, float>>>(0, [](auto &v, int e) { v.assign(e % 3, {e, 0.5f}); })); }},
        {"bitsets", [](V p) { write_tree(p, {}, object<vector<std::bitset<8>>>(0, [](auto &v, int e) { v.assign(e % 3, e); })); }},
        {"class_split", [](V p) { write_tree(p, {}, object<Hit>(99, [](auto &v, int e) { v = {e, e / 2.f}; })); }},
        {"class_whole", [](V p) { write_tree(p, {}, object<Hit>(0, [](auto &v, int e) { v = {e, e / 2.f}; })); }},
        {"derived", [](V p) { write_tree(p, {}, object<Derived>(0, [](auto &v, int e) { v.base = e; v.own = -e; })); }},
        {"counted", [](V p) { write_tree(p, {}, object<Counted>(0, [](auto &v, int e) { static float f[3] = {1, 2, 3}; v.n = e % 3; v.values = f; })); }},
        {"texts", [](V p) { write_tree(p, {}, object<Texts>(0, [](auto &v, int e) { v.s = string(e, 's'); v.t = "t"; })); }},
        {"nested", [](V p) { write_tree(p, {}, object<Nested>(0, [](auto &v, int e) { v.hits = hits(e); v.words = {{e, "w"}}; })); }},
        {"hits_split", [](V p) { write_tree(p, {}, object<vector<Hit>>(99, [](auto &v, int e) { v = hits(e); })); }},
        {"hits_memberwise", [](V p) { write_tree(p, {}, object<vector<Hit>>(0, [](auto &v, int e) { v = hits(e); })); }},
        {"nested_memberwise", [](V p) { write_tree(p, {}, object<vector<Nested>>(0, [](auto &v, int e) { v.assign(e % 2, {hits(e), {{e, "w"}}}); })); }},
        {"hits_hits", [](V p) { write_tree(p, {}, object<vector<vector<Hit>>>(0, [](auto &v, int e) { v.assign(e % 2, hits(e)); })); }},
        {"lorentz", [](V p) { write_tree(p, {}, object<TLorentzVector>(0, [](auto &v, int e) { v.SetPxPyPzE(1, 2, 3, e); })); }},
        {"clones_split", [](V p) { write_tree(p, {}, [](TTree &t) -> Fill { auto *c = new TClonesArray("Particle"); t.Branch("x", c, 32000, 99);
            return [=](int e) { c->Clear(); for (int k = 0; k < e % 3; k++) { auto *q = (Particle *)c->ConstructedAt(k); q->id = e; q->e = k; } }; }); }},
        {"clones_whole", [](V p) { write_tree(p, {}, [](TTree &t) -> Fill { auto *c = new TClonesArray("Particle"); t.Branch("x", c, 32000, 0);
            return [=](int e) { c->Clear(); for (int k = 0; k < e % 3; k++) { auto *q = (Particle *)c->ConstructedAt(k); q->id = e; q->e = k; } }; }); }},
        {"offset_map", [](V p) { write_tree(p, {101, true}, leaf<float, 9>("x[n]/F", [](float *v, int &n, int e) { for (int k = 0; k < n; k++) v[k] = e + k; })); }},
        {"offset_map_text", [](V p) { write_tree(p, {101, true}, object<vector<float>>(99, [](auto &v, int e) { v.assign(e % 3, e); })); }},
        {"zlib", codec<101>}, {"lzma", codec<201>}, {"lz4", codec<404>}, {"zstd", codec<505>}, {"stored", codec<0>},
        {"friends", write_friends}, {"cycles", write_cycles}, {"folder", write_folder}, {"histograms", write_histograms}, {"unclosed", write_unclosed},
        {"n_numbers", [](V p) { write_ntuple(p, field<double>([](auto &v, int e) { v = e / 4.; })); }},
        {"n_bool", [](V p) { write_ntuple(p, field<bool>([](auto &v, int e) { v = e % 2; })); }},
        {"n_string", [](V p) { write_ntuple(p, field<string>([](auto &v, int e) { v = string(e, 's'); })); }},
        {"n_vector", [](V p) { write_ntuple(p, field<vector<float>>([](auto &v, int e) { v.assign(e % 3, e); })); }},
        {"n_vector_vector", [](V p) { write_ntuple(p, field<vector<vector<int>>>([](auto &v, int e) { v.assign(e % 3, vector<int>(e % 2 + 1, e)); })); }},
        {"n_class", [](V p) { write_ntuple(p, field<Derived>([](auto &v, int e) { v.base = e; v.own = -e; })); }},
        {"n_classes", [](V p) { write_ntuple(p, field<vector<Hit>>([](auto &v, int e) { v = hits(e); })); }},
        {"n_array", [](V p) { write_ntuple(p, field<std::array<int, 2>>([](auto &v, int e) { v = {e, -e}; })); }},
        {"n_tuple", [](V p) { write_ntuple(p, field<std::tuple<int, float>>([](auto &v, int e) { v = {e, 0.5f}; })); }},
        {"n_optional", [](V p) { write_ntuple(p, field<std::optional<float>>([](auto &v, int e) { if (e % 2) v = e; else v.reset(); })); }},
        {"n_variant", [](V p) { write_ntuple(p, field<std::variant<int, string>>([](auto &v, int e) { if (e % 2) v = e; else v = string("s"); })); }},
        {"n_bitset", [](V p) { write_ntuple(p, field<std::bitset<8>>([](auto &v, int e) { v = e; })); }},
        {"n_map", [](V p) { write_ntuple(p, field<std::map<int, string>>([](auto &v, int e) { v = {{e, "w"}}; })); }},
        {"n_half", [](V p) { write_ntuple(p, changed_field<float>([](auto &f) { f.SetHalfPrecision(); })); }},
        {"n_truncated", [](V p) { write_ntuple(p, changed_field<float>([](auto &f) { f.SetTruncated(20); })); }},
        {"n_quantized", [](V p) { write_ntuple(p, changed_field<double>([](auto &f) { f.SetQuantized(0, 7, 24); })); }},
        {"n_late", write_late}, {"n_projected", write_projected},
        {"n_streamed", [](V p) { write_ntuple(p, [](ROOT::RNTupleModel &m) -> Fill { m.AddField(std::make_unique<ROOT::RStreamerField>("x", "Derived"));
            auto v = m.GetDefaultEntry().GetPtr<Derived>("x"); return [=](int e) { v->base = e; v->own = -e; }; }); }},
    };
    cases.at(name)(path);
}
