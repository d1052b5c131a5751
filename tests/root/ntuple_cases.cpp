// RNTuples of every column encoding and type, written by ROOT, and the values that ROOT reads back, as lines of JSON.
// Loaded by ROOT's interpreter: see test_ntuple.py.
#pragma cling optimize(0)
#include <ROOT/RNTupleModel.hxx>
#include <ROOT/RNTupleReader.hxx>
#include <ROOT/RNTupleView.hxx>
#include <ROOT/RNTupleWriteOptions.hxx>
#include <ROOT/RNTupleWriter.hxx>
#include <TClass.h>
#include <TDictAttributeMap.h>
#include <TFile.h>

#include <array>
#include <atomic>
#include <bitset>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

enum class Colour : short { red = -3, green = 0, blue = 7 };

struct Point {
    float x = 0;
    double y = 0;
};
struct Named {
    std::string name;
    std::vector<int> marks;
};
struct Child : Point, Named {
    int own = 0;
    std::vector<Point> points;
};
struct Nothing {};
struct Shape : Child {
    Nothing nothing;
    int grid[2][3] = {};
    std::pair<int, float> corner;
    Double32_t narrow = 0;
};
struct Streamed {
    int number = 0;
    std::string text;
    std::vector<double> values;
    std::map<std::string, int> names;
};

using ROOT::ENTupleColumnType;
using ROOT::RField;
using ROOT::RNTupleModel;
using ROOT::RNTupleReader;
using ROOT::RNTupleWriteOptions;
using ROOT::RNTupleWriter;

// The functions below find each other by this argument, wherever they stand.
struct Json : std::ofstream {
    using std::ofstream::ofstream;
};

// ---- Values as JSON -------------------------------------------------------------------------------------------------

void put(Json &out, double value) {
    char text[40];
    snprintf(text, sizeof text, std::isfinite(value) ? "%.17g" : "\"%f\"", value);
    out << text;
}
void put(Json &out, float value) {
    put(out, double{value});
}
void put(Json &out, bool value) {
    out << (value ? "true" : "false");
}
void put(Json &out, std::byte value) {
    out << unsigned(value);
}
void put(Json &out, char value) {
    out << unsigned(static_cast<unsigned char>(value));
}
void put(Json &out, Colour value) {
    out << static_cast<short>(value);
}
void put(Json &out, std::monostate) {
    out << "null";
}
template <class T> std::enable_if_t<std::is_integral_v<T>> put(Json &out, T value) {
    out << +value;
}
void put(Json &out, const std::string &value) {
    out << '"' << value << '"';
}
template <class T> void put_all(Json &out, const T &list) {
    const char *between = "";
    out << '[';
    for (const auto &item : list) {
        out << between;
        put(out, item);
        between = ",";
    }
    out << ']';
}
template <class... T> void put_tuple(Json &out, const T &...items) {
    const char *between = "";
    out << '[';
    ((out << between, put(out, items), between = ","), ...);
    out << ']';
}
void put(Json &out, const Point &v) {
    put_tuple(out, v.x, v.y);
}
void put(Json &out, const Nothing &) {
    out << "[]";
}
void put(Json &out, const Streamed &v) {
    put_tuple(out, v.number, v.text, v.values, v.names);
}
void put(Json &out, const Child &v) {
    put_tuple(out, v.own, v.points, v.name, v.marks, v.x, v.y);
}
void put(Json &out, const Shape &v) {
    put_tuple(out, v.nothing, v.grid, v.corner, v.narrow, v.own, v.points, v.name, v.marks, v.x, v.y);
}
template <class T> void put(Json &out, const std::vector<T> &list) {
    put_all(out, list);
}
void put(Json &out, const std::vector<bool> &list) {
    put_all(out, std::vector<int>(list.begin(), list.end()));
}
template <class T> void put(Json &out, const ROOT::RVec<T> &list) {
    put_all(out, list);
}
template <class T, std::size_t N> void put(Json &out, const std::array<T, N> &list) {
    put_all(out, list);
}
template <class T, std::size_t N> void put(Json &out, const T (&list)[N]) {
    put_all(out, list);
}
template <std::size_t N> void put(Json &out, const std::bitset<N> &bits) {
    std::vector<int> list;
    for (std::size_t i = 0; i < N; i++)
        list.push_back(bits[i]);
    put_all(out, list);
}
template <class T> void put(Json &out, const std::set<T> &list) {
    put_all(out, list);
}
template <class T> void put(Json &out, const std::multiset<T> &list) {
    put_all(out, list);
}
template <class T> void put(Json &out, const std::unordered_set<T> &list) {
    put_all(out, list);
}
template <class K, class V> void put(Json &out, const std::map<K, V> &list) {
    put_all(out, list);
}
template <class K, class V> void put(Json &out, const std::unordered_map<K, V> &list) {
    put_all(out, list);
}
template <class K, class V> void put(Json &out, const std::multimap<K, V> &list) {
    put_all(out, list);
}
template <class T> void put(Json &out, const std::optional<T> &value) {
    value ? put(out, *value) : put(out, std::monostate{});
}
template <class T> void put(Json &out, const std::unique_ptr<T> &value) {
    value ? put(out, *value) : put(out, std::monostate{});
}
template <class T> void put(Json &out, const std::atomic<T> &value) {
    put(out, value.load());
}
template <class... T> void put(Json &out, const std::variant<T...> &value) {
    if (value.index() >= sizeof...(T)) // libstdc++ holds that these alternatives cannot be lost
        put(out, std::monostate{});
    else
        std::visit([&](const auto &v) { put(out, v); }, value);
}
template <class... T> void put(Json &out, const std::tuple<T...> &value) {
    std::apply([&](const auto &...items) { put_tuple(out, items...); }, value);
}
template <class K, class V> void put(Json &out, const std::pair<K, V> &value) {
    put_tuple(out, value.first, value.second);
}

// ---- Cases ----------------------------------------------------------------------------------------------------------------

struct Case {
    virtual ~Case() = default;
    virtual std::unique_ptr<ROOT::RFieldBase> field() const = 0;
    virtual void fill(ROOT::REntry &entry, int i) const = 0;
    virtual void dump(RNTupleReader &reader, Json &out) const = 0;
};

template <class T> void dump(RNTupleReader &reader, const std::string &name, Json &out) {
    auto view = reader.GetView<T>(name);
    out << "{\"name\":\"" << name << "\",\"values\":[";
    for (auto i : reader.GetEntryRange()) {
        out << (i ? "," : "");
        put(out, view(i));
    }
    out << "]}" << std::endl;
}

// set(value, i): the value of entry i. tune(field): how it is stored.
template <class T, class Set, class Tune> struct CaseOf : Case {
    std::string name;
    Set set;
    Tune tune;
    CaseOf(const std::string &n, Set s, Tune t) : name(n), set(s), tune(t) {
    }
    std::unique_ptr<ROOT::RFieldBase> field() const override {
        auto made = std::make_unique<RField<T>>(name);
        tune(*made);
        return made;
    }
    void fill(ROOT::REntry &entry, int i) const override {
        set(*entry.GetPtr<T>(name), i);
    }
    void dump(RNTupleReader &reader, Json &out) const override {
        ::dump<T>(reader, name, out);
    }
};

std::vector<std::unique_ptr<Case>> cases;

// Serialised whole by its streamer: ROOT has no RField of the class then.
struct StreamedCase : Case {
    std::unique_ptr<ROOT::RFieldBase> field() const override {
        return ROOT::RFieldBase::Create("streamed", "Streamed").Unwrap();
    }
    void fill(ROOT::REntry &entry, int i) const override {
        Streamed &out = *entry.GetPtr<Streamed>("streamed");
        out.number = i;
        out.text = i % 5 ? "s" + std::to_string(i) : "";
        out.values.assign(i % 5, i / 7.);
        out.names = {{"n", i}, {"", -1}};
    }
    void dump(RNTupleReader &reader, Json &out) const override;
};

template <class T, class Set, class Tune> void add(const std::string &name, Set set, Tune tune) {
    cases.push_back(std::make_unique<CaseOf<T, Set, Tune>>(name, set, tune));
}

template <class T, class Set> void add(const std::string &name, Set set) {
    add<T>(name, set, [](ROOT::RFieldBase &) {});
}

template <class T, class Set> void add_as(const std::string &name, ENTupleColumnType type, Set set) {
    add<T>(name, set, [=](ROOT::RFieldBase &field) { field.SetColumnRepresentatives({{type}}); });
}

std::uint64_t mix(std::uint64_t i) {
    i = (i + 1) * 0x9E3779B97F4A7C15u;
    i = (i ^ (i >> 30)) * 0xBF58476D1CE4E5B9u;
    return i ^ (i >> 27);
}

// Extremes first, then numbers of all sizes.
template <class T> void some_integer(T &out, int i) {
    const T first[] = {0, 1, std::numeric_limits<T>::max(), std::numeric_limits<T>::min(), T(-1)};
    out = i < 5 ? first[i] : T(mix(i) >> (mix(i * 7) % 60));
}

template <class T> void some_real(T &out, int i) {
    const T first[] = {0,
                       T(-0.),
                       1,
                       std::numeric_limits<T>::infinity(),
                       -std::numeric_limits<T>::infinity(),
                       std::numeric_limits<T>::quiet_NaN(),
                       T(6e-8),
                       T(-6.1e-5),
                       65504};
    out = i < 9 ? first[i] : T((double(mix(i) >> 11) * 0x1p-53 - 0.5) * std::ldexp(1., int(mix(i * 3) % 20) - 4));
}

template <class T> void integers(const std::string &name, ENTupleColumnType plain, ENTupleColumnType split) {
    add_as<T>(name, plain, some_integer<T>);
    if (plain != split)
        add_as<T>(name + "_split", split, some_integer<T>);
}

template <class T, class Set> void list_of(std::vector<T> &out, int i, Set set) {
    out.resize(i % 11 == 3 ? 90 : mix(i) % 4);
    for (std::size_t k = 0; k < out.size(); k++)
        set(out[k], i + int(k));
}

void text(std::string &out, int i) {
    out = i % 5 == 0 ? "" : i % 97 == 1 ? std::string(300, 'x') : "t" + std::to_string(mix(i) % 100000);
}

void point(Point &out, int i) {
    out = {float(i) / 4, i * 0.1};
}

void child(Child &out, int i) {
    point(out, i);
    text(out.name, i);
    list_of<int>(out.marks, i, some_integer<int>);
    out.own = i;
    list_of<Point>(out.points, i + 1, point);
}

void StreamedCase::dump(RNTupleReader &reader, Json &out) const {
    out << "{\"name\":\"streamed\",\"values\":[";
    for (auto i : reader) {
        reader.LoadEntry(i);
        out << (i ? "," : "");
        put(out, *reader.GetModel().GetDefaultEntry().GetPtr<Streamed>("streamed"));
    }
    out << "]}" << std::endl;
}

void numbers() {
    using C = ENTupleColumnType;
    add<bool>("bool", [](bool &out, int i) { out = mix(i) & 1; });
    add<std::byte>("byte", [](std::byte &out, int i) { out = std::byte(i); });
    add<char>("char", [](char &out, int i) { out = char(i); });
    integers<std::int8_t>("int8", C::kInt8, C::kInt8);
    integers<std::uint8_t>("uint8", C::kUInt8, C::kUInt8);
    integers<std::int16_t>("int16", C::kInt16, C::kSplitInt16);
    integers<std::uint16_t>("uint16", C::kUInt16, C::kSplitUInt16);
    integers<std::int32_t>("int32", C::kInt32, C::kSplitInt32);
    integers<std::uint32_t>("uint32", C::kUInt32, C::kSplitUInt32);
    integers<std::int64_t>("int64", C::kInt64, C::kSplitInt64);
    integers<std::uint64_t>("uint64", C::kUInt64, C::kSplitUInt64);
    add_as<float>("float", C::kReal32, some_real<float>);
    add_as<float>("float_split", C::kSplitReal32, some_real<float>);
    add_as<float>("float_half", C::kReal16, some_real<float>);
    add_as<double>("double", C::kReal64, some_real<double>);
    add_as<double>("double_split", C::kSplitReal64, some_real<double>);
    add_as<double>("double_single", C::kReal32, some_real<double>);
    add_as<double>("double32", C::kSplitReal32, some_real<double>);
    add_as<double>("double_half", C::kReal16, some_real<double>);
    for (int bits = 10; bits <= 31; bits++)
        add<float>("trunc" + std::to_string(bits), some_real<float>, [=](RField<float> &f) { f.SetTruncated(bits); });
    for (int bits = 1; bits <= 32; bits++)
        add<float>(
            "quant" + std::to_string(bits),
            [](float &out, int i) { out = float(double(mix(i) >> 11) * 0x1p-53 * 7.25 - 2.5); },
            [=](RField<float> &f) {
                f.SetQuantized(bits, {-2.5f, 4.75f});
            });
    add<double>("trunc_double", some_real<double>, [](RField<double> &f) { f.SetTruncated(20); });
}

void collections() {
    using C = ENTupleColumnType;
    using Ints = std::vector<int>;
    const std::pair<const char *, C> indices[] = {{"index32", C::kIndex32},
                                                  {"index64", C::kIndex64},
                                                  {"index32_split", C::kSplitIndex32},
                                                  {"index64_split", C::kSplitIndex64}};
    for (const auto &[name, type] : indices) {
        add_as<Ints>(name, type, [](Ints &out, int i) { list_of<int>(out, i, some_integer<int>); });
        add<std::string>(std::string(name) + "_text", text, [type = type](RField<std::string> &field) {
            field.SetColumnRepresentatives({{type, C::kChar}});
        });
    }
    add<std::vector<Ints>>("lists", [](std::vector<Ints> &out, int i) {
        list_of<Ints>(out, i, [](Ints &v, int k) { list_of<int>(v, k, some_integer<int>); });
    });
    add<std::vector<std::string>>("texts", [](auto &out, int i) { list_of<std::string>(out, i, text); });
    add<std::vector<bool>>("bools", [](std::vector<bool> &out, int i) { out.assign(i % 5, i & 1); });
    add<ROOT::RVec<float>>("rvec", [](auto &out, int i) { out.assign(i % 7, float(i)); });
    add<std::array<short, 3>>("array", [](auto &out, int i) { out = {short(i), short(-i), 7}; });
    add<std::array<std::array<double, 2>, 3>>("arrays", [](auto &out, int i) {
        for (int k = 0; k < 6; k++)
            out[k / 2][k % 2] = i + k / 8.;
    });
    add<std::array<std::vector<std::string>, 2>>("array_of_lists", [](auto &out, int i) {
        for (int k = 0; k < 2; k++)
            list_of<std::string>(out[k], 2 * i + k, text);
    });
    add<std::bitset<5>>("bitset5", [](auto &out, int i) { out = i; });
    add<std::bitset<117>>("bitset117", [](auto &out, int i) { out = std::bitset<117>(mix(i)) << (i % 60); });
    add<std::vector<std::bitset<9>>>("bitsets", [](auto &out, int i) { out.assign(i % 4, std::bitset<9>(mix(i))); });
    add<std::set<int>>("set", [](auto &out, int i) { out = {i, 3, int(mix(i) % 100)}; });
    add<std::multiset<int>>("multiset", [](auto &out, int i) { out = {i, 3, 3}; });
    add<std::unordered_set<int>>("unordered_set", [](auto &out, int i) { out = {i, i + 1}; });
    add<std::map<std::string, std::string>>("map", [](auto &out, int i) {
        out = {{"a" + std::to_string(i), "x"}, {"b", std::to_string(i)}};
    });
    add<std::unordered_map<int, int>>("unordered_map", [](auto &out, int i) { out = {{i, 1}, {i + 1, 2}}; });
    add<std::multimap<std::string, double>>("multimap", [](auto &out, int i) {
        out = {{"k", i / 3.}, {"k", 2.}, {"b", 1.}};
    });
}

void structures() {
    using Either = std::variant<int, std::string, std::vector<float>>;
    auto either = [](Either &out, int i) {
        if (i % 3 == 0)
            out = i;
        else if (i % 3 == 1)
            out = "v" + std::to_string(i);
        else
            out = std::vector<float>(i % 4, float(i));
    };
    add<Either>("variant", either);
    add<std::vector<Either>>("variants", [=](auto &out, int i) { list_of<Either>(out, i, either); });
    add<std::optional<float>>(
        "optional", [](auto &out, int i) { i % 3 ? out = std::optional<float>(float(i)) : out = std::nullopt; });
    add<std::optional<float>>("optional_all", [](auto &out, int i) { out = float(i); });
    add<std::optional<float>>("optional_none", [](auto &out, int) { out = std::nullopt; });
    add<std::optional<Child>>("optional_class", [](auto &out, int i) {
        if (i % 4)
            child(out.emplace(), i);
        else
            out.reset();
    });
    add<std::vector<std::optional<std::string>>>("optional_texts", [](auto &out, int i) {
        out.assign(i % 6, std::nullopt);
        for (int k = 0; k < i % 6; k += 2)
            text(out[k].emplace(), i + k);
    });
    add<std::optional<std::array<int, 2>>>("optional_array", [](auto &out, int i) {
        i % 2 ? out = std::nullopt : out = std::array<int, 2>{i, -i};
    });
    add<std::optional<Either>>("optional_variant", [=](auto &out, int i) {
        if (i % 5)
            either(out.emplace(), i);
        else
            out.reset();
    });
    add<std::optional<std::vector<std::optional<int>>>>("optional_list", [](auto &out, int i) {
        out.reset();
        if (i % 3)
            out.emplace(i % 4, i % 2 ? std::optional<int>(i) : std::nullopt);
    });
    add<std::unique_ptr<double>>("pointer",
                                 [](auto &out, int i) { out = i % 2 ? std::make_unique<double>(i * 0.5) : nullptr; });
    add<std::atomic<int>>("atomic", [](auto &out, int i) { out = i; });
    add<Colour>("enum", [](auto &out, int i) { out = i % 2 ? Colour::red : Colour::blue; });
    add<std::vector<Colour>>("enums", [](auto &out, int i) { out.assign(i % 3, Colour::blue); });
    add<std::pair<int, std::string>>("pair", [](auto &out, int i) { out = {i, "p" + std::to_string(i)}; });
    add<std::tuple<char, double, std::vector<int>>>("tuple", [](auto &out, int i) {
        out = {char('a' + i % 26), i / 3., std::vector<int>(i % 3, i)};
    });
    add<Point>("point", point);
    add<Child>("child", child);
    add<std::vector<Child>>("children", [](auto &out, int i) { list_of<Child>(out, i % 7, child); });
    add<Shape>("shape", [](Shape &out, int i) {
        child(out, i);
        for (int k = 0; k < 6; k++)
            out.grid[k / 3][k % 3] = 10 * i + k;
        out.corner = {i, 0.5f};
        out.narrow = i / 3.;
    });
    add<Nothing>("nothing", [](auto &, int) {});
    cases.push_back(std::make_unique<StreamedCase>());
}

// ---- Files ------------------------------------------------------------------------------------------------------------------

constexpr int ENTRIES = 700;

RNTupleWriteOptions options(int compression, int page_bytes) {
    RNTupleWriteOptions o;
    o.SetCompression(compression);
    o.SetInitialUnzippedPageSize(page_bytes < 64 ? page_bytes : 64);
    o.SetMaxUnzippedPageSize(page_bytes);
    return o;
}

void dump_all(const char *file, const char *values) {
    Json out(values);
    auto reader = RNTupleReader::Open("inside/table", file);
    for (const auto &c : cases)
        c->dump(*reader, out);
}

// Clusters of uneven sizes, in several groups.
void write_all(const char *path, int compression, int page_bytes, std::uint64_t max_key_bytes) {
    auto model = RNTupleModel::Create();
    for (const auto &c : cases)
        model->AddField(c->field());
    auto o = options(compression, page_bytes);
    if (max_key_bytes) {
        ROOT::Internal::RNTupleWriteOptionsManip::SetMaxKeySize(o, max_key_bytes);
    }
    TFile file(path, "RECREATE");
    file.mkdir("inside");
    auto writer = RNTupleWriter::Append(std::move(model), "table", *file.GetDirectory("inside"), o);
    auto entry = writer->CreateEntry();
    for (int i = 0; i < ENTRIES; i++) {
        for (const auto &c : cases)
            c->fill(*entry, i);
        writer->Fill(*entry);
        if (i % 151 == 150)
            writer->CommitCluster(i % 2 == 0);
    }
}

template <class T> std::unique_ptr<ROOT::RFieldBase> field(const char *name) {
    return std::make_unique<RField<T>>(name);
}

using Any = std::variant<int, std::string>;

struct Late {
    std::shared_ptr<int> number;
    std::shared_ptr<std::vector<float>> list;
    std::shared_ptr<std::array<double, 3>> array;
    std::shared_ptr<std::string> text;
    std::shared_ptr<Any> any;
    std::shared_ptr<std::optional<int>> perhaps;
    std::shared_ptr<Child> child;
    std::shared_ptr<bool> flag;
};

// Fields that are added in the middle of a cluster (the projected ones at the start), representations that change from
// cluster to cluster, no checksums.
void write_evolving(const char *path, const char *values) {
    using C = ENTupleColumnType;
    {
        auto model = RNTupleModel::Create();
        auto points = model->MakeField<std::vector<Point>>("points");
        model->AddProjectedField(field<std::vector<double>>("y"),
                                 [](const std::string &name) { return name == "y" ? "points" : "points._0.y"; });
        model->AddProjectedField(field<ROOT::RNTupleCardinality<std::uint32_t>>("n"),
                                 [](const std::string &) { return "points"; });
        auto real = std::make_unique<RField<double>>("real");
        real->SetColumnRepresentatives({{C::kReal64}, {C::kSplitReal32}, {C::kReal16}});
        model->AddField(std::move(real));
        auto texts = std::make_unique<RField<std::string>>("text");
        texts->SetColumnRepresentatives({{C::kSplitIndex32, C::kChar}, {C::kIndex64, C::kChar}});
        model->AddField(std::move(texts));
        auto o = options(404, 200);
        o.SetEnablePageChecksums(false);
        auto writer = RNTupleWriter::Recreate(std::move(model), "table", path, o);
        auto &entry = writer->GetModel().GetDefaultEntry();
        Late late;
        for (int i = 0; i < ENTRIES; i++) {
            if (i == 333) {
                auto updater = writer->CreateModelUpdater();
                updater->BeginUpdate();
                late = {updater->MakeField<int>("late_number"),
                        updater->MakeField<std::vector<float>>("late_list"),
                        updater->MakeField<std::array<double, 3>>("late_array"),
                        updater->MakeField<std::string>("late_text"),
                        updater->MakeField<Any>("late_any"),
                        updater->MakeField<std::optional<int>>("late_perhaps"),
                        updater->MakeField<Child>("late_child"),
                        updater->MakeField<bool>("late_flag")};
                updater->CommitUpdate();
            }
            if (late.number) {
                *late.number = i;
                late.list->assign(i % 4, i / 3.f);
                *late.array = {1. * i, 2. * i, 3.};
                text(*late.text, i);
                i % 2 ? *late.any = i : *late.any = "s";
                i % 3 ? *late.perhaps = i : *late.perhaps = std::nullopt;
                child(*late.child, i);
                *late.flag = true;
            }
            list_of<Point>(*points, i, point);
            *entry.GetPtr<double>("real") = i / 8.;
            text(*entry.GetPtr<std::string>("text"), i);
            writer->Fill();
            if (i % 100 == 99) {
                writer->CommitCluster(i % 200 == 99);
                for (const char *name : {"real", "text"}) {
                    auto &f = const_cast<ROOT::RFieldBase &>(writer->GetModel().GetConstField(name));
                    ROOT::Internal::RFieldRepresentationModifier::SetPrimaryColumnRepresentation(
                        f, i / 100 % (name[0] == 'r' ? 3 : 2));
                }
            }
        }
    }
    Json out(values);
    auto reader = RNTupleReader::Open("table", path);
    dump<std::vector<Point>>(*reader, "points", out);
    dump<std::vector<double>>(*reader, "y", out);
    dump<double>(*reader, "real", out);
    dump<std::string>(*reader, "text", out);
    dump<int>(*reader, "late_number", out);
    dump<std::vector<float>>(*reader, "late_list", out);
    dump<std::array<double, 3>>(*reader, "late_array", out);
    dump<std::string>(*reader, "late_text", out);
    dump<Any>(*reader, "late_any", out);
    dump<std::optional<int>>(*reader, "late_perhaps", out);
    dump<Child>(*reader, "late_child", out);
    dump<bool>(*reader, "late_flag", out);
    out << "{\"name\":\"n\",\"values\":[";
    auto view = reader->GetView<ROOT::RNTupleCardinality<std::uint32_t>>("n");
    for (auto i : reader->GetEntryRange())
        out << (i ? "," : "") << view(i);
    out << "]}" << std::endl;
}

void make_cases() {
    TClass::GetClass("Streamed")->CreateAttributeMap();
    TClass::GetClass("Streamed")->GetAttributeMap()->AddProperty("rntuple.streamerMode", "true");
    numbers();
    collections();
    structures();
}
