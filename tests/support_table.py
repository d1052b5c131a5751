"""Measures which cases of support_cases.C each reader reads right, and writes docs/support.md. A reader is right when it gives the
very values that ROOT was told to write.

    support_table.py write             measure all readers that are here and write the page
    support_table.py measure READER FOLDER   used by the above: prints what a reader gives as JSON (cases ROOT wrote to FOLDER)

JSROOT is run when `npm install --prefix build/peers jsroot` has put it there.
"""

import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
PAGE = SOURCE / "docs/support.md"
ENTRIES = range(6)


def hits(e):
    return [[e, e + k / 2] for k in range(e % 3)]


def values(function):
    return [[function(e) for e in ENTRIES]]


NUMBERS = values(lambda e: e)
# title, case, columns (the last word of a name), their values
CASES = {
    "TTree: leaves": [
        ("numbers", "numbers", ["x"], values(lambda e: e / 4)),
        ("bool", "bools", ["x"], values(lambda e: e % 2)),
        ("text (`/C`)", "text", ["x"], values(lambda e: "abcdef"[:e])),
        ("fixed array `[2][3]`", "fixed", ["x"], values(lambda e: [[e, e + 1, e + 2], [e + 3, e + 4, e + 5]])),
        ("counted array `[n]`", "jagged", ["x"], values(lambda e: [e + k for k in range(e % 3)])),
        ("counted array `[n][2]`", "jagged_rows", ["x"], values(lambda e: [[e + 2 * k, e + 2 * k + 1] for k in range(e % 3)])),
        ("Double32_t with a range", "double32", ["x"], values(lambda e: e)),
        ("Float16_t with bits", "float16", ["x"], values(lambda e: e)),
        ("list of leaves", "leaf_list", ["x"], values(lambda e: [e, e / 2])),
    ],
    "TTree: collections": [
        ("`vector<float>`", "vector", ["x"], values(lambda e: [e] * (e % 3))),
        ("`vector<bool>`", "vector_bool", ["x"], values(lambda e: [e % 2] * (e % 3))),
        ("`vector<vector<int>>`", "vector_vector", ["x"], values(lambda e: [[e] * (e % 2 + 1)] * (e % 3))),
        ("`vector<string>`", "vector_string", ["x"], values(lambda e: ["s" * e] * (e % 3))),
        ("`string`", "string", ["x"], values(lambda e: "s" * e)),
        ("`map<string, vector<int>>`", "map", ["x"], values(lambda e: [["k", [e, e]]])),
        ("`multimap<int, int>`", "multimap", ["x"], values(lambda e: [[1, e], [1, e + 1]])),
        ("`set<int>`", "set", ["x"], values(lambda e: [e, e + 1])),
        ("`vector<pair<int, float>>`", "pairs", ["x"], values(lambda e: [[e, 0.5]] * (e % 3))),
        ("`vector<bitset<8>>`", "bitsets", ["x"], values(lambda e: [[e >> k & 1 for k in range(8)]] * (e % 3))),
    ],
    "TTree: classes": [
        ("class, split", "class_split", ["id", "e"], [list(ENTRIES), [e / 2 for e in ENTRIES]]),
        ("class, unsplit", "class_whole", ["x"], values(lambda e: [e, e / 2])),
        ("base class", "derived", ["x"], values(lambda e: [e, -e])),
        ("counted pointer", "counted", ["x"], values(lambda e: [e % 3, [1, 2, 3][: e % 3]])),
        ("std::string and TString members", "texts", ["x"], values(lambda e: ["s" * e, "t"])),
        ("collections inside a class", "nested", ["x"], values(lambda e: [hits(e), [[e, "w"]]])),
        ("vector of a class, split", "hits_split", ["id", "e"], [[[h[i] for h in hits(e)] for e in ENTRIES] for i in (0, 1)]),
        ("vector of a class, member-wise", "hits_memberwise", ["x"], values(hits)),
        ("vector of a class with collections, member-wise", "nested_memberwise", ["x"], values(lambda e: [[hits(e), [[e, "w"]]]] * (e % 2))),
        ("vector of vectors of a class", "hits_hits", ["x"], values(lambda e: [hits(e)] * (e % 2))),
        ("TLorentzVector", "lorentz", ["x"], values(lambda e: [[1, 2, 3], e])),
        ("TClonesArray, split", "clones_split", ["id", "e"], [[[e] * (e % 3) for e in ENTRIES], [list(range(e % 3)) for e in ENTRIES]]),
        ("TClonesArray, unsplit", "clones_whole", ["x"], values(lambda e: [[e, k] for k in range(e % 3)])),
    ],
    "TTree: storage": [
        ("offsets left out (kGenerateOffsetMap), counted array", "offset_map", ["x"], values(lambda e: [e + k for k in range(e % 3)])),
        ("offsets left out, vector", "offset_map_text", ["x"], values(lambda e: [e] * (e % 3))),
        ("zlib", "zlib", ["x"], NUMBERS),
        ("lzma", "lzma", ["x"], NUMBERS),
        ("lz4", "lz4", ["x"], NUMBERS),
        ("zstd", "zstd", ["x"], NUMBERS),
        ("uncompressed", "stored", ["x"], NUMBERS),
        ("raw deflate of the oldest files (CS)", "old_zlib", ["x"], NUMBERS),
        ("friend named by the tree", "friends", ["x"], NUMBERS),
        ("newest of several cycles", "cycles", ["x"], NUMBERS),
        ("tree in a folder", "folder", ["x"], NUMBERS),
        ("file that was never closed", "unclosed", ["x"], NUMBERS),
    ],
    "RNTuple": [
        ("numbers", "n_numbers", ["x"], values(lambda e: e / 4)),
        ("bool", "n_bool", ["x"], values(lambda e: e % 2)),
        ("string", "n_string", ["x"], values(lambda e: "s" * e)),
        ("vector", "n_vector", ["x"], values(lambda e: [e] * (e % 3))),
        ("vector of vectors", "n_vector_vector", ["x"], values(lambda e: [[e] * (e % 2 + 1)] * (e % 3))),
        ("class with a base", "n_class", ["x"], values(lambda e: [e, -e])),
        ("vector of a class", "n_classes", ["x"], values(hits)),
        ("array", "n_array", ["x"], values(lambda e: [e, -e])),
        ("tuple", "n_tuple", ["x"], values(lambda e: [e, 0.5])),
        ("optional", "n_optional", ["x"], values(lambda e: e if e % 2 else None)),
        ("variant", "n_variant", ["x"], values(lambda e: e if e % 2 else "s")),
        ("bitset", "n_bitset", ["x"], values(lambda e: [e >> k & 1 for k in range(8)])),
        ("map", "n_map", ["x"], values(lambda e: [[e, "w"]])),
        ("half precision", "n_half", ["x"], NUMBERS),
        ("truncated precision", "n_truncated", ["x"], NUMBERS),
        ("quantized", "n_quantized", ["x"], NUMBERS),
        ("field added late", "n_late", ["x"], values(lambda e: e if e >= 3 else 0)),
        ("projected field", "n_projected", ["x"], NUMBERS),
        ("field stored by its streamer", "n_streamed", ["x"], values(lambda e: [e, -e])),
    ],
}
ALL = [case for group in CASES.values() for case in group]

# ---- The files --------------------------------------------------------------------------------------------------------


def write_files(folder):
    """By ROOT, each in a process of its own: one of them does not come back from writing."""
    import ROOT

    ROOT.gErrorIgnoreLevel = ROOT.kError
    assert ROOT.gSystem.CompileMacro(str(SOURCE / "tests/support_cases.C"), "kO", "", str(folder)) == 1
    for _, case, _, _ in ALL:
        if case == "old_zlib":
            continue
        child = os.fork()
        if child == 0:
            ROOT.support_write(case, str(folder / f"{case}.root"))
            os._exit(0)
        os.waitpid(child, 0)
    (folder / "old_zlib.root").write_bytes(make_old((folder / "zlib.root").read_bytes()))


def make_old(data):
    """zlib blocks as those of the oldest files: deflate without zlib's header and checksum, what is left over behind it."""
    data = bytearray(data)
    for match in re.finditer(rb"ZL\x08(...)(...)\x78", bytes(data), re.DOTALL):
        at, stored = match.start(), int.from_bytes(match[1], "little")
        raw = bytes(data[at + 9 + 2 : at + 9 + stored - 4])
        data[at : at + 9 + stored] = b"CS\x08" + len(raw).to_bytes(3, "little") + match[2] + raw + bytes(6)
    return bytes(data)


# ---- The readers --------------------------------------------------------------------------------------------------------


def pick(names, word):
    """The column whose name ends with that word; the shortest."""
    return min((name for name in names if re.split(r"[./]", name)[-1] == word), key=len)


def read_sapwood(path, case, columns):
    import sapwood

    file = sapwood.open(path)
    tree = file["a/b/t" if case == "folder" else "t"]
    # a friend's columns are found by their names, but are not among the tree's own
    names = columns if case == "friends" else [pick(tree.keys(), word) for word in columns]
    return [tree.arrow([name]).column(0).to_pylist() for name in names]


def read_uproot(path, case, columns):
    import uproot

    tree = uproot.open(path)["a/b/t" if case == "folder" else "t"]
    return [tree[pick(tree.keys(), word)].array().to_list() for word in columns]


READERS = {"sapwood": read_sapwood, "uproot": read_uproot}


def plain(value):
    """Records as lists of their values, and so on: what JSON has."""
    if isinstance(value, dict):
        return [plain(v) for k, v in value.items() if not k.startswith("@")]
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    return value.decode() if isinstance(value, bytes) else value


def measure(reader, folder):
    results = {}
    for _, case, columns, _ in ALL:
        try:
            results[case] = plain(READERS[reader](str(folder / f"{case}.root"), case, columns))
        except Exception as problem:  # whatever it is, the reader does not read it
            results[case] = f"{type(problem).__name__}: {problem}"[:300]
    return results


def same(a, b):
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b) <= 1e-6 * abs(b)
    return a == b


def flat(value):
    return [leaf for item in value for leaf in flat(item)] if isinstance(value, list) else [value]


# Bases may stand before or behind a class's own members, nested or not, fixed dimensions be flat, and bits be one number.
SHAPES = {
    "derived": lambda entry: sorted(flat(entry)),
    "n_class": lambda entry: sorted(flat(entry)),
    "fixed": flat,
    "n_bitset": lambda entry: sum(bit << k for k, bit in enumerate(entry)) if isinstance(entry, list) else entry,
}


def right(case, result, expected):
    shape = SHAPES.get(case)
    if shape and isinstance(result, list):
        result, expected = ([[shape(entry) for entry in column] for column in columns] for columns in (result, expected))
    return same(result, expected)


def marks(results):
    """yes, no (it says so), or wrong (it gives other values without a word)."""
    return {case: "yes" if right(case, results[case], expected) else "no" if isinstance(results[case], str) else "wrong" for _, case, _, expected in ALL}


def run(reader, folder):
    """In a process of its own: ROOT and a reader must not share one."""
    command = [sys.executable, __file__, "measure", reader, str(folder)]
    if reader == "jsroot":
        command = ["node", str(SOURCE / "tests/support_jsroot.mjs"), str(folder), json.dumps([case[1:3] for case in ALL])]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return json.loads(result.stdout.splitlines()[-1])


# ---- The page ---------------------------------------------------------------------------------------------------------------


def versions():
    import uproot

    root = subprocess.run([sys.executable, "-c", "import ROOT; print(ROOT.gROOT.GetVersion())"], capture_output=True, text=True, check=True)
    found = {"sapwood": "Sapwood", "root": f"ROOT {root.stdout.split()[-1]}", "uproot": f"uproot {uproot.__version__}"}
    package = SOURCE / "build/peers/node_modules/jsroot/package.json"
    found["jsroot"] = f"JSROOT {json.loads(package.read_text())['version']}" if package.exists() else "JSROOT"
    return found, package.exists()


def page(measured, names, date):
    lines = [
        "# What is read",
        "",
        f"Measured on {date} by `tests/support_table.py`, which writes this page: ROOT writes each case as a small file, and each reader",
        "reads it. **yes**: the very values that were written; **no**: an error; **wrong**: other values, without a word. The column of ROOT is",
        "what it is by definition: it wrote them. groot and UnROOT.jl could not be installed where this was measured, and are left out.",
        "",
    ]
    for group, cases in CASES.items():
        columns = ["sapwood", "root", *[reader for reader in ("uproot", "jsroot") if reader in measured]]
        lines += [f"## {group}", "", "| | " + " | ".join(names[c] for c in columns) + " |", "|---|" + "---|" * len(columns)]
        for title, case, _, _ in cases:
            lines.append(f"| {title} | " + " | ".join("yes" if c == "root" else measured[c][case] for c in columns) + " |")
        lines.append("")
    return "\n".join(lines)


def write():
    names, with_jsroot = versions()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "files", folder], check=True, capture_output=True)
        measured = {reader: marks(run(reader, folder)) for reader in ("sapwood", "uproot", *(["jsroot"] if with_jsroot else []))}
    PAGE.write_text(page(measured, names, datetime.date.today().isoformat()))


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        write()
    elif sys.argv[1] == "files":
        write_files(Path(sys.argv[2]))
    else:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
